"""The journal: a bounded, ordered record of changes, that the master keeps for all nodes.

A node is a cursor into it: the position up to which it has confirmed everything. An entry says only that a
path may differ, so the newest record of a path stands for all older ones.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from inosync.journal.renames import Hint, RenameHints
from inosync.journal.times import RecordTimes
from inosync.messages import Change, Kind, Rename, Step

Key = tuple[int, bytes]
"""Tree and path."""

_Oldest = tuple[float, int]
"""When something was first recorded, and at which position."""
_NO_OLDEST: _Oldest = (0.0, 0)
_NEVER = (0, Kind.NAME)
_NO_POSITION = 1 << 62
"""No journal comes so far."""
_MAX_FILTERED = 5_000
"""So many of the newest changes are filtered for the backlog of a node; older ones count unseen."""


@dataclass(slots=True)
class _Entry:
    position: int
    kind: Kind
    first: float
    """When the path was first recorded, as far back as not all nodes have confirmed."""
    begun: int
    """The position of that record, or of the first of what this entry covers."""
    before: tuple[int, Kind] = _NEVER
    """Position and kind of what was recorded of the path before it was gone."""
    made: int = 0
    """The position before which there was nothing at the path; 0 if that is not known."""
    created: int = 0
    """The position at which something came to be there while nothing was; 0 if that is not known."""
    switched: int = 0
    """The position at which what was there was taken away or replaced last; 0 if that is not known."""
    unknown: int = 0
    """The position of the last record that does not say what had happened; 0 if there was none."""
    is_gone: bool = False
    """Whether the newest record says that nothing is there."""

    def step(self, cursor: int) -> Step:
        """Return the step of the change for a node that has this cursor."""
        if self.made > cursor:
            return Step.NEW
        if self.switched > cursor:
            return Step.REMOVED if self.is_gone else Step.SWITCHED
        if self.unknown > cursor:
            return Step.UNKNOWN
        return Step.NEW if self.created > cursor else Step.CHANGED

    def follow(self, step: Step, known: _Entry | None) -> None:
        """Take over what the older record of the path says, and add what the step of this one says."""
        if known is not None:
            self.made, self.created, self.switched = known.made, known.created, known.switched
            self.unknown, self.is_gone = known.unknown, known.is_gone
        if step is Step.NEW and known is None:
            self.made = self.created = self.position
        elif step in (Step.NEW, Step.UNKNOWN) and self.is_gone:
            self.created = self.position
        elif step is Step.UNKNOWN:
            self.unknown = self.position
        elif step >= Step.SWITCHED:
            self.switched = self.position
        self.is_gone = step is Step.REMOVED


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
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._below: dict[Key, set[bytes]] = {}
        """For a directory, the names in it that have an entry at or below them."""
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

    def _add(self, change: Change, now: float, oldest: _Oldest) -> None:
        key, kind = (change.tree, change.path), change.kind
        known = self._entries.pop(key, None)
        if known is None:
            self._link(key)
        else:
            oldest = min(oldest, (known.first, known.begun))
        self.head += 1
        self._newest[change.tree] = self.head
        # The older record may not have reached every node: the newer has to cover it.
        entry = _Entry(self.head, max(kind, known.kind) if known else kind, *oldest)
        entry.follow(change.step, known)
        self._entries[key] = entry
        self._times.add(self.head, now)
        if len(self._entries) > self._limit:
            self._drop_oldest()

    def gone(self, tree: int, path: bytes, now: float, step: Step = Step.REMOVED) -> None:
        """Record that what was at ``path``, with all below it, is not there any more.

        Unless ``step`` is REMOVED, something else was moved there.
        """
        before = self._recorded((tree, path))
        oldest = self._swallow((tree, path), (now, self.head + 1), everything=True)
        known = self._entries.get((tree, path))
        if known is not None:
            known.kind = Kind.NAME
        self._add(Change(tree, path, Kind.NAME, step=step), now, oldest)
        self._entries[tree, path].before = before

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
        found = (entry.position, entry.kind) if entry else _NEVER
        if above is None or above.kind is Kind.NAME:
            return found
        return max(found, (above.position, above.kind))

    def since(self, cursor: int, upto: float = math.inf) -> list[Change] | None:
        """Return the changes after ``cursor``, oldest first; None if it has fallen off: FULL.

        With ``upto``, only what is no newer than that position, and carries nothing that is (``unsettled``).
        """
        if cursor < self.floor:
            return None
        found = []
        above: dict[Key, Step | None] = {}
        for key, entry in reversed(self._entries.items()):
            if entry.position <= cursor:
                break
            if upto >= self.head or self._is_older(key, entry.kind, upto):
                found.append(Change(*key, entry.kind, step=self._step(key, entry, cursor, above)))
        found.reverse()
        return found

    # Machines of a fleet -----------------------------------------------------------------------------

    def entries_after(self, cursor: int) -> list[tuple[int, Change]]:
        """Return what was recorded after a position, each with its own, in order."""
        found = []
        for key, entry in reversed(self._entries.items()):
            if entry.position <= cursor:
                break
            found.append((entry.position, Change(*key, entry.kind, step=entry.step(cursor))))
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
        found = []
        for key, entry in reversed(self._entries.items()):
            if entry.position <= cursor:
                break
            if entry.position <= upto and not self._is_older(key, entry.kind, upto):
                found.append(Change(*key, entry.kind))
        return found

    def overtaken(self, upto: int) -> dict[int, tuple[bytes, ...]]:
        """Return by tree what was recorded up to a position and again after it, as ``Change.wire``."""
        found: dict[int, list[bytes]] = {}
        for (tree, path), entry in reversed(self._entries.items()):
            if entry.position <= upto:
                break
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
            ):  # it may be another directory, and all below it something else
                return False
        return True

    def _is_older(self, key: Key, kind: Kind, upto: float) -> bool:
        tree, path = key
        if kind is Kind.TREE or upto < self.floor:  # then some of what is newer may have been dropped
            return self._newest.get(tree, 0) <= upto
        names = self._below.get(key, ()) if kind is Kind.LIST else ()
        children = ((tree, path + b"/" + name if path else name) for name in names)
        entries = (self._entries.get(each) for each in (key, *children))
        return all(entry is None or entry.position <= upto for entry in entries)

    def recorded_before(self, when: float) -> int:
        """Return a position up to which all was recorded before a time: the newest that is known; or -1."""
        return self._times.last_before(when)

    # What a change is to a node ----------------------------------------------------------------------

    def _step(self, key: Key, entry: _Entry, cursor: int, above: dict[Key, Step | None]) -> Step:
        """Return the step of an entry. In a new directory all is new, and in a replaced one replaced.

        ``above`` holds what was found of directories.
        """
        tree, path = key
        inherited = self._step_of_directory((tree, path.rpartition(b"/")[0]), cursor, above) if path else None
        own = entry.step(cursor)
        if inherited is None or (inherited is Step.SWITCHED and own is Step.REMOVED):
            return own
        return inherited

    def _step_of_directory(self, key: Key, cursor: int, above: dict[Key, Step | None]) -> Step | None:
        """Return NEW or SWITCHED if that is so for all in a directory; None if each name has its own step."""
        if key in above:
            return above[key]
        tree, path = key
        waiting = [key]
        while path and waiting[-1] not in above:  # without recursion: there may be a thousand levels
            path = path.rpartition(b"/")[0]
            waiting.append((tree, path))
        step = None
        for key in reversed(waiting):
            step = above.get(key, step)
            if step is None and (entry := self._entries.get(key)) is not None and entry.position > cursor:
                own = min(entry.step(cursor), Step.SWITCHED)
                step = own if own in (Step.NEW, Step.SWITCHED) else None
            above[key] = step
        return step

    def backlog(
        self, cursor: int, concerns: Callable[[Change], bool] | None = None
    ) -> tuple[int, float | None]:
        """Return how many changes follow ``cursor``, and when the oldest was recorded; None if there is none.

        With ``concerns``, only those that concern a node. Because that takes time, only the newest of very
        many are filtered. Dropped changes are not counted. The time is never too late; it may be too early
        for a path of which the node has confirmed an older record.
        """
        count, first = 0, float("inf")
        for number, ((tree, path), entry) in enumerate(reversed(self._entries.items())):
            if entry.position <= cursor:
                break
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
        while self._entries:
            key, entry = next(iter(self._entries.items()))
            if entry.position > confirmed:
                break
            self._remove(key, _NO_OLDEST)
        self._times.drop_confirmed(confirmed)
        self._renames.drop_confirmed(confirmed)

    def drop_tree(self, tree: int) -> None:
        """Drop all changes of a tree that is not mirrored any more."""
        self._swallow((tree, b""), _NO_OLDEST, everything=True)
        self._remove((tree, b""), _NO_OLDEST)
        self._newest.pop(tree, None)
        self._renames.drop_tree(tree)

    def _drop_oldest(self) -> None:
        key, entry = next(iter(self._entries.items()))
        self.floor = entry.position
        self._remove(key, _NO_OLDEST)

    def _swallow(self, key: Key, oldest: _Oldest, everything: bool) -> _Oldest:
        """Remove the entries below ``key`` that its new entry covers; return the oldest record, with its own.

        ``everything``: what is gone, or compared as a whole, covers all of them. A relist covers only the
        names in the directory, not what lies below a subdirectory, nor the listing of one.
        """
        found = [key]
        for tree, path in found:  # grows as it goes
            for name in self._below.get((tree, path), ()):
                child = (tree, path + b"/" + name if path else name)
                if everything or self._is_name(child):
                    found.append(child)
            if not everything:
                break
        for child in reversed(found[1:]):  # the deepest first, or their index entries would be orphans
            oldest = min(oldest, self._remove(child, oldest))
        return oldest

    def _is_name(self, key: Key) -> bool:
        entry = self._entries.get(key)
        return entry is not None and entry.kind is Kind.NAME

    def _remove(self, key: Key, oldest: _Oldest) -> _Oldest:
        """Remove an entry, if there is one; return its first record, or else ``oldest``."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return oldest
        self._unlink(key)
        return entry.first, entry.begun

    def _link(self, key: Key) -> None:
        tree, path = key
        while path:
            path, _, name = path.rpartition(b"/")
            names = self._below.get((tree, path))
            if names is not None:
                names.add(name)
                return
            self._below[tree, path] = {name}

    def _unlink(self, key: Key) -> None:
        tree, path = key
        while path and (tree, path) not in self._below and (tree, path) not in self._entries:
            path, _, name = path.rpartition(b"/")
            names = self._below[tree, path]
            names.remove(name)
            if names:
                return
            del self._below[tree, path]
