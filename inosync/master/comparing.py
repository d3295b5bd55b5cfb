"""A client that waits for the comparison of nodes: ``verify --wait`` and ``diff``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from inosync.master.verification import Comparison, Verification, Waiter
from inosync.nodes.node import Node
from inosync.system.loop import Loop, Timer


class Comparing:
    """Collects what is found on each node, and calls ``done`` once: at the end, or at the deadline."""

    def __init__(
        self,
        verification: Verification,
        loop: Loop,
        done: Callable[[Sequence[Comparison]], None],
    ) -> None:
        self._verification, self._loop, self._done = verification, loop, done
        self._waiters: list[Waiter] = []
        """For the nodes that are still to be compared."""
        self._found: list[Comparison] = []
        self._timer: Timer | None = None
        """Runs at the deadline."""

    def begin(self, nodes: Sequence[Node], may_repair: bool, deadline: float) -> None:
        """Have the nodes compared. A paused one is not, because nothing connects to it."""
        if deadline < math.inf:
            self._timer = self._loop.call_at(deadline, self._give_up)
        for node in nodes:
            if node.paused:
                self._found.append(Comparison(node.name, "is paused"))
            else:
                self._waiters.append(Waiter(node.name, may_repair, self._compared))
        for waiter in self._waiters:
            self._verification.wait(waiter)
        # Not at once, because the caller defers the reply first.
        self._loop.call_at(self._loop.clock(), self._end_if_complete)

    def cancel(self) -> None:
        """Wait no more, and call ``done`` no more."""
        for waiter in self._waiters:
            self._verification.cancel(waiter)
        self._waiters.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._done = lambda _found: None

    def _compared(self, comparison: Comparison) -> None:
        self._found.append(comparison)
        self._waiters = [waiter for waiter in self._waiters if waiter.node != comparison.node]
        self._end_if_complete()

    def _give_up(self) -> None:
        self._found += [Comparison(waiter.node, "was not compared in time") for waiter in self._waiters]
        done = self._done
        self.cancel()
        done(self._found)

    def _end_if_complete(self) -> None:
        if not self._waiters:
            done = self._done
            self.cancel()
            done(self._found)
