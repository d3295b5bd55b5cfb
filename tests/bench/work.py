"""The work that the tools are given, and how long it takes until every node has the result."""

from __future__ import annotations

import math
import os
import select
import time
from collections.abc import Mapping
from pathlib import Path

from bench.machine import until_idle
from bench.nodes import Case
from bench.tools import Tool
from inosync.system.inotify import IN_MOVED_TO, Inotify, decode

POLL = 0.005
"""Seconds between two looks for many files."""
APART = 1.0
"""Seconds, at least, between two isolated changes."""
LONGEST = 300.0
"""Seconds after which it is taken that nothing more arrives."""

Sizes = Mapping[str, int]
"""Bytes of files, by relative name."""


def write(root: Path, directories: int, files: int) -> Sizes:
    """Make as many files in as many new directories; their sizes."""
    sizes = {f"d{number % directories:03}/f{number:05}": 1000 + number for number in range(files)}
    for number in range(directories):
        (root / f"d{number:03}").mkdir()
    for name, size in sizes.items():
        (root / name).write_bytes(b"x" * size)
    return sizes


def until_there(copies: tuple[Path, ...], sizes: Sizes) -> bool:
    """Wait until every copy has all files in their sizes; whether that came to be."""
    deadline = time.monotonic() + LONGEST
    # Each look begins with the first file that was missing: it costs one stat(2) a node, not thousands.
    todo = {copy: list(sizes.items()) for copy in copies}
    while todo:
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL)
        for copy, files in list(todo.items()):
            while files and _size(copy / files[-1][0]) == files[-1][1]:
                files.pop()
            if not files:
                del todo[copy]
    return True


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except (FileNotFoundError, NotADirectoryError):
        return -1


def edit(tool: Tool, case: Case, changes: int) -> list[float]:
    """Seconds from before one small file is written to when it is on all nodes, for each of some changes.

    Nothing else goes on when one is made. The first one of all does not count.
    """
    sizes = write(case.source, directories=20, files=200)
    name = "d000/f00000"
    tool.start()
    tool.written()
    assert until_there(case.copies, sizes), "the nodes were never level"
    took = []
    with Arrivals([copy / "d000" for copy in case.copies]) as arrivals:
        for number in range(changes + 1):
            time.sleep(APART)
            until_idle()
            content = b"y" * (10 + number)
            began = time.perf_counter()
            (case.source / name).write_bytes(content)
            tool.written()
            took.append(arrivals.until("f00000", len(content)) - began)
    return took[1:]


def files(tool: Tool, case: Case, directories: int, count: int) -> list[float]:
    """Seconds from before the first of many new files is written to when the last of them is everywhere."""
    sizes = write(case.source, directories=1, files=1)
    tool.start()
    tool.written()
    assert until_there(case.copies, sizes), "the nodes were never level"
    time.sleep(APART)
    until_idle()
    began = time.perf_counter()
    (case.source / "new").mkdir()
    sizes = {f"new/{name}": size for name, size in write(case.source / "new", directories, count).items()}
    tool.written()
    there = until_there(case.copies, sizes)
    return [time.perf_counter() - began if there else math.inf]


class Arrivals:
    """Tells when a file has come to be in each of some directories: the kernel does, so waiting is free."""

    def __init__(self, directories: list[Path]) -> None:
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

    def until(self, name: str, size: int) -> float:
        """``perf_counter`` when the last directory has that file in that size; infinite if one never has."""
        missing = set(self._directories)
        while missing:
            if not select.select([self._inotify], [], [], LONGEST)[0]:
                return math.inf
            for event in decode(self._inotify.read()):
                if event.name == name.encode() and _size(self._directories[event.wd] / name) == size:
                    missing.discard(event.wd)
        return time.perf_counter()
