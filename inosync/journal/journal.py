"""The journal: a bounded, ordered record of changes, that the master keeps for all nodes.

A node is a cursor into it: the position up to which it has confirmed everything. An entry says only that a
path may differ, so the newest record of a path stands for all older ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from inosync.changes import Change, Kind, Rename, Step
from inosync.journal.entries import NEVER, Entries, JournalEntry, Key, Steps
from inosync.journal.renames import Hint, RenameHints
from inosync.journal.times import RecordTimes

_Oldest = tuple[float, int]
"""When something was first recorded, and at which position."""
_NO_POSITION = 1 << 62
"""No journal comes so far."""
_MAX_FILTERED = 5_000
"""So many of the newest changes are filtered for the backlog of a node; older ones count unseen."""


class Journal:
    """Changes in the order of their last record. Positions count records and only grow.

    ``limit`` bounds the entries (a path each, about 350 bytes), ``marks`` the times kept for the lag.
    """

    def __init__(self, limit: int = 100_000, marks: int = 1_000) -> None:
        self.head = 0
        """The position of the newest record."""
        self.floor = 0
        """The position of the newest record that was dropped: a cursor below it has fallen off."""
        self.start = 0
        """The position before the first that this journal has given; the floor may be below it."""
        self.complete_at = 0
        """Up to when all changes are recorded, in nanoseconds since the epoch; 0 before the first walk."""
        self.unknown_at = 0
        """The position of the newest record that says that anything may have changed."""
        self._limit = limit
        self._entries = Entries()
        self._newest: dict[int, int] = {}
        """By tree: the position of its newest record."""
        self._times = RecordTimes(marks)
        self._renames = RenameHints()

    def __len__(self) -> int:
        return len(self._entries)

    def go_on(self, head: int, floor: int) -> None:
        """Give only positions after ``head``, because another journal has given those up to there.

        What has happened after ``floor`` will be recorded here, whatever position it had in the other one.
        """
        self.head = self.start = head
        self.floor = floor

    def set_complete(self, at: int) -> None:
        """Note that all changes up to a time are recorded."""
        self.complete_at = at

    def record(self, change: Change, now: float) -> None:
        """Record that a path may differ. ``now`` is when its event was read, in seconds."""
        oldest = now, self.head + 1
        if change.kind is not Kind.NAME:
            oldest = self._swallow((change.tree, change.path), oldest, everything=change.kind is Kind.TREE)
        self._add(change, now, oldest)

    def record_unknown(self, tree: int, now: float) -> None:
        """Record that anything in a tree may have changed. No entry says so: nodes are owed all of it."""
        self.head += 1
        self._newest[tree] = self.unknown_at = self.head
        self._times.add(self.head, now)

    def _add(self, change: Change, now: float, oldest: _Oldest) -> JournalEntry:
        key, kind = (change.tree, change.path), change.kind
        known = self._entries.get(key)
        if known is not None:
            oldest = min(oldest, (known.first, known.begun))
        self.head += 1
        self._newest[change.tree] = self.head
        # The older record may not have reached every node: the newer has to cover it.
        entry = JournalEntry(self.head, max(kind, known.kind) if known else kind, *oldest)
        entry.follow(change.step, known)
        self._entries.add(key, entry)
        self._times.add(self.head, now)
        if len(self._entries) > self._limit and (dropped := self._entries.oldest()) is not None:
            self.floor = dropped[1].position
            self._entries.remove(dropped[0])
        return entry

    def gone(self, tree: int, path: bytes, now: float, step: Step = Step.REMOVED) -> None:
        """Record that what was at ``path``, with all below it, is not there any more.

        Unless ``step`` is REMOVED, something else was moved there.
        """
        before = self._recorded((tree, path))
        oldest = self._swallow((tree, path), (now, self.head + 1), everything=True)
        known = self._entries.get((tree, path))
        if known is not None:
            known.kind = Kind.NAME
        self._add(Change(tree, path, Kind.NAME, step=step), now, oldest).before = before

    def renamed(self, tree: int, rename: Rename) -> None:
        """Keep a hint about two paths that were recorded as gone just now."""
        entry = self._entries.get((tree, rename.old))
        if entry is not None:
            position, kind = entry.before
            # The name of a directory alone says that its attributes have changed, not that it is new.
            since = position if kind is not Kind.NAME or not rename.is_directory else 0
            self._renames.add(Hint(tree, rename, since, entry.position))

    def renames_after(self, cursor: int, upto: float = math.inf) -> Mapping[int, tuple[Rename, ...]]:
        """Return by tree the renames that a node with this cursor can follow, up to a position."""
        return self._renames.after(cursor, upto)

    def _recorded(self, key: Key) -> tuple[int, Kind]:
        """Return position and kind of what is recorded of a path, if only by the listing of its directory."""
        entry = self._entries.get(key)
        above = self._entries.get((key[0], key[1].rpartition(b"/")[0]))
        found = (entry.position, entry.kind) if entry else NEVER
        if above is None or above.kind is Kind.NAME:
            return found
        return max(found, (above.position, above.kind))

    def since(self, cursor: int, upto: float = math.inf) -> list[Change] | None:
        """Return the changes after ``cursor``, oldest first; None if it has fallen off: FULL.

        With ``upto``, only what is no newer than that position, and carries nothing that is (``unsettled``).
        """
        if cursor < self.floor:
            return None
        steps = Steps(self._entries, cursor)
        found = [
            Change(*key, entry.kind, step=steps.of(key, entry))
            for key, entry in self._entries.after(cursor)
            if upto >= self.head or self._is_older(key, entry.kind, upto)
        ]
        found.reverse()
        return found

    # Machines of a fleet -----------------------------------------------------------------------------

    def entries_after(self, cursor: int) -> list[tuple[int, Change]]:
        """Return what was recorded after a position, each with its own, in order."""
        found = [
            (entry.position, Change(*key, entry.kind, step=entry.step(cursor)))
            for key, entry in self._entries.after(cursor)
        ]
        found.reverse()
        return found

    def follow(self, head: int, floor: int, changes: Iterable[tuple[int, Change]], now: float) -> None:
        """Record what another journal holds at its positions, up to ``head``, which become those of this one.

        ``floor``: that of the other journal. With a head below that of this one, positions have begun anew.
        """
        if head < self.head:
            for tree in list(self._newest):
                self.drop_tree(tree)
            self.head = self.floor = 0
            self._times.drop_confirmed(_NO_POSITION)
        for position, change in changes:
            self.head = max(self.head, position - 1)
            if change.kind is Kind.NAME and change.step >= Step.UNKNOWN and change.path:
                self.gone(change.tree, change.path, now, change.step)
            else:
                self.record(change, now)
        self.head, self.floor = max(self.head, head), max(self.floor, floor)

    # What is older than a position -------------------------------------------------------------------

    def unsettled(self, cursor: int, upto: int) -> list[Change]:
        """Return what was recorded between these positions, and would carry what is newer if it were sent.

        That is listings of directories in which something has changed since, and trees.
        """
        return [
            Change(*key, entry.kind)
            for key, entry in self._entries.after(cursor)
            if entry.position <= upto and not self._is_older(key, entry.kind, upto)
        ]

    def overtaken(self, upto: int) -> dict[int, tuple[bytes, ...]]:
        """Return by tree what was recorded up to a position and again after it, as ``Change.wire``."""
        found: dict[int, list[bytes]] = {}
        for (tree, path), entry in self._entries.after(upto):
            if entry.begun <= upto:
                found.setdefault(tree, []).append(Change(tree, path, entry.kind).wire)
        return {tree: tuple(wires) for tree, wires in found.items()}

    def is_settled(self, change: Change, upto: float) -> bool:
        """Return whether a change carries nothing that is newer than a position, as far as is recorded."""
        tree, path = change.tree, change.path
        if not self._is_older((tree, path), change.kind, upto):
            return False
        while path:
            path = path.rpartition(b"/")[0]
            entry = self._entries.get((tree, path))
            if (
                entry and entry.position > upto
            ):  # all below may be something else: it may be another directory
                return False
        return True

    def _is_older(self, key: Key, kind: Kind, upto: float) -> bool:
        if kind is Kind.TREE or upto < self.floor:  # then some of what is newer may have been dropped
            return self._newest.get(key[0], 0) <= upto
        names = self._entries.in_directory(key) if kind is Kind.LIST else ()
        entries = (self._entries.get(each) for each in (key, *names))
        return all(entry is None or entry.position <= upto for entry in entries)

    def recorded_before(self, when: float) -> int:
        """Return a position up to which all was recorded before a time: the newest that is known; or -1."""
        return self._times.last_before(when)

    # How far a node is behind -------------------------------------------------------------------------

    def backlog(
        self, cursor: int, concerns: Callable[[Change], bool] | None = None
    ) -> tuple[int, float | None]:
        """Return how many changes follow ``cursor``, and when the oldest was recorded; None if there is none.

        With ``concerns``, only those that concern a node. Because that takes time, only the newest of very
        many are filtered. Dropped changes are not counted. The time is never too late; it may be too early
        for a path of which the node has confirmed an older record.
        """
        count, first = 0, float("inf")
        for number, ((tree, path), entry) in enumerate(self._entries.after(cursor)):
            if concerns is None or number >= _MAX_FILTERED or concerns(Change(tree, path, entry.kind)):
                count += 1
                first = min(first, entry.first)
        oldest = self.oldest_since(cursor)
        if concerns is None or oldest is None or cursor < self.floor:
            return count, oldest
        return (count, max(first, oldest)) if count else (0, None)

    def oldest_since(self, cursor: int) -> float | None:
        """Return when the oldest change after ``cursor`` was recorded, or earlier; None if there is none."""
        return self._times.first_after(cursor) if cursor < self.head else None

    def drop_confirmed(self, confirmed: int) -> None:
        """Drop what every node has confirmed, up to and including that position."""
        while (oldest := self._entries.oldest()) is not None and oldest[1].position <= confirmed:
            self._entries.remove(oldest[0])
        self._times.drop_confirmed(confirmed)
        self._renames.drop_confirmed(confirmed)

    def drop_tree(self, tree: int) -> None:
        """Drop all changes of a tree that is not mirrored any more."""
        self._entries.remove_covered((tree, b""), everything=True)
        self._entries.remove((tree, b""))
        self._newest.pop(tree, None)
        self._renames.drop_tree(tree)

    def _swallow(self, key: Key, oldest: _Oldest, everything: bool) -> _Oldest:
        """Remove the entries that a new one covers; return the oldest record, with its own."""
        covered = self._entries.remove_covered(key, everything)
        return min([oldest, *((entry.first, entry.begun) for entry in covered)])
