"""A search of all directories for the names of some files.

It goes by the inode numbers in the listings, so that no other file is looked at.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from inosync.watch.tree import Directory, Name, Opener, Root, join, locate

Inode = tuple[int, int]
"""Device and number."""

_STEP_ENTRIES = 512
"""Entries of a directory that are read between two looks at the time."""


class InodeSearch:
    """``on_found`` is called with each name of a file that is searched for."""

    def __init__(self, on_found: Callable[[Inode, Name], None]) -> None:
        self._on_found = on_found
        self.wanted: dict[Inode, float] = {}
        """What is searched for, and since when; empty if there is no search."""
        self._numbers: set[int] = set()
        """The inode numbers among them."""
        self._opener = Opener()
        self._steps: Iterator[None] = iter(())

    def begin(self, wanted: dict[Inode, float], roots: Iterable[Root]) -> None:
        self.wanted = wanted
        self._numbers = {number for _, number in wanted}
        self._steps = self._search_all(list(roots))

    def step(self) -> bool:
        """Do one small step; False after the last one."""
        return next(self._steps, self) is not self

    def end_slice(self) -> None:
        """Hold nothing open while events are handled, because they may move directories."""
        self._opener.close()

    def end(self) -> Iterable[Inode]:
        wanted, self.wanted = self.wanted, {}
        self._steps = iter(())
        return wanted

    def _search_all(self, directories: list[Directory]) -> Iterator[None]:
        # Directories that come later are listed then, and what moves is reported under its new name.
        for directory in directories:  # grows as it goes
            if directory.kids:
                directories += directory.kids.values()
            yield from self._search_in(directory)

    def _search_in(self, directory: Directory) -> Iterator[None]:
        try:
            own = os.dup(self._opener.open(directory))
        except OSError:
            yield
            return
        try:
            with os.scandir(own) as found:
                while step := list(islice(found, _STEP_ENTRIES)):
                    for entry in step:
                        if entry.inode() in self._numbers:
                            self._check(directory, entry)
                    yield
        except OSError:
            pass  # it cannot be read, or has gone; no change through it could be seen either
        finally:
            os.close(own)
        yield

    def _check(self, directory: Directory, entry: os.DirEntry[str]) -> None:
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
            self._on_found(inode_of(status), (directory, name))


def inode_of(status: os.stat_result) -> Inode:
    """Which file it is, whatever it is called."""
    return status.st_dev, status.st_ino
