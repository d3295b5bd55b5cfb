"""The warm rsyncs of one worker: one for each tree, while there is nothing else to do.

Seen that way they are also the heartbeat of the node: one that cannot connect tells that it is out of reach
before any change is made.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from inosync.nodes import backoff
from inosync.rsync.transfer import Transfer
from inosync.system.loop import Loop
from inosync.worker.warm import LATE, WarmRsync

LULL = 0.05
"""Seconds between a batch and the start of the next warm rsync: started at once, those of many nodes would
take the processor from the transfers that are still running."""
CONNECT = 30.0
"""Seconds that connecting to a node may take, and no longer than any transfer may be without progress."""
AGE = 1200.0
"""Seconds after which a warm rsync is replaced; up to twice that, so that not all of them are at once."""
YOUNG = 30.0
"""Seconds; a connection that its node ends sooner than that, though nothing was wrong, died young."""
STRIKES = 3
"""Connections in a row that die young, or are refused beside others, until none is kept any more ..."""
CHILL = (600.0, 21_600.0)
"""... for so many seconds, first and longest."""


class Owner(Protocol):
    """Who is told what they find out."""

    def reached(self) -> None:
        """The node answers."""

    def unwatched(self) -> None:
        """After ``unreached``: nobody looks any more whether the node answers, there is nothing to send."""

    def unreached(self, attempt: int, code: int, reason: str, pause: float) -> None:
        """The node does not answer, ``attempt`` times in a row now; the next is in ``pause`` seconds."""

    def chilled(self, reason: str, pause: float, news: bool) -> None:
        """For ``pause`` seconds none will be kept; ``news`` if it was not so before."""

    def adapts(self, lines: Sequence[bytes]) -> bool:
        """Whether those that are started next are called in another way, for what one that failed said."""


class WarmPool:
    """``trees``: for each its directory here; ``start`` starts the rsync of one.

    ``retry``: first and longest pause after a failure; ``timeout``: how long a transfer may be without
    progress; all in seconds.
    """

    def __init__(
        self,
        trees: Mapping[int, str],
        start: Callable[[int], Transfer],
        owner: Owner,
        retry: tuple[float, float],
        timeout: float,
        loop: Loop,
        clock: Callable[[], float],
        rand: Callable[[], float] = random.random,
    ) -> None:
        self._trees = trees
        self._start, self._owner, self._retry = start, owner, retry
        self._patience = min(CONNECT, timeout)
        self._loop, self._clock, self._chance = loop, clock, rand
        self._spares: dict[int, WarmRsync] = {}
        self._ending: list[Transfer] = []
        self._resting = False
        """Whether the worker has nothing else to do."""
        self._not_before = 0.0
        self._misses = 0
        """Failures to reach the node, in a row ..."""
        self._late: WarmRsync | None = None
        """The one that was told of since it takes long to connect."""
        self._strikes = 0
        """... and what looks as if it did not like connections that are kept; the last of that was ..."""
        self._struck_at = float("-inf")
        self._chills = 0

    # What the worker says ----------------------------------------------------------------------------

    def rest(self, lull: float) -> None:
        """There is nothing to do: from ``lull`` seconds on, have one for each tree."""
        self._resting = True
        for tree, spare in list(self._spares.items()):
            # One in a directory that was there before would keep it from being unmounted.
            if not spare.reads_from(self._trees[tree]):
                self._ending.append(self._spares.pop(tree).end())
        self._not_before = max(self._not_before if self._chills else 0.0, self._clock() + lull)

    def work(self) -> None:
        """There is something to do: start none."""
        self._resting = False
        self._misses, self._late = 0, None

    def take(self, tree: int) -> Transfer | None:
        """That of a tree as it is now, to be fed; None if there is none that is of any use."""
        spare = self._spares.pop(tree, None)
        transfer = spare.take(self._trees[tree]) if spare else None
        if spare is not None and transfer is None:
            self._ending.append(spare.end())
        elif spare is not None and spare.ready_at is not None:
            self._misses = self._strikes = 0
            if spare.lived >= YOUNG:
                self._forgive()
        return transfer

    @property
    def kept(self) -> bool:
        """Whether any of them is connected to the node."""
        return any(spare.ready_at is not None for spare in self._spares.values())

    def chill(self, reason: str) -> None:
        """Keep none for a while."""
        self.drop()
        self._chills += 1
        self._strikes = self._misses = 0
        pause = backoff.delay(self._chills, *CHILL, self._chance())
        self._not_before = self._clock() + pause
        self._owner.chilled(reason, pause, self._chills == 1)

    def renew(self, lull: float) -> None:
        """Replace all of them, from ``lull`` seconds on: what they were started with holds no more.

        Whether the node is out of reach, or takes long to answer, stays known.
        """
        if any(spare.lived >= YOUNG for spare in self._spares.values()):
            self._forgive()
        if self._spares:
            self._not_before = max(self._not_before, self._clock() + lull)
        self._ending += [spare.end() for spare in self._spares.values()]
        self._spares.clear()

    def drop(self) -> None:
        """End all of them."""
        self._ending += [spare.end() for spare in self._spares.values()]
        self._spares.clear()
        self._late = None

    @property
    def pids(self) -> list[int]:
        """The rsyncs."""
        return [spare.pid for spare in self._spares.values()] + [transfer.pid for transfer in self._ending]

    # Time passes -------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float:
        """When ``tend`` has something to do, by the clock."""
        times = [spare.deadline for spare in self._spares.values()]
        if self._resting and self._missing():
            times.append(self._not_before)
        return min(times, default=float("inf"))

    def tend(self) -> None:
        """Look after those that there are, and start those that are missing."""
        self._ending = [transfer for transfer in self._ending if not transfer.done]
        for tree, spare in list(self._spares.items()):
            if self._spares.get(tree) is spare:  # judging one may have ended others
                self._tend(tree, spare)
        if self._resting and self._clock() >= self._not_before:
            missing = self._missing()
            if not missing and not self._spares and (self._misses or self._late):
                self._misses, self._late = 0, None
                self._owner.unwatched()
            for tree in missing:
                if not self._begin(tree):
                    break

    def _missing(self) -> list[int]:
        """Trees that have none; but what is not there is no node's fault, and comes back with a batch."""
        return [tree for tree in self._trees if tree not in self._spares and self._is_there(tree)]

    def _is_there(self, tree: int) -> bool:
        return os.path.isdir(self._trees[tree])

    def _begin(self, tree: int) -> bool:
        try:
            transfer = self._start(tree)
        except OSError as error:  # no rsync, or no processes or descriptors left: no fault of the node's
            self._miss(0, error.strerror or str(error))
            return False
        age = AGE * (1 + self._chance())
        self._spares[tree] = WarmRsync(transfer, self._loop, self._clock, self._patience, age)
        return True

    def _tend(self, tree: int, spare: WarmRsync) -> None:
        was_ready = spare.ready_at is not None
        spare.tend()
        if spare.lost:
            del self._spares[tree]
            self._ending.append(spare.end())
            if was_ready:
                self._ended(spare)
            elif self._resting and self._is_there(tree):  # or else what the worker does tells more
                self._refused(spare)
        elif spare.old:
            del self._spares[tree]
            self._ending.append(spare.end())
            self._forgive()
            # Until the node knows that it has ended.
            self._not_before = max(self._not_before, self._clock() + LULL)
        elif spare.ready_at is not None and not was_ready:
            self._late = None
            self._owner.reached()
        elif spare.late and self._resting and not (self._misses or self._late or self.kept):
            self._late = spare
            left = max(spare.began + self._patience - self._clock(), 0.0)
            self._owner.unreached(1, 0, f"no answer for {LATE:g} s", left)

    def _ended(self, spare: WarmRsync) -> None:
        """A connection that was there has gone: no failure, until the next one fails."""
        if spare.broken:
            if self._resting:  # or else what the worker does tells more
                self._miss(spare.code, spare.lost)
        elif spare.lived >= YOUNG:
            self._forgive()
        else:
            self._strike(spare, f"{spare.lost} after {spare.lived:.1f} s without a change")

    def _refused(self, spare: WarmRsync) -> None:
        """One that could not connect. If another one can, the node has no room for so many."""
        if self._owner.adapts(spare.said):
            return
        if self.kept or "max connections" in spare.lost:
            self._strike(spare, spare.lost)
        else:
            self._miss(spare.code, spare.lost)

    def _forgive(self) -> None:
        """A connection was good for long."""
        self._misses = self._strikes = self._chills = 0

    def _strike(self, spare: WarmRsync, reason: str) -> None:
        if spare.began <= self._struck_at:  # one event ends those of all trees
            return
        self._strikes += 1
        self._struck_at = self._clock()
        if self._strikes >= STRIKES:
            self.chill(reason)
        else:
            pause = backoff.delay(self._strikes, *self._retry, self._chance())
            self._not_before = self._clock() + (LULL if self._strikes == 1 else pause)

    def _miss(self, code: int, reason: str) -> None:
        self.drop()
        self._misses += 1
        self._strikes = 0  # it was the node that went away
        pause = backoff.delay(self._misses, *self._retry, self._chance())
        self._not_before = self._clock() + pause
        self._owner.unreached(self._misses, code, reason, pause)
