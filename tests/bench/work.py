"""The work that the tools are given, and how long it takes until every node has the result."""

from __future__ import annotations

import math
import random
import time
from pathlib import Path

from bench.arrivals import Arrivals, Sizes, until_there
from bench.machine import until_idle
from bench.nodes import Case
from bench.tools import Tool

APART = 1.0
"""Seconds between two isolated changes, at least; and up to half as much again: what a tool does once a
second must not meet all of them, or none."""

EDITED = "edited"
"""The directory with the file that is changed."""


def write(root: Path, directories: int, files: int) -> Sizes:
    """Make as many files in as many directories, those that are not there yet as well; their sizes."""
    sizes = {f"d{number % directories:04}/f{number:06}": 1000 + number % 2000 for number in range(files)}
    for number in range(directories):
        (root / f"d{number:04}").mkdir(exist_ok=True)
    for name, size in sizes.items():
        (root / name).write_bytes(b"x" * size)
    return sizes


def level(tool: Tool, case: Case, sizes: Sizes, apart: float = APART) -> None:
    """Start a tool, and wait until the nodes have what is there already and nothing goes on any more."""
    tool.start()
    tool.written()
    arrived = until_there(case.copies, sizes)
    assert math.isfinite(arrived), f"the nodes were never level\n{tool.said()}"
    settle(apart)


def settle(apart: float = APART) -> None:
    """Wait a while, and then until nothing goes on."""
    time.sleep(apart * random.uniform(1, 1.5))
    until_idle()


class Edits:
    """Isolated changes of one small file, in a tree of some more."""

    def __init__(self, tool: Tool, case: Case, apart: float = APART) -> None:
        sizes = dict(write(case.source, directories=20, files=200))
        self._tool, self._case, self._apart = tool, case, apart
        self._file = case.source / EDITED / "file"
        self._file.parent.mkdir(exist_ok=True)
        self._size = 10
        self._write()
        level(tool, case, sizes | {f"{EDITED}/file": self._size}, apart)

    def _write(self) -> None:
        self._size += 1
        self._file.write_bytes(b"y" * self._size)

    def measure(self, changes: int) -> list[float]:
        """Seconds from before each change to when all nodes have it. Nothing else goes on when it is made."""
        took = []
        with Arrivals(copy / EDITED for copy in self._case.copies) as arrivals:
            for _ in range(changes):
                settle(self._apart)
                began = time.perf_counter()
                self._write()
                self._tool.written()
                took.append(arrivals.until({self._file.name: self._size}) - began)
        return took


def edit(tool: Tool, case: Case, changes: int, apart: float = APART) -> list[float]:
    """Seconds for each of so many isolated changes; the first one of all does not count."""
    return Edits(tool, case, apart).measure(changes + 1)[1:]


def files(tool: Tool, case: Case, directories: int, count: int, apart: float = APART) -> list[float]:
    """Seconds from before the first of many new files is written to when the last of them is everywhere."""
    level(tool, case, write(case.source, directories=1, files=1), apart)
    began = time.time()
    (case.source / "new").mkdir()
    sizes = {f"new/{name}": size for name, size in write(case.source / "new", directories, count).items()}
    tool.written()
    return [until_there(case.copies, sizes) - began]
