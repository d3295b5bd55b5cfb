"""A search of all directories for the names of some files.

It is by inode numbers, which are in the listings: no file is looked at but those that are searched for.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from inosync.watch.tree import Directory, Opener, Root, join, locate

Inode = tuple[int, int]
"""Device and number."""
Name = tuple[Directory, bytes]
"""A name in a directory: it is followed when that is renamed."""

_STEP = 512  # entries of one directory between two looks at the time


class InodeSearch:
    """``found`` is told of each name of a file that is searched for."""

    def __init__(self, roots: Callable[[], Iterable[Root]], found: Callable[[Inode, Name], None]) -> None:
        self.roots, self._found = roots, found
        self.wanted: dict[Inode, float] = {}
        """What is searched for, and since when; nothing if there is no search."""
        self._numbers: set[int] = set()
        self._opener = Opener()
        self._steps: Iterator[None] = iter(())

    def begin(self, wanted: dict[Inode, float]) -> None:
        """InodeSearch for these from the beginning."""
        self.wanted = wanted
        self._numbers = {number for _, number in wanted}
        self._steps = self._all()

    def step(self) -> bool:
        """One small step; False after the last one."""
        return next(self._steps, self) is not self

    def rest(self) -> None:
        """Hold nothing open while events are handled, which may move directories."""
        self._opener.close()

    def end(self) -> Iterable[Inode]:
        """InodeSearch no more; what was searched for."""
        wanted, self.wanted = self.wanted, {}
        self._steps = iter(())
        return wanted

    def _all(self) -> Iterator[None]:
        # Those that come later are listed when they come, and what is moved is told under its new name.
        directories: list[Directory] = list(self.roots())
        for directory in directories:  # grows as it goes
            if directory.kids:
                directories += directory.kids.values()
            yield from self._in(directory)

    def _in(self, directory: Directory) -> Iterator[None]:
        if locate(directory) is None:
            return
        try:
            own = os.dup(self._opener.open(directory))
        except OSError:
            yield
            return
        try:
            with os.scandir(own) as entries:
                while step := list(islice(entries, _STEP)):
                    for entry in step:
                        if entry.inode() in self._numbers:
                            self._look_at(directory, entry)
                    yield
        except OSError:
            pass  # it cannot be read, or has gone; nobody can change a file through it that we could see
        finally:
            os.close(own)
        yield

    def _look_at(self, directory: Directory, entry: os.DirEntry[str]) -> None:
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return
        place = locate(directory)
        if place is None or not stat.S_ISREG(status.st_mode) or inode_of(status) not in self.wanted:
            return
        root, above = place
        name = os.fsencode(entry.name)
        if not root.excluded(join(above, name), False):
            self._found(inode_of(status), (directory, name))


def inode_of(status: os.stat_result) -> Inode:
    """Which file it is, whatever it is called."""
    return status.st_dev, status.st_ino
