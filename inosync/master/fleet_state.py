"""What the origin of a fleet keeps on disk, so that its epoch goes on after a restart (rule 5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from inosync.changes import Change, Kind
from inosync.fleet import recovery
from inosync.master.fleet_origin import FleetOrigin
from inosync.state.marks import Mark
from inosync.state.saved_fleet import SavedFleet


@dataclass(slots=True)
class FleetState:
    """Says what is kept of a fleet; ``state_keeper`` keeps it."""

    origin: FleetOrigin
    past: SavedFleet | None
    """What an earlier process has left; None: nothing that can be relied on."""
    _reserved: int = 0
    """The position that is kept: no position beyond it is given before another one is."""

    @property
    def reserved(self) -> int:
        """Return the position to be kept now."""
        self._reserved = recovery.reserved(self.origin.journal.head, self._reserved)
        return self._reserved

    @property
    def orders(self) -> Mapping[str, str]:
        """Return what is ordered for nodes of senders, by name."""
        return self.origin.orders.texts

    def needs_after(self) -> int:
        """Return the position after which a node of a sender, or Redis, may lack something."""
        origin = self.origin
        cursors = [one.cursor for one in origin.records.values() if one.cursor is not None]
        # A node that has fallen off the journal is compared in full, whatever is known of it.
        return min([origin.appended, *(one for one in cursors if one >= origin.journal.floor)])

    def books(self, mark: Mark | None) -> object:
        """Return something that differs when what is kept does, but for the time alone."""
        origin = self.origin
        known = mark and (mark.position, mark.unclosed)
        return self.reserved, self.orders, origin.epoch, known, dict(origin.copies), dict(origin.records)

    def saved(self, mark: Mark | None, wpaths: Mapping[int, str], may_use_past: bool) -> SavedFleet | None:
        """Return what is kept; None if the next process has to begin a new epoch.

        ``mark``: the newest one that is no newer than ``needs_after``; ``may_use_past``: whether what was
        true at the start is still true.
        """
        origin, past = self.origin, self.past
        if mark is not None:
            position, time = mark.position, mark.wall
            unclosed = tuple((wpaths[tree], path) for tree, path in mark.unclosed if tree in wpaths)
        elif past is not None and past.epoch == origin.epoch and may_use_past:
            position, time, unclosed = past.floor, past.time, past.unclosed
        else:
            return None
        return SavedFleet(
            origin.fleet.fingerprint,
            origin.epoch,
            self.reserved,
            position,
            time,
            unclosed,
            dict(origin.copies),
            dict(origin.records),
        )

    def before_walk(self, last: SavedFleet | None) -> SavedFleet | None:
        """Return what was kept before a walk that has not ended, with the positions given since."""
        if last is None or last.epoch != self.origin.epoch:
            return None
        return replace(last, reserved=max(self.reserved, last.reserved))

    def go_on(self) -> None:
        """Have the origin and its journal go on where an earlier process has ended."""
        if self.past is not None:
            self.origin.journal.go_on(self.past.reserved, self.past.floor)
            self.origin.go_on(self.past.epoch, self.past.nodes, self.past.copies)

    def record_unclosed(self, numbers: Mapping[str, int], now: float) -> None:
        """Record the files that were open at the time: their times may be older. ``numbers``: of trees."""
        for wpath, path in () if self.past is None else self.past.unclosed:
            if wpath in numbers:
                self.origin.journal.record(Change(numbers[wpath], path, Kind.NAME), now)
