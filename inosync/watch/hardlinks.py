"""The other names of files: a change through one is a change of all, and the kernel reports only that one.

To find the names of a file, all directories have to be searched for its inode number. That is done when a
file with several names has changed whose other names are not known; from then on they are.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field

from inosync.changes import Change, Kind
from inosync.watch.inode_search import Inode, InodeSearch, inode_of
from inosync.watch.listener import ChangeListener
from inosync.watch.tree import Name, Root, join, locate, status_at

MAX_NAMES = 100_000
"""Names that are remembered, about 300 bytes each. When there are more, files are forgotten, and searched for
when they change again."""
MAX_WANTED = 100_000
"""Files that may wait to be searched for. When there are more, all trees are compared instead."""
MAX_MISSED = 10_000
"""Names that may wait to be looked at again, which may happen for each directory that is renamed."""
TIME_SHARE = 10
"""Searches may take a tenth of the time: after one that took long, the next begins later."""


@dataclass(slots=True)
class LinkedFile:
    """A file with several names."""

    inode: Inode
    names: dict[Name, None] = field(default_factory=dict)
    """Its known names in watched directories; excluded ones, too, once it was changed through them."""
    elsewhere: int = -1
    """How many more names it had after it was searched for: excluded, or outside; -1: never searched for."""
    generation: int = 0
    """The generation of the directories at the beginning of that search."""


class HardLinks:
    """A ``FileListener`` that passes on what it hears, and adds the other names of files that have changed.

    The names of a file are known if there are as many as it has links, or if just as many are unknown as
    after its last search: each name that a file gets in a watched directory is reported.
    """

    def __init__(self, listener: ChangeListener, clock: Callable[[], float]) -> None:
        self._listener, self._clock = listener, clock
        # These are passed on as they are.
        self.record, self.gone, self.renamed = listener.record, listener.gone, listener.renamed
        self.walked, self.caught_up = listener.walked, listener.caught_up
        self.refiltered, self.directory_left = listener.refiltered, listener.directory_left
        self._roots: dict[int, Root] = {}
        """The trees, by their numbers."""
        self._files: dict[Inode, LinkedFile] = {}
        self._names: dict[Name, LinkedFile] = {}
        """All their names: a changed file may have left the name by the time of the look."""
        self._generation = 0
        """Increases when names in directories may have come or gone without a report of each."""
        self._checked: set[Name] = set()
        """The names that were looked at in this batch of events."""
        self._missed: dict[Name, None] = {}
        """Changed names that were not there. An event that moves their directory may be still to come."""
        self._directory_moved = False
        """Whether a directory was moved in this batch of events."""
        self._wanted: dict[Inode, float] = {}
        """The files to be searched for next, and since when."""
        self._search = InodeSearch(self._note_found)
        self._search_generation = 0
        """The generation of the directories when the present search began."""
        self._spent = 0.0
        """Seconds that the present search has taken."""
        self._next_at = 0.0
        """When the next search may begin."""
        self.searches = 0
        """How many searches were completed."""

    # What the watcher reports ------------------------------------------------------------------------

    def lost(self, tree: int, why: str) -> None:
        """Pass it on; with the root, names were lost."""
        self.directories_changed()
        self._listener.lost(tree, why)

    def tree_added(self, root: Root) -> None:
        self._roots[root.tree] = root

    def tree_removed(self, root: Root) -> None:
        del self._roots[root.tree]
        self.events_lost()

    def file_changed(self, path: tuple[Root, bytes] | None, name: Name, now: float) -> None:
        """Record the other names of a file: those that are known now, and the others later.

        Excluded names are never recorded; a change through one is reported here like any other.
        """
        if name not in self._checked:
            self._check(name, status_at(*path) if path else None, now)

    def file_linked(self, status: os.stat_result, name: Name) -> None:
        """Remember one more name of a file, if its others are known."""
        if inode_of(status) in self._files:
            self._remember(inode_of(status), name)

    def directories_changed(self) -> None:
        """Search again for files of which some names are unknown."""
        self._generation += 1

    def directory_moved(self) -> None:
        """Look again at the names that were not there."""
        self._directory_moved = True

    def batch_ended(self, now: float, is_caught_up: bool) -> None:
        """Look again where directories have moved. A later change of the same name is another one."""
        self._checked.clear()
        if self._directory_moved:
            self._directory_moved = False
            missed, self._missed = self._missed, {}
            for name in missed:
                self._check(name, _status_of(name), now)
        if is_caught_up:
            self._missed.clear()  # those names have not gone anywhere with their directories

    def events_lost(self) -> None:
        """Forget everything: what is known may be wrong, and all trees are compared."""
        self._files.clear()
        self._names.clear()
        self._missed.clear()
        self._wanted.clear()
        self._search.end()

    # Searching ---------------------------------------------------------------------------------------

    @property
    def searching_since(self) -> float | None:
        times = [next(iter(each.values())) for each in (self._search.wanted, self._wanted) if each]
        return min(times, default=None)

    def deadline(self) -> float:
        """When ``work`` has something to do; never if there is nothing to search for."""
        if self._search.wanted:
            return self._clock()
        return self._next_at if self._wanted else float("inf")

    def work(self, seconds: float) -> None:
        """Search for about that long, if it is time to."""
        began = now = self._clock()
        if not self._search.wanted:
            if now < self.deadline():
                return
            self._search.begin(self._wanted, self._found_roots())
            self._wanted = {}
            self._search_generation, self._spent = self._generation, 0.0
        has_more = True
        try:
            while has_more and now < began + seconds:
                has_more = self._search.step()
                now = self._clock()
        finally:
            self._search.end_slice()
        self._spent += now - began
        if not has_more:
            self._end_search()
            self._next_at = now + (TIME_SHARE - 1) * self._spent

    def _note_found(self, inode: Inode, name: Name) -> None:
        file = self._files.get(inode)
        if file is None or name not in file.names:
            self._record(name, self._clock())
        self._remember(inode, name)

    def _end_search(self) -> None:
        self.searches += 1
        for inode in self._search.end():
            if file := self._files.get(inode):
                # No name is forgotten here: that it has changed, and is gone, may be among events to come.
                links = _verified(file)
                file.generation = self._search_generation
                file.elsewhere = max(links.values(), default=0) - len(links)
        while len(self._names) > MAX_NAMES:
            oldest = next(iter(self._files))
            for name in self._files.pop(oldest).names:
                del self._names[name]

    def _want(self, inode: Inode, now: float) -> None:
        if len(self._wanted) < MAX_WANTED:
            self._wanted.setdefault(inode, now)
            return
        self.events_lost()
        for root in self._found_roots():
            self._listener.record(Change(root.tree, b"", Kind.TREE), now)

    def _found_roots(self) -> list[Root]:
        return [root for root in self._roots.values() if root.identity is not None]

    # Names -------------------------------------------------------------------------------------------

    def _check(self, name: Name, status: os.stat_result | None, now: float) -> None:
        """``status``: of what has the name now, which need not be what has changed under it."""
        self._checked.add(name)
        known = self._names.get(name)
        if known is not None and (status is None or inode_of(status) != known.inode):
            self._record_others(known, name, now)
        if status is None:
            if len(self._missed) < MAX_MISSED:
                self._missed[name] = None
        elif status.st_nlink > 1 and stat.S_ISREG(status.st_mode):
            self._record_others(self._remember(inode_of(status), name), name, now)

    def _record_others(self, file: LinkedFile, name: Name, now: float) -> None:
        """Record the names of a file that has changed under this one, and search for those not known."""
        links = _verified(file)
        for gone in file.names.keys() - links.keys():
            self._forget(gone)
        for other in links:
            if other != name:
                self._record(other, now)
        elsewhere = file.elsewhere if file.generation == self._generation else -1
        # If none of its names is left, there may be others, unless a search would have found them.
        unknown = max(links.values()) - len(links) if links else int(elsewhere < 0)
        if unknown > 0 and unknown != elsewhere:
            self._want(file.inode, now)

    def _remember(self, inode: Inode, name: Name) -> LinkedFile:
        file = self._files.get(inode)
        if file is None or name not in file.names:
            if name in self._names:
                self._forget(name)
            file = self._files.setdefault(inode, LinkedFile(inode))
            file.names[name] = None
            self._names[name] = file
        return file

    def _forget(self, name: Name) -> None:
        file = self._names.pop(name)
        del file.names[name]
        if not file.names:
            del self._files[file.inode]

    def _record(self, name: Name, now: float) -> None:
        if place := locate(name[0]):
            root, above = place
            path = join(above, name[1])
            if not root.excluded(path, False):
                self._listener.record(Change(root.tree, path, Kind.NAME), now)


def _verified(file: LinkedFile) -> dict[Name, int]:
    """The names that are still the file's, with the number of its links."""
    found = ((name, _status_of(name)) for name in file.names)
    return {name: s.st_nlink for name, s in found if s is not None and inode_of(s) == file.inode}


def _status_of(name: Name) -> os.stat_result | None:
    place = locate(name[0])
    return status_at(place[0], join(place[1], name[1])) if place else None
