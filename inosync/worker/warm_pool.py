"""The warm rsyncs of one worker: for the trees that were used last, while there is nothing else to do.

They are also the heartbeat of the node, for which one is enough: one that cannot connect shows that the node
is out of reach before anything changes.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from inosync.nodes import backoff
from inosync.rsync.transfer import Transfer
from inosync.system.loop import Loop
from inosync.worker.warm import SLOW_SECONDS, WarmRsync
from inosync.worker.warm_moves import YOUNG_SECONDS, Choice, Move, Slot, by_use, choose, decide

LULL_SECONDS = 0.05
"""The pause between a batch and the next warm rsync: without it, the starts for many nodes would take the
processor from transfers that still run."""
CONNECT_SECONDS = 30.0
"""The longest time for connecting; ``rtimeout`` counts if it is shorter."""
MAX_AGE_SECONDS = 1200.0
"""The age at which a warm rsync is replaced; up to twice that, so that not all are replaced at once."""
SUSPEND_SECONDS = (600.0, 21_600.0)
"""Bounds of the time in which no connection is kept."""


class Owner(Protocol):
    """What the pool asks and tells its worker."""

    def start_warm(self, tree: int) -> Transfer:
        """Start an rsync that waits for names of a tree. OSError if that is not possible."""

    def node_reached(self) -> None:
        """The node answers."""

    def node_unreachable(self, attempt: int, code: int, reason: str, pause: float) -> None:
        """The node does not answer, ``attempt`` times in a row; the next try is in ``pause`` seconds."""

    def node_unchecked(self) -> None:
        """After ``node_unreachable``: no tree is left to connect for, so nothing tells whether it answers."""

    def warm_suspended(self, reason: str, pause: float, is_new: bool) -> None:
        """For ``pause`` seconds none will be kept; ``is_new`` if it was not so before."""

    def adapt(self, lines: Sequence[bytes]) -> bool:
        """Whether rsyncs are called in another way from now on, because of what one that failed said."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a pool; times are in seconds."""

    most: int
    """The most rsyncs that are kept."""
    retry: tuple[float, float]
    """First and longest pause after a failure."""
    timeout: float
    """How long a transfer may be without progress."""


