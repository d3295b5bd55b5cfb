"""A warm rsync: started, connected, and waiting for the names of a batch that does not exist yet."""

from __future__ import annotations

import os

from inosync.rsync import stderr
from inosync.rsync.transfer import Transfer
from inosync.system import process
from inosync.system.loop import Loop
from inosync.system.peers import Peers

SLOW_SECONDS = 5.0
"""As a rule, connecting takes less."""
POLL_SECONDS = 3.0
"""The time between two checks of a connection, where the kernel does not report its end."""
_CONNECT_POLL_SECONDS = 0.1, 0.25
"""Bounds of the time between two checks whether it is connected. Only the node's heartbeat waits for that: a
batch that comes sooner asks by itself."""
_CHECK_COST = 100
"""A check of a connection may take a hundredth of the time."""


class WarmRsync:
    """``patience``: seconds that connecting may take; ``max_age``: seconds that it is kept."""

    def __init__(self, transfer: Transfer, loop: Loop, patience: float, max_age: float) -> None:
        self._transfer, self._loop, self._clock = transfer, loop, loop.clock
        self._patience = patience
        self._peers: Peers | None = None  # its connections, where the kernel tells of their end
        self.started_at = self._clock()
        self._pause, _ = _CONNECT_POLL_SECONDS  # until the next check whether it is connected
        self._check_at = self.started_at + self._pause
        self._retire_at = self.started_at + max_age
        self.connected_at: float | None = None
        self.lost = ""
        """Why it is of no use any more; empty while it is."""
        self.is_broken = False
        """Whether it was connected, and the node was found not to answer any more."""
        self.code = 0
        """The exit code that came with ``lost``, if one did."""
        self.lines: list[bytes] = []
        """What it said on standard error by then."""
        transfer.send_empty_name()

    @property
    def pid(self) -> int:
        return self._transfer.pid

    @property
    def deadline(self) -> float:
        return min(self._check_at, self._retire_at)

    @property
    def is_slow(self) -> bool:
        """Whether it takes long to connect."""
        return self.connected_at is None and self._clock() - self.started_at >= SLOW_SECONDS

    @property
    def connected_for(self) -> float:
        """Seconds since it has connected; 0 if it has not."""
        return 0.0 if self.connected_at is None else self._clock() - self.connected_at

    @property
    def is_old(self) -> bool:
        """Whether it is to be replaced: its node's name may lead to another host or user by now."""
        return self._clock() >= self._retire_at

    def check(self) -> None:
        """Find out whether it is connected by now, or still is."""
        now = self._clock()
        if self.lost:
            return
        if self._transfer.done:
            self.code = self._transfer.code or 0
            self.lines = self._transfer.stderr
            self.lost = self._transfer.abort_reason or stderr.failure_reason(self.code, self.lines)
        elif now < self._check_at:
            return
        elif self.connected_at is None:
            self._check_connecting(now)
        elif process.is_cut_off(self.pid):
            self._on_end()
        else:
            self._check_at = now + max(POLL_SECONDS, _CHECK_COST * (self._clock() - now))

    def _check_connecting(self, now: float) -> None:
        if self._transfer.is_connected:
            self.connected_at = now
            self._watch_peers(now)
        elif now - self.started_at >= self._patience:
            self.lost = f"no answer for {self._patience:g} s"
        else:
            self._transfer.watch_output()
            self._pause = min(self._pause * 1.5, _CONNECT_POLL_SECONDS[1])
            self._check_at = now + self._pause

    def _watch_peers(self, now: float) -> None:
        try:
            self._peers = self._transfer.peers()
        except OSError:
            self._check_at = now + POLL_SECONDS
        else:
            self._check_at = float("inf")
            self._loop.on_readable(self._peers, self._on_end)

    def _on_end(self) -> None:
        error = self._peers.error if self._peers is not None else ""
        self.is_broken = bool(error)
        self.lost = error or "the node has closed the connection"
        self._check_at = self._clock()
        self._drop_peers()

    def _drop_peers(self) -> None:
        if self._peers is not None:
            self._loop.drop(self._peers)
            self._peers.close()
            self._peers = None

    def take(self, source: str) -> Transfer | None:
        """The transfer, to be fed; None if it is of no use for the tree that is at ``source`` now."""
        self.check()
        if self._peers is not None and self._peers.ended:
            self._on_end()
        if self.lost or not self.reads_from(source):
            return None
        self._drop_peers()
        return self._transfer

    def reads_from(self, source: str) -> bool:
        """Whether it would send what is at ``source`` now, and not what was there when it was started."""
        if self.connected_at is None:  # it has not entered the directory yet
            return True
        try:
            return os.path.samestat(self._transfer.directory_status, os.stat(source))
        except OSError:
            return False

    def end(self) -> Transfer:
        """End it. The transfer is to be checked until it is done."""
        self._drop_peers()
        self._transfer.terminate()
        return self._transfer
