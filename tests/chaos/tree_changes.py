"""The hostile changes of two trees, in a thread, in an order that depends only on the seed."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter

from chaos.storm import Storm
from chaos.testbed import STORMED, Testbed

PACES = ((0.0, 60), (0.002, 80), (0.02, 60), (0.02, 120), (0.1, 30), (0.3, 10))
"""Seconds between two operations, and the number of operations at this pace."""
MODERATE = ((0.02, 100), (0.1, 60), (0.3, 20))


class TreeChanges:
    """Changes trees until ``stop``, except between ``pause`` and ``resume``.

    With ``moderate`` the changes are slower, for a long run.
    """

    def __init__(
        self,
        testbed: Testbed,
        seed: str,
        hard_links: bool = False,
        moderate: bool = False,
        read_only: bool = False,
    ) -> None:
        self._chances = random.Random(seed)
        self._pace = random.Random(self._chances.getrandbits(32))
        self._paces = MODERATE if moderate else PACES
        roots = [os.fsencode(testbed.tree(tree)) for tree in STORMED]
        outside = os.fsencode(testbed.outside)
        self.storms = [
            Storm(root, self._chances.getrandbits(32), outside, partner, hard_links, read_only)
            for root, partner in zip(roots, reversed(roots), strict=True)
        ]
        self.failure: Exception | None = None
        """The exception that ended the thread, if any."""
        self._going = threading.Event()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="churn", daemon=True)

    def begin(self, count: int) -> None:
        """Do so many operations back to back."""
        for _ in range(count):
            self._step()

    def start(self) -> None:
        self._going.set()
        self._thread.start()

    def pause(self) -> None:
        """Stop changing, and finish operations that have several steps."""
        self._going.clear()
        with self._lock:
            for storm in self.storms:
                storm.finish()
        if self.failure is not None:
            raise self.failure

    def resume(self) -> None:
        self._going.set()

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()
        self._going.set()
        if self._thread.ident is not None:
            self._thread.join(60)

    @property
    def operations(self) -> int:
        return sum(len(storm.log) for storm in self.storms)

    def done(self) -> Counter[str]:
        """Return how often each operation was done."""
        total: Counter[str] = Counter()
        for storm in self.storms:
            total.update(storm.done)
        return total

    def tail(self, count: int = 30) -> str:
        return "\n".join(storm.tail(count) for storm in self.storms)

    def _step(self) -> None:
        self._chances.choice(self.storms).step()

    def _stepped(self) -> bool:
        # Wait outside of the lock, because this thread would take it again before any other.
        self._going.wait()
        with self._lock:
            if not self._going.is_set() or self._ended.is_set():
                return False
            self._step()
            return True

    def _run(self) -> None:
        try:
            while True:
                pause, count = self._pace.choice(self._paces)
                for _ in range(count):
                    while not self._stepped():
                        if self._ended.is_set():
                            return
                    time.sleep(pause)
        except Exception as error:  # noqa: BLE001 - handed to the thread that runs all
            self.failure = error
