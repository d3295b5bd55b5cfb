"""The other names of a file: what is changed through one is changed under all, and the kernel tells of one.

Nobody knows the names of a file but those who search all directories for its inode number. That is done when
a file with several names has changed, and its other names are not known; then they are.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from inosync.directories import Root, locate
from inosync.messages import Change, Kind
from inosync.search import Inode, Name, Search, inode_of
from inosync.sink import Sink

MAX_NAMES = 100_000
"""Names that are remembered, about 200 bytes each. When there are more, files are forgotten, and searched for
when they change again."""
MAX_WANTED = 100_000
"""Files that may wait to be searched for. When there are more, all trees are compared instead."""
SHARE = 10
"""Searches may take a tenth of the time: after one that took long, the next begins later."""


@dataclass(slots=True)
class _File:
    """What is known of a file with several names."""

    names: dict[Name, None] = field(default_factory=dict)
    """Those in watched directories that are known: excluded ones, too, once they were changed through."""
    elsewhere: int = -1
    """How many more it had when all directories had been searched: excluded, or outside; -1: not searched."""
    doubts: int = 0
    """The doubts that there were then."""


class Links:
    """``roots`` gives the trees. Times by the clock, in seconds.

    The names of a file are known if as many are as it has links, or if just as many are not as when it was
    searched for: each name that a file gets in a watched directory is told.
    """

    def __init__(self, sink: Sink, roots: Callable[[], Iterable[Root]], clock: Callable[[], float]) -> None:
        self._sink, self._clock = sink, clock
        self._files: dict[Inode, _File] = {}
        self._count = 0
        """Names in all of them."""
        self._doubts = 0
        self._looked: set[Name] = set()
        """What was looked at since ``fresh``."""
        self._wanted: dict[Inode, float] = {}
        """What is to be searched for, and since when."""
        self._search = Search(roots, self._found)
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
        if name in self._looked:
            return  # that look, a moment ago, was after all that is told now
        self._looked.add(name)
        status = status_at(root, path)
        if status is None or status.st_nlink < 2 or not stat.S_ISREG(status.st_mode):
            return
        inode = inode_of(status)
        file = self._remember(inode, name)
        for other in self._verified(inode, file):
            if other != name:
                self._record(other, now)
        unknown = status.st_nlink - len(file.names)
        if unknown > 0 and (unknown != file.elsewhere or file.doubts != self._doubts):
            self._want(inode, now)

    def appeared(self, status: os.stat_result | None, name: Name) -> None:
        """There is a file of that name which was not there before, new or not."""
        if status is not None and inode_of(status) in self._files:
            self._remember(inode_of(status), name)

    def moved(self, root: Root, path: bytes, name: Name) -> None:
        """A file has come to this name from another one."""
        if self._files:
            self.appeared(status_at(root, path), name)

    def doubt(self) -> None:
        """Directories have come or gone with names in them, and nobody tells of each name."""
        self._doubts += 1

    def forget(self) -> None:
        """Events were lost, and all trees are compared: nothing is known any more."""
        self._files.clear()
        self._wanted.clear()
        self._search.end()
        self._count = 0

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
        """Search for about that long, if it is time to."""
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
                links = self._verified(inode, file)
                file.doubts = self._began_with
                file.elsewhere = max(links.values(), default=0) - len(file.names)
        while self._count > MAX_NAMES:
            oldest = next(iter(self._files))
            self._count -= len(self._files.pop(oldest).names)

    def _want(self, inode: Inode, now: float) -> None:
        if len(self._wanted) < MAX_WANTED:
            self._wanted.setdefault(inode, now)
            return
        self.forget()
        for root in self._search.roots():
            self._sink.record(Change(root.tree, b"", Kind.TREE), now)

    # Names -------------------------------------------------------------------------------------------

    def _remember(self, inode: Inode, name: Name) -> _File:
        file = self._files.setdefault(inode, _File())
        if name not in file.names:
            file.names[name] = None
            self._count += 1
        return file

    def _verified(self, inode: Inode, file: _File) -> dict[Name, int]:
        """The names that are still the file's, with the number of its links; all others are forgotten."""
        links: dict[Name, int] = {}
        for name in file.names:
            place = locate(name[0])
            status = status_at(place[0], _join(place[1], name[1])) if place else None
            if status is not None and inode_of(status) == inode:
                links[name] = status.st_nlink
        self._count -= len(file.names) - len(links)
        file.names = dict.fromkeys(links)
        return links

    def _record(self, name: Name, now: float) -> None:
        place = locate(name[0])
        if place is not None:
            root, above = place
            path = _join(above, name[1])
            if not root.excluded(path, False):
                self._sink.record(Change(root.tree, path, Kind.NAME), now)


def _join(above: bytes, name: bytes) -> bytes:
    return above + b"/" + name if above else name


def status_at(root: Root, path: bytes) -> os.stat_result | None:
    """None if it is not there, or cannot be asked. It decides what is looked at, never what is sent."""
    try:
        return os.lstat(os.fsencode(root.path) + b"/" + path)
    except OSError:
        return None
