"""The entries of the journal: each path once, in the order of last records, and found by directory. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from inosync.changes import Kind, Step

Key = tuple[int, bytes]
"""Tree and path."""

NEVER = (0, Kind.NAME)
"""Position and kind of what was not recorded."""


@dataclass(slots=True)
class JournalEntry:
    """What is recorded of a path."""

    position: int
    kind: Kind
    first: float
    """When the path was first recorded, as far back as not all nodes have confirmed."""
    begun: int
    """The position of that record, or of the first of what this entry covers."""
    before: tuple[int, Kind] = NEVER
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

    def follow(self, step: Step, known: JournalEntry | None) -> None:
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


class Entries:
    """Entries by path. Whatever is added is the newest."""

    def __init__(self) -> None:
        self._entries: OrderedDict[Key, JournalEntry] = OrderedDict()
        self._below: dict[Key, set[bytes]] = {}
        """For a directory, the names in it that have an entry at or below them."""

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key) -> JournalEntry | None:
        return self._entries.get(key)

    def after(self, position: int) -> Iterator[tuple[Key, JournalEntry]]:
        """Return what was recorded after a position, the newest first."""
        for key, entry in reversed(self._entries.items()):
            if entry.position <= position:
                break
            yield key, entry

    def oldest(self) -> tuple[Key, JournalEntry] | None:
        return next(iter(self._entries.items()), None)

    def in_directory(self, key: Key) -> list[Key]:
        """Return the paths in a directory that have an entry, or have one below them."""
        tree, path = key
        return [(tree, path + b"/" + name if path else name) for name in self._below.get(key, ())]

    def add(self, key: Key, entry: JournalEntry) -> None:
        """Add an entry, in the place of that which the path has, if any."""
        if self._entries.pop(key, None) is None:
            self._link(key)
        self._entries[key] = entry

    def remove(self, key: Key) -> JournalEntry | None:
        """Remove the entry of a path, and return it, if there is one."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._unlink(key)
        return entry

    def remove_covered(self, key: Key, everything: bool) -> list[JournalEntry]:
        """Remove the entries below a path that a new entry of it covers, and return them.

        ``everything``: what is gone, or compared as a whole, covers all of them. A relist covers only the
        names in the directory, not what lies below a subdirectory, nor the listing of one.
        """
        found = [key]
        for directory in found:  # grows as it goes
            found += [each for each in self.in_directory(directory) if everything or self._is_name(each)]
            if not everything:
                break
        # The deepest first, or their index entries would be orphans.
        return [entry for each in reversed(found[1:]) if (entry := self.remove(each)) is not None]

    def _is_name(self, key: Key) -> bool:
        entry = self._entries.get(key)
        return entry is not None and entry.kind is Kind.NAME

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


class Steps:
    """The steps of changes for a node that has this cursor.

    In a new directory all is new, and in a replaced one replaced.
    """

    def __init__(self, entries: Entries, cursor: int) -> None:
        self._entries, self._cursor = entries, cursor
        self._known: dict[Key, Step | None] = {}
        """For a directory, NEW or SWITCHED if all in it is; None if each name has its own step."""

    def of(self, key: Key, entry: JournalEntry) -> Step:
        """Return the step of an entry."""
        tree, path = key
        inherited = self._of_directory((tree, path.rpartition(b"/")[0])) if path else None
        own = entry.step(self._cursor)
        if inherited is None or (inherited is Step.SWITCHED and own is Step.REMOVED):
            return own
        return inherited

    def _of_directory(self, key: Key) -> Step | None:
        known = self._known
        if key in known:
            return known[key]
        tree, path = key
        waiting = [key]
        while path and waiting[-1] not in known:  # without recursion: there may be a thousand levels
            path = path.rpartition(b"/")[0]
            waiting.append((tree, path))
        step = None
        for key in reversed(waiting):
            step = known.get(key, step)
            entry = self._entries.get(key)
            if step is None and entry is not None and entry.position > self._cursor:
                own = min(entry.step(self._cursor), Step.SWITCHED)
                step = own if own in (Step.NEW, Step.SWITCHED) else None
            known[key] = step
        return step
