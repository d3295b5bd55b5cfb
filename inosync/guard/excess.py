"""Whether more is removed from a tree than the operator allows."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from inosync.changes import Allowance
from inosync.config.checks import Share
from inosync.guard.removals import Removals, must_be_left
from inosync.system import entries
from inosync.text import plural

MIN_REMOVAL_SECONDS = 1.0
"""Removals within this time are one event, however short edelay is."""
MAX_DEPARTURES = 100
"""So many directories that were moved away are known one by one."""
MIN_COUNTED_ENTRIES = 10_000
"""A count of what is left goes so far at least, so that there are few."""


@dataclass(frozen=True, slots=True)
class RemovalLimit:
    """So much may be removed from a tree within so many seconds."""

    most: int | Share
    seconds: float

    @property
    def allowance(self) -> Allowance:
        """Return how much a batch may remove from a node."""
        if isinstance(self.most, Share):
            return Allowance(0, must_be_left(1, self.most))
        return Allowance(self.most, 0.0)


@dataclass(slots=True)
class TreeRemovals:
    """What was removed from one tree. ``now`` is by the guard's clock."""

    removals: Removals = field(default_factory=Removals)
    left: int = 0
    """So many entries are left in the tree, or more."""
    reported: int = 0
    """How many removals the reason for a halt names."""
    _departures: dict[bytes, int] = field(default_factory=dict)
    """Directories that were moved away, one event whatever is in them: by path, at which position."""

    def directory_left(self, path: bytes, position: int) -> None:
        if len(self._departures) >= MAX_DEPARTURES:
            self._departures = {b"": max(self._departures.values())}
        self._departures[path] = position

    def directory_stayed(self, path: bytes) -> None:
        """Note that a directory that was moved away was only renamed within the tree."""
        self._departures.pop(path, None)

    def are_uncounted(self, cursor: int) -> bool:
        """Return whether directories were moved out of the tree after this position of the journal."""
        return any(position > cursor for position in self._departures.values())

    def add(self, path: bytes, now: float, limit: RemovalLimit, is_halted: bool) -> bool:
        """Count an entry that is gone; return whether that may be one too many (``excess``).

        ``is_halted``: whether there were too many already; then none is forgotten.
        """
        window = math.inf if is_halted else limit.seconds
        self.removals.add(path, now, window)
        self.left = max(self.left - 1, 0)
        return self._may_exceed(self.removals.total(now, window), limit)

    def _may_exceed(self, removed: int, limit: RemovalLimit) -> bool:
        return bool(removed) and self.left < must_be_left(removed, limit.most)

    def excess(
        self, wpath: str, excluded: Callable[[bytes, bool], bool], now: float, limit: RemovalLimit
    ) -> str:
        """Return what is too much of what was removed, in words that follow the path of the root."""
        removed = self.removals.total(now, limit.seconds)
        if not self._may_exceed(removed, limit):
            return ""
        needed = must_be_left(removed, limit.most)
        if needed < math.inf:
            # Twice as many, so that they are not counted at each check while removals go on.
            most = max(int(2 * needed), MIN_COUNTED_ENTRIES)
            self.left = entries.count_below(wpath, excluded, most)
            if self.left >= needed:
                return ""
        return self._reported(wpath, removed, limit)

    def further(self, wpath: str, now: float, limit: RemovalLimit) -> str:
        """Return the same if more is gone since it was reported, else ""."""
        removed = self.removals.total(now, math.inf)
        return self._reported(wpath, removed, limit) if removed > self.reported > 0 else ""

    def are_allowed(self, limit: RemovalLimit) -> bool:
        """Return whether the removals that were reported are not too many by this limit.

        After a restart it is not known how many there were.
        """
        return self.reported > 0 and not self._may_exceed(max(self.removals.total(0.0, math.inf), 1), limit)

    def _reported(self, wpath: str, removed: int, limit: RemovalLimit) -> str:
        self.reported = removed
        place = os.path.join(wpath, os.fsdecode(self.removals.place()))
        where = f"in {place}, " if place.rstrip("/") != wpath.rstrip("/") else ""
        return f"has lost {plural(removed, 'entry')}, {where}more than rmaxdelete ({limit.most}) allows"