class WarmPool:
    """``trees``: for each its directory here."""

    def __init__(
        self,
        trees: Mapping[int, str],
        limits: Limits,
        owner: Owner,
        loop: Loop,
        rand: Callable[[], float] = random.random,
    ) -> None:
        self._trees, self._limits, self._owner = trees, limits, owner
        self._patience = min(CONNECT_SECONDS, limits.timeout)
        self._loop, self._clock, self._rand = loop, loop.clock, rand
        self._rsyncs: dict[int, WarmRsync] = {}  # by tree
        self._used: list[int] = []  # the trees that were used last, the last one first
        self._ending: list[Transfer] = []  # rsyncs that were told to end
        self._is_idle = False  # the worker has nothing else to do
        self._not_before = 0.0  # when the next may be started
        self._failures = 0  # to reach the node, in a row
        self._is_slow = False  # it was reported that the node takes long to answer
        self._early_closes = 0  # in a row
        self._early_close_at = float("-inf")  # the last of them
        self._suspensions = 0  # in a row

    # What the worker says ----------------------------------------------------------------------------

    def idle(self, lull: float) -> None:
        """The worker has nothing to do: from ``lull`` seconds on, have one for each of the trees in use."""
        self._is_idle = True
        # One in a directory that was there before would keep it from being unmounted.
        stale = [tree for tree, rsync in self._rsyncs.items() if not rsync.reads_from(self._trees[tree])]
        for tree in {*stale, *self._choice().end}:
            self.end(tree)
        self._not_before = max(self._not_before if self._suspensions else 0.0, self._clock() + lull)

    def busy(self) -> None:
        """The worker has something to do: start none."""
        self._is_idle = False
        self._failures, self._is_slow = 0, False

    def take(self, tree: int) -> Transfer | None:
        """That of a tree as it is now, to be fed; None if there is none that is of any use."""
        self._used = [tree, *(other for other in self._used if other != tree)][: self._limits.most]
        rsync = self._rsyncs.pop(tree, None)
        if rsync is None:
            return None
        transfer = rsync.take(self._trees[tree])
        if transfer is None:
            self._ending.append(rsync.end())
        elif rsync.connected_at is not None:
            self._failures = self._early_closes = 0
            self._note_life(rsync)
        return transfer

    @property
    def has_connected(self) -> bool:
        """Whether any of them is connected to the node."""
        return any(rsync.connected_at is not None for rsync in self._rsyncs.values())

    def suspend(self, reason: str) -> None:
        """Keep none for a while."""
        self.end_all()
        self._suspensions += 1
        self._early_closes = self._failures = 0
        pause = backoff.delay(self._suspensions, *SUSPEND_SECONDS, self._rand())
        self._not_before = self._clock() + pause
        self._owner.warm_suspended(reason, pause, self._suspensions == 1)

    def renew(self, lull: float) -> None:
        """Replace all of them, from ``lull`` seconds on: they were called in a way that holds no more.

        It stays known whether the node is out of reach, or takes long to answer.
        """
        for rsync in self._rsyncs.values():
            self._note_life(rsync)
        if self._rsyncs:
            self._not_before = max(self._not_before, self._clock() + lull)
        for tree in list(self._rsyncs):
            self.end(tree)

    def end(self, tree: int) -> None:
        """End that of a tree, if there is one."""
        if rsync := self._rsyncs.pop(tree, None):
            self._ending.append(rsync.end())

    def end_all(self) -> None:
        for tree in list(self._rsyncs):
            self.end(tree)
        self._is_slow = False

    @property
    def pids(self) -> list[int]:
        """The rsyncs, those that are ending included."""
        return [rsync.pid for rsync in self._rsyncs.values()] + [transfer.pid for transfer in self._ending]

    # Time passes -------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float:
        """When ``check`` has something to do, by the clock."""
        times = [rsync.deadline for rsync in self._rsyncs.values()]
        is_unchecked = not self._rsyncs and (self._failures or self._is_slow)
        if self._is_idle and (is_unchecked or (self._has_room and self._choice().start)):
            times.append(self._not_before)
        return min(times, default=float("inf"))

    def check(self) -> None:
        """Check all of them, and start those that are missing."""
        self._ending = [transfer for transfer in self._ending if not transfer.done]
        for tree, rsync in list(self._rsyncs.items()):
            if self._rsyncs.get(tree) is rsync:  # what another one says may have ended it
                was_connected = rsync.connected_at is not None
                rsync.check()
                self._act(tree, rsync, was_connected)
        for tree in self._choice().start if self._may_connect and self._has_room else ():
            if self._may_connect:  # one that cannot be started is a failure, after which there is a pause
                self._connect(tree)
        if self._may_connect and not self._rsyncs and (self._failures or self._is_slow):
            self._failures, self._is_slow = 0, False
            self._owner.node_unchecked()

    @property
    def _may_connect(self) -> bool:
        return self._is_idle and self._clock() >= self._not_before

    @property
    def _has_room(self) -> bool:
        return len(self._rsyncs) < min(self._limits.most, len(self._trees))

    def _choice(self) -> Choice:
        there = filter(self._has_tree, by_use(self._trees, self._used))
        return choose(there, self._rsyncs, self._limits.most)

    def _slot(self, tree: int, rsync: WarmRsync, was_connected: bool) -> Slot:
        return Slot(
            self._is_idle,
            self._has_tree(tree),
            was_connected,
            is_connected=rsync.connected_at is not None,
            connected_for=rsync.connected_for,
            is_slow=rsync.is_slow,
            is_old=rsync.is_old,
            lost=rsync.lost,
            is_broken=rsync.is_broken,
            others_connected=self.has_connected,
            is_away=self._failures > 0 or self._is_slow,
            is_counted=rsync.started_at <= self._early_close_at,
            early_closes=self._early_closes,
        )

    def _has_tree(self, tree: int) -> bool:
        return os.path.isdir(self._trees[tree])

    def _act(self, tree: int, rsync: WarmRsync, was_connected: bool) -> None:
        step = decide(self._slot(tree, rsync, was_connected))
        if rsync.lost or step is Move.RENEW:
            self.end(tree)
        match step:
            case Move.REACHED:
                self._is_slow = False
                self._owner.node_reached()
            case Move.SLOW:
                self._is_slow = True
                left = max(rsync.started_at + self._patience - self._clock(), 0.0)
                self._owner.node_unreachable(1, 0, f"no answer for {SLOW_SECONDS:g} s", left)
            case Move.RENEW:
                self._note_life(rsync)
                # Until the node knows that it has ended.
                self._not_before = max(self._not_before, self._clock() + LULL_SECONDS)
            case Move.REPLACE:
                self._note_life(rsync)
            case Move.PAUSE | Move.SUSPEND | Move.GIVE_UP if not was_connected and self._owner.adapt(
                rsync.lines
            ):
                self.renew(0.0)
            case Move.PAUSE:
                self._early_closes, self._early_close_at = self._early_closes + 1, self._clock()
                self._pause(LULL_SECONDS if self._early_closes == 1 else self._backoff(self._early_closes))
            case Move.SUSPEND:
                self._early_close_at = self._clock()
                life = f" after {rsync.connected_for:.1f} s without a change" if was_connected else ""
                self.suspend(rsync.lost + life)
            case Move.GIVE_UP:
                self._give_up(rsync.code, rsync.lost)

    def _connect(self, tree: int) -> None:
        try:
            transfer = self._owner.start_warm(tree)
        except OSError as error:  # no rsync, or no processes or descriptors left: no fault of the node's
            self._give_up(0, error.strerror or str(error))
            return
        max_age = MAX_AGE_SECONDS * (1 + self._rand())
        self._rsyncs[tree] = WarmRsync(transfer, self._loop, self._patience, max_age)

    def _give_up(self, code: int, reason: str) -> None:
        self.end_all()
        self._failures += 1
        self._early_closes = 0  # it was the node that went away
        pause = self._backoff(self._failures)
        self._pause(pause)
        self._owner.node_unreachable(self._failures, code, reason, pause)

    def _backoff(self, attempt: int) -> float:
        return backoff.delay(attempt, *self._limits.retry, self._rand())

    def _pause(self, seconds: float) -> None:
        self._not_before = self._clock() + seconds

    def _note_life(self, rsync: WarmRsync) -> None:
        """Forget what went wrong before a connection that was good for long."""
        if rsync.connected_for >= YOUNG_SECONDS:
            self._failures = self._early_closes = self._suspensions = 0
