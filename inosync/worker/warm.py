"""A warm rsync: started, connected, and waiting for the names of a batch that does not exist yet."""

from __future__ import annotations

import os
from collections.abc import Callable

from inosync.rsync import exit_codes, stderr
from inosync.rsync.transfer import Transfer
from inosync.system import process
from inosync.system.loop import Loop
from inosync.system.peers import Peers

LATE = 5.0
"""Seconds that connecting takes at most as a rule."""
LOOK = 3.0
"""Seconds between two looks at a connection, where the kernel does not tell of its end."""
_SHORTEST, _LONGEST = 0.005, 0.25
"""Seconds between two looks whether it is connected."""
_COST = 100
"""A look at a connection may take a hundredth of the time."""


class WarmRsync:
    """One of them. Times by the clock.

    ``patience``: seconds that connecting may take; ``retire_after``: seconds after which it is too old.
    """

    def __init__(
        self,
        transfer: Transfer,
        loop: Loop,
        clock: Callable[[], float],
        patience: float,
        retire_after: float,
    ) -> None:
        self._transfer, self._loop, self._clock = transfer, loop, clock
        self._patience = patience
        self._peers: Peers | None = None
        self.began = clock()
        """When it was started."""
        self._pause = _SHORTEST
        self._look_at = self.began + _SHORTEST
        self._retire_at = self.began + retire_after
        self.ready_at: float | None = None
        """Since when it is connected; None: not yet."""
        self.lost = ""
        """Why it is of no use any more; empty while it is."""
        self.broken = False
        """Whether it was connected, and the node was found not to answer any more."""
        self.code = 0
        """The exit code that came with it, if one did ..."""
        self.said: list[bytes] = []
        """... and the lines of its standard error."""
        transfer.send_empty_name()

    @property
    def pid(self) -> int:
        """Of the rsync."""
        return self._transfer.pid

    @property
    def deadline(self) -> float:
        """When ``tend`` has something to do."""
        return min(self._look_at, self._retire_at)

    @property
    def late(self) -> bool:
        """Whether it takes long to connect."""
        return self.ready_at is None and self._clock() - self.began >= LATE

    @property
    def lived(self) -> float:
        """For how many seconds it has been connected."""
        return 0.0 if self.ready_at is None else self._clock() - self.ready_at

    @property
    def old(self) -> bool:
        """Whether it is to be replaced for its age: who it would reach, and as whom, may have changed."""
        return self._clock() >= self._retire_at

    def tend(self) -> None:
        """Look whether it is connected by now, or still is."""
        now = self._clock()
        if self.lost:
            return
        if self._transfer.done:
            self.code = self._transfer.code or 0
            self.said = self._transfer.stderr
            self.lost = stderr.reason(self._transfer.stderr) or exit_codes.describe(self.code)
        elif now < self._look_at:
            return
        elif self.ready_at is None:
            self._look_for_connection(now)
        elif process.is_cut_off(self.pid):
            self._on_end()
        else:
            self._look_at = now + max(LOOK, _COST * (self._clock() - now))

    def _look_for_connection(self, now: float) -> None:
        if self._transfer.is_connected:
            self.ready_at = now
            self._watch_peers(now)
        elif now - self.began >= self._patience:
            self.lost = f"no answer for {self._patience:g} s"
        else:
            self._pause = min(self._pause * 1.5, _LONGEST)
            self._look_at = now + self._pause

    def _watch_peers(self, now: float) -> None:
        try:
            self._peers = self._transfer.peers()
        except OSError:
            self._look_at = now + LOOK
        else:
            self._look_at = float("inf")
            self._loop.on_readable(self._peers, self._on_end)

    def _on_end(self) -> None:
        error = self._peers.error if self._peers is not None else ""
        self.broken = bool(error)
        self.lost = error or "the node has closed the connection"
        self._let_go()

    def _let_go(self) -> None:
        if self._peers is not None:
            self._loop.drop(self._peers)
            self._peers.close()
            self._peers = None

    def take(self, source: str) -> Transfer | None:
        """The transfer, to be fed; None if it is of no use for the tree that is at ``source`` now."""
        self.tend()
        if self._peers is not None and self._peers.ended:
            self._on_end()
        if self.lost or not self.reads_from(source):
            return None
        self._let_go()
        return self._transfer

    def reads_from(self, source: str) -> bool:
        """Whether it would transfer what is at ``source`` now, and not what was there when it was started."""
        if self.ready_at is None:  # it has not entered the directory yet
            return True
        try:
            return os.path.samestat(self._transfer.directory_status, os.stat(source))
        except OSError:
            return False

    def end(self) -> Transfer:
        """End it; the transfer is to be tended until it is done."""
        self._let_go()
        self._transfer.terminate()
        return self._transfer
