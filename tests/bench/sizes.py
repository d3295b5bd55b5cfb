"""The same work in several sizes, for inosync and lsyncd: what grows, and how."""

from __future__ import annotations

import math
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from support.wait import until

from bench.arrivals import Arrivals, until_there
from bench.machine import SystemCalls, cpu_of_all, cpu_seconds, watches_allowed, workspace
from bench.nodes import LOCAL, Case, Nodes
from bench.tools import QUICKEST, TUNED, Inosync, Lsyncd, Resident
from bench.work import APART, Edits, level, settle, write

LONG = 30.0
"""Seconds; a tool that took longer for so many changes is not asked to do more of them."""
FEW = 100
"""Files in one directory; the arrival of no more than that is told by inotify, which is more exact."""
OFTEN = 1000
"""Changes that are made more than once."""
PATIENCE = 60.0
SPARE_WATCHES = 2000
"""inotify watches that are left to everybody else."""


@dataclass(frozen=True)
class Cost:
    """Seconds of processor time."""

    all: float
    """Of all processes of a tool."""
    master: float
    """Of its master alone."""

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.all - other.all, self.master - other.master)


@dataclass(frozen=True)
class Point:
    """What one tool took for one size."""

    axis: str
    """"nodes", "local", "changes" or "directories"."""
    size: int
    tool: str
    latency: float
    """Seconds."""
    cost: Cost
    calls: float | None = None
    """System calls of the master, where they are counted."""


Make = Callable[[Case], Resident]


def nodes(counts: Sequence[int], repeats: int, apart: float = APART) -> Iterator[Point]:
    """An isolated change to so many nodes, again and again."""
    yield from _of_nodes("nodes", "daemon", counts, _tools(), repeats, apart)


def local_nodes(counts: Sequence[int], repeats: int, apart: float = APART) -> Iterator[Point]:
    """The same to directories of this machine, without warm rsyncs: for more nodes than a server bears."""
    make = partial(Inosync, equiet=0, rwarm=False)
    yield from _of_nodes("local", LOCAL, counts, {"inosync, cold": make}, repeats, apart)


def _of_nodes(
    axis: str, transport: str, counts: Sequence[int], makes: Mapping[str, Make], repeats: int, apart: float
) -> Iterator[Point]:
    for count in counts:
        with _nodes(count, transport) as group:
            for name, make in makes.items():
                with group.case() as case, _at_work(make, case) as tool:
                    edits = Edits(tool, case, apart)
                    edits.measure(1)
                    settle(apart)
                    before = _cost(tool)
                    took = edits.measure(repeats)
                    settle(apart)
                    spent = _cost(tool) - before
                    each = Cost(spent.all / repeats, spent.master / repeats)
                    with SystemCalls(tool.pid, case.home / "strace") as calls:
                        edits.measure(1)
                        settle(0)
                    yield Point(axis, count, name, median(took), each, calls.count)


def changes(counts: Sequence[int], repeats: int, apart: float = APART) -> Iterator[Point]:
    """So many new files at once in directories that are there, to one node; few of them again and again."""
    with _nodes(1) as group:
        for name, make in _tools().items():
            with group.case() as case, _at_work(make, case) as tool:
                level(tool, case, write(case.source, directories=1, files=1), apart)
                for count in counts:
                    times = repeats if count <= OFTEN else 1
                    bursts = [
                        _burst(tool, case, f"burst-{count}-{number}", count, apart) for number in range(times)
                    ]
                    took = median(seconds for seconds, _ in bursts)
                    spent = [cost for _, cost in bursts]
                    cost = Cost(median(one.all for one in spent), median(one.master for one in spent))
                    yield Point("changes", count, name, took, cost)
                    if took > LONG:
                        break


def _burst(tool: Resident, case: Case, name: str, count: int, apart: float) -> tuple[float, Cost]:
    """Seconds from before the first file is written to when the last is there, and what that has cost."""
    source, copy = case.source / name, case.copies[0] / name
    source.mkdir()
    directories = math.ceil(count / FEW)
    write(source, directories, files=0)
    until((copy / f"d{directories - 1:04}").exists, PATIENCE, f"{name} to be on the node")
    settle(apart)
    before = _cost(tool)
    if directories == 1:
        with Arrivals([copy / "d0000"]) as arrivals:
            began = time.perf_counter()
            sizes = write(source, directories, count)
            took = arrivals.until({Path(path).name: size for path, size in sizes.items()}) - began
    else:
        started = time.time()
        took = until_there([copy], write(source, directories, count)) - started
    settle(apart)
    return took, _cost(tool) - before


def directories(counts: Sequence[int], repeats: int, apart: float = APART) -> Iterator[Point]:
    """An isolated change in a tree of so many directories, which the node has; what the start has cost."""
    allowed = watches_allowed() - SPARE_WATCHES
    with _nodes(1) as group, group.case() as case:
        for count in counts:
            if count > allowed:
                print(
                    f"directories {count:,}: left out, fs.inotify.max_user_watches is too small", flush=True
                )
                continue
            _grow(case, count)
            for name, make in _tools().items():
                with _at_work(make, case) as tool:
                    edits = Edits(tool, case, apart)
                    start = _cost(tool)
                    took = edits.measure(repeats + 1)[1:]
                    yield Point("directories", count, name, median(took), start)


def _grow(case: Case, count: int) -> None:
    """Make so many directories, a hundred in each of the upper ones, and have them on the node as well."""
    for number in range(count):
        upper = case.source / f"u{number // FEW:04}"
        # The first of each hundred is the upper one itself.
        (upper / f"e{number:06}" if number % FEW else upper).mkdir(exist_ok=True)
    argv = ["rsync", "-a", f"{case.source}/", case.targets[0]]
    subprocess.run(argv, stdin=subprocess.DEVNULL, check=True)


def _tools() -> dict[str, Make]:
    found: dict[str, Make] = {QUICKEST: partial(Inosync, equiet=0)}
    if shutil.which(Lsyncd.name):
        found[TUNED] = partial(Lsyncd, tuned=True)
    return found


@contextmanager
def _nodes(count: int, transport: str = "daemon") -> Iterator[Nodes]:
    with workspace() as home:
        group = Nodes(home, transport, count)
        try:
            group.start()
            yield group
        finally:
            group.close()


@contextmanager
def _at_work(make: Make, case: Case) -> Iterator[Resident]:
    tool = make(case)
    try:
        yield tool
    finally:
        tool.stop()


def _cost(tool: Resident) -> Cost:
    """Since it was started."""
    return Cost(cpu_of_all(tool.pid), cpu_seconds(tool.pid))
