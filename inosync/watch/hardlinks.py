"""The other names of a file: what is changed through one is changed under all, and the kernel tells of one.

Nobody knows the names of a file but those who search all directories for its inode number. That is done when
a file with several names has changed, and its other names are not known; then they are.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from inosync.messages import Change, Kind
from inosync.watch.inode_search import Inode, InodeSearch, Name, inode_of
from inosync.watch.listener import ChangeListener
from inosync.watch.tree import Root, join, locate

MAX_NAMES = 100_000
"""Names that are remembered, about 300 bytes each. When there are more, files are forgotten, and searched for
when they change again."""
MAX_WANTED = 100_000
"""Files that may wait to be searched for. When there are more, all trees are compared instead."""
MAX_MISSED = 10_000
"""Names that may wait to be looked at again, which may happen for each directory that is renamed."""
SHARE = 10
"""Searches may take a tenth of the time: after one that took long, the next begins later."""


@dataclass(slots=True)
class LinkedFile:
    """What is known of a file with several names."""

    inode: Inode
    names: dict[Name, None] = field(default_factory=dict)
    """Those in watched directories that are known: excluded ones, too, once they were changed through."""
    elsewhere: int = -1
    """How many more it had when all directories had been searched: excluded, or outside; -1: not searched."""
    doubts: int = 0
    """The doubts that there were then."""


class HardLinks:
    """``roots`` gives the trees. Times by the clock, in seconds.

    The names of a file are known if as many are as it has links, or if just as many are not as when it was
    searched for: each name that a file gets in a watched directory is told.
    """

    def __init__(
        self, sink: ChangeListener, roots: Callable[[], Iterable[Root]], clock: Callable[[], float]
    ) -> None:
        self._sink, self._clock = sink, clock
        self._files: dict[Inode, LinkedFile] = {}
        self._names: dict[Name, LinkedFile] = {}
        """All of theirs: what was changed under a name may have left it by the time of the look."""
        self._doubts = 0
        self._looked: set[Name] = set()
        """What was looked at since ``fresh``."""
        self._missed: dict[Name, None] = {}
        """What was not there: the event that tells where its directory is now may be still to come."""
        self._renamed = False
        """Whether one was since ``look_again``."""
        self._wanted: dict[Inode, float] = {}
        """What is to be searched for, and since when."""
        self._search = InodeSearch(roots, self._found)
        self._began_with = 0
        """The doubts at the beginning of the search."""
        self._spent = 0.0
        self._next = 0.0
        self.searches = 0
        """How often all directories have been searched."""

    # What happens in the trees -----------------------------------------------------------------------

    def fresh(self) -> None:
        """What follows happened after what was told before."""
        self._looked.clear()

    def changed(self, root: Root, path: bytes, name: Name, now: float) -> None:
        """A file has changed: record its other names, those that are known now and the others later.

        Excluded names are never recorded; a change through one is told here like any other.
        """
        if name not in self._looked:
            self._look(name, status_at(root, path), now)

    def changed_out_of_sight(self, name: Name, now: float) -> None:
        """A file has changed in a directory that is on the move, or has left the trees."""
        if name not in self._looked:
            self._look(name, None, now)

    def appeared(self, status: os.stat_result | None, name: Name) -> None:
        """There is a file of that name which was not there before, new or not."""
        if status is not None and inode_of(status) in self._files:
            self._remember(inode_of(status), name)

    def renamed(self) -> None:
        """A directory is in another place now: ``look_again`` there."""
        self._renamed = True

    def look_again(self, now: float) -> None:
        """All events that were read have been told: what was not where it had changed may be found now."""
        if not self._renamed:
            return
        self._renamed = False
        missed, self._missed = self._missed, {}
        for name in missed:
            self._look(name, _status_of(name), now)

    def caught_up(self) -> None:
        """All that has happened was told: what was not found has not gone anywhere with its directory."""
        self._missed.clear()

    def doubt(self) -> None:
        """Directories have come or gone with names in them, and nobody tells of each name."""
        self._doubts += 1

    def forget(self) -> None:
        """Events were lost, and all trees are compared: nothing is known any more."""
        self._files.clear()
        self._names.clear()
        self._missed.clear()
        self._wanted.clear()
        self._search.end()

    # Searching ---------------------------------------------------------------------------------------

    @property
    def since(self) -> float | None:
        """Since when there are names that nobody has been told of; None if there are none."""
        times = [next(iter(each.values())) for each in (self._search.wanted, self._wanted) if each]
        return min(times, default=None)

    def deadline(self) -> float:
        """When ``work`` has something to do; never if there is nothing to search for."""
        if self._search.wanted:
            return self._clock()
        return self._next if self._wanted else float("inf")

    def work(self, seconds: float) -> None:
        """InodeSearch for about that long, if it is time to."""
        began = now = self._clock()
        if not self._search.wanted:
            if now < self.deadline():
                return
            self._search.begin(self._wanted)
            self._wanted = {}
            self._began_with, self._spent = self._doubts, 0.0
        more = True
        try:
            while more and now < began + seconds:
                more = self._search.step()
                now = self._clock()
        finally:
            self._search.rest()
        self._spent += now - began
        if not more:
            self._searched()
            self._next = now + (SHARE - 1) * self._spent

    def _found(self, inode: Inode, name: Name) -> None:
        file = self._files.get(inode)
        if file is None or name not in file.names:
            self._record(name, self._clock())
        self._remember(inode, name)

    def _searched(self) -> None:
        self.searches += 1
        for inode in self._search.end():
            file = self._files.get(inode)
            if file is not None:
                # None is forgotten here: that one has changed, and is gone, may be among the events to come.
                links = _verified(file)
                file.doubts = self._began_with
                file.elsewhere = max(links.values(), default=0) - len(links)
        while len(self._names) > MAX_NAMES:
            oldest = next(iter(self._files))
            for name in self._files.pop(oldest).names:
                del self._names[name]

    def _want(self, inode: Inode, now: float) -> None:
        if len(self._wanted) < MAX_WANTED:
            self._wanted.setdefault(inode, now)
            return
        self.forget()
        for root in self._search.roots():
            self._sink.record(Change(root.tree, b"", Kind.TREE), now)

    # Names -------------------------------------------------------------------------------------------

    def _look(self, name: Name, status: os.stat_result | None, now: float) -> None:
        """``status``: of what has the name now, which need not be what has changed under it."""
        self._looked.add(name)
        known = self._names.get(name)
        if known is not None and (status is None or inode_of(status) != known.inode):
            self._tell(known, name, now)
        if status is None:
            if len(self._missed) < MAX_MISSED:
                self._missed[name] = None
        elif status.st_nlink > 1 and stat.S_ISREG(status.st_mode):
            self._tell(self._remember(inode_of(status), name), name, now)

    def _tell(self, file: LinkedFile, name: Name, now: float) -> None:
        """Record the names of a file that has changed under this one, and search for those not known."""
        links = _verified(file)
        for gone in file.names.keys() - links.keys():
            self._forget(gone)
        for other in links:
            if other != name:
                self._record(other, now)
        searched = file.elsewhere if file.doubts == self._doubts else -1
        # If none is left that could be asked, there may be others, unless a search would have found them.
        unknown = max(links.values()) - len(links) if links else int(searched < 0)
        if unknown > 0 and unknown != searched:
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
        place = locate(name[0])
        if place is not None:
            root, above = place
            path = join(above, name[1])
            if not root.excluded(path, False):
                self._sink.record(Change(root.tree, path, Kind.NAME), now)


def _verified(file: LinkedFile) -> dict[Name, int]:
    """The names that are still the file's, with the number of its links."""
    links: dict[Name, int] = {}
    for name in file.names:
        status = _status_of(name)
        if status is not None and inode_of(status) == file.inode:
            links[name] = status.st_nlink
    return links


def _status_of(name: Name) -> os.stat_result | None:
    place = locate(name[0])
    return status_at(place[0], join(place[1], name[1])) if place else None


def status_at(root: Root, path: bytes) -> os.stat_result | None:
    """None if it is not there, or cannot be asked. It decides what is looked at, never what is sent."""
    try:
        return os.lstat(os.fsencode(root.path) + b"/" + path)
    except OSError:
        return None
