"""When files have come to the nodes, found out at little cost: the nodes are on the same processors."""

from __future__ import annotations

import math
import os
import select
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from inosync.watch.inotify import IN_MOVED_TO, Inotify, decode

POLL = 0.02
"""Seconds between two looks for many files; how exact the result is does not depend on it."""
LONGEST = 300.0
"""Seconds after which it is taken that nothing more arrives."""

Sizes = Mapping[str, int]
"""Bytes of files, by relative name."""


class Arrivals:
    """Tells when some files have come to be in each of some directories.

    One inotify descriptor is all that is looked at, so waiting is free, and the time is right to a fraction
    of a millisecond.
    """

    def __init__(self, directories: Iterable[Path]) -> None:
        self._inotify = Inotify()
        self._directories = {}
        for directory in directories:
            handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            # rsync renames what is complete, and only that.
            self._directories[self._inotify.add(handle, IN_MOVED_TO)] = directory
            os.close(handle)

    def __enter__(self) -> Arrivals:
        return self

    def __exit__(self, *_error: object) -> None:
        self._inotify.close()

    def until(self, sizes: Sizes) -> float:
        """``perf_counter`` when the last directory had all files in their sizes; infinite if it never had.

        ``sizes`` are by names in the directories.
        """
        wanted = {name.encode(): size for name, size in sizes.items()}
        count = len(wanted) * len(self._directories)
        arrived = dict[tuple[int, bytes], float]()
        while True:
            if not select.select([self._inotify.fd], [], [], LONGEST)[0]:
                return math.inf
            now = time.perf_counter()
            events = decode(self._inotify.read())
            arrived |= {(event.wd, event.name): now for event in events if event.name in wanted}
            if len(arrived) == count:
                # Only now, as looking takes time: some tools also send a file while it is still empty.
                arrived = {key: at for key, at in arrived.items() if self._size(*key) == wanted[key[1]]}
            if len(arrived) == count:
                return max(arrived.values())

    def _size(self, wd: int, name: bytes) -> int:
        return _look(self._directories[wd] / os.fsdecode(name))[0]


def until_there(copies: Iterable[Path], sizes: Sizes) -> float:
    """Wait until every copy has all files in their sizes; ``time.time`` when the last of them was.

    Infinite if one never was. While files are missing a look costs one stat(2) a copy, of the last missing
    one; afterwards the inodes tell when they were completed (to a tick of the kernel, 1 to 10 ms), so
    looking seldom does not make it later.
    """
    deadline = time.monotonic() + LONGEST
    todo = {copy: list(sizes.items()) for copy in copies}
    last = 0.0
    while todo:
        for copy, files in list(todo.items()):
            while files:
                size, changed = _look(copy / files[-1][0])
                if size != files[-1][1]:
                    break
                last = max(last, changed)
                files.pop()
            if not files:
                del todo[copy]
        if todo:
            if time.monotonic() > deadline:
                return math.inf
            time.sleep(POLL)
    return last


def _look(path: Path) -> tuple[int, float]:
    """A file's size, -1 if it is not there, and when its inode was last changed: renamed into place."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return -1, 0.0
    return found.st_size, found.st_ctime_ns / 1e9
