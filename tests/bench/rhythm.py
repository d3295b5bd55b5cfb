"""How late changes arrive in the rhythms of real use: default settings, beside lsyncd, in turns in one run.

    python tests/bench/rhythm.py [--quick] [--rows trickle,flood,...] [--rounds N] [--tools NAME;...]
                                 [--rst FILE]

{rows}

Each change counts from when its file was closed until a node has it in full, on each node. After the last
change a tool has {patience:.0f} s to bring the rest; what is missing then counts as never arrived. CPU is the
processor time of a tool with all that it starts, while changes are made and until they have arrived; what
runs on the nodes (rsyncd, sshd) does not count. The nodes are behind one server on loopback, on the same
processors. All trees are on tmpfs (/dev/shm, or TMPDIR): with a disk the times differ by a factor of five.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import select
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import machine, report
from bench.arrivals import until_there
from bench.machine import cpu_of_all, tidy_on_sigterm, until_idle, workspace
from bench.nodes import Case, Nodes, missing
from bench.options import words
from bench.tools import BY_HAND, DEFAULT, ByHand, Inosync, Lsyncd, Resident, Tool
from bench.units import of_nodes, ratio, share, shown
from bench.work import level, settle, write
from inosync.watch.inotify import IN_MOVED_TO, Inotify, decode

PATIENCE_SECONDS = 60.0
"""How long after the last change what has not arrived is waited for."""
BURST_FILES = 2_000
THEIRS = "lsyncd"


NOTE = """
Default settings; lsyncd has TCP_NODELAY and, over ssh, ControlMaster. The last two columns are the share of
the other tool's time that inosync takes. CPU: of all processes of a tool. All on
"""


@dataclass(frozen=True)
class Rhythm:
    """Changes of small files, each some seconds after the last one."""

    what: str
    nodes: int
    gap: tuple[float, float]
    """The shortest and the longest time between two changes, in seconds; all are equally likely."""
    seconds: float
    delay: int
    """lsyncd's ``delay``: 0, or 1 where its users would let changes gather; its default is 15."""
    directories: int = 10
    files: int = 100
    transport: str = "daemon"


@dataclass(frozen=True)
class Burst:
    """Many new files at once; what counts is when the last of them is everywhere, after it was written."""

    what: str
    nodes: int
    files: int = BURST_FILES
    delay: int = 1
    transport: str = "daemon"


ROWS: Mapping[str, Rhythm | Burst] = {
    "trickle": Rhythm("a file each 0.3 s", 3, (0.3, 0.3), 45.0, delay=1),
    "seldom": Rhythm("a file each 5 s", 3, (5.0, 5.0), 60.0, delay=1),
    "many-nodes": Rhythm("a file each 0.5 to 1.5 s", 50, (0.5, 1.5), 40.0, delay=0),
    "ssh": Rhythm("a file each 0.8 s", 10, (0.8, 0.8), 30.0, delay=0, transport="ssh"),
    "flood": Rhythm("167 of 10,000 files a second", 20, (0.006, 0.006), 45.0, 1, 100, 10_000),
    "many-files": Rhythm("30 of 100,000 files a second", 10, (1 / 30, 1 / 30), 45.0, 1, 1_000, 100_000),
    "burst": Burst(f"{BURST_FILES:,} new files", 10),
}
_DOC = __doc__ or ""
_ROWS = "\n".join(
    f"``{name}``: {row.what}, {of_nodes(row.nodes)}, {row.transport}" for name, row in ROWS.items()
)


@dataclass
class Result:
    """What one tool took, all rounds together."""

    waits: list[float] = field(default_factory=list)
    """Seconds, of each change and node."""
    cpu: list[float] = field(default_factory=list)
    """Seconds of processor time, of each round."""

    def share_of(self, part: float) -> float:
        """Return the time that this part of all changes does not exceed."""
        return sorted(self.waits)[max(math.ceil(part * len(self.waits)) - 1, 0)]


class Watch:
    """Tells which changes have arrived on which nodes: a file's size says which of its changes it is."""

    def __init__(self, case: Case, directories: Sequence[str]) -> None:
        self._inotify = Inotify()
        self._places: dict[int, tuple[int, Path, str]] = {}
        for node, copy in enumerate(case.copies):
            for name in directories:
                handle = os.open(copy / name, os.O_RDONLY | os.O_DIRECTORY)
                # rsync renames what is complete, and only that.
                self._places[self._inotify.add(handle, IN_MOVED_TO)] = (node, copy / name, name)
                os.close(handle)
        self._pending: dict[tuple[int, str], list[tuple[int, float]]] = {}
        """The sizes and times of changes that a node lacks, by node and name."""
        self.waits: list[float] = []

    def expect(self, name: str, size: int, now: float) -> None:
        """Wait for a change on each node."""
        for node in {node for node, _, _ in self._places.values()}:
            self._pending.setdefault((node, name), []).append((size, now))

    def until(self, deadline: float) -> None:
        """Note what arrives, until that time by ``perf_counter``, or until nothing is missing."""
        while (now := time.perf_counter()) < deadline:
            if select.select([self._inotify.fd], [], [], deadline - now)[0]:
                self._read()

    def finish(self, seconds: float) -> None:
        """Note what still arrives within so many seconds; what does not never does."""
        deadline = time.perf_counter() + seconds
        while self._pending and (now := time.perf_counter()) < deadline:
            self.until(min(now + 0.05, deadline))
        self.waits += [math.inf] * sum(map(len, self._pending.values()))
        self._inotify.close()

    def _read(self) -> None:
        events, now = decode(self._inotify.read()), time.perf_counter()
        for event in events:
            node, directory, parent = self._places.get(event.wd, (-1, Path(), ""))
            key = (node, f"{parent}/{os.fsdecode(event.name)}")
            if (missing := self._pending.get(key)) is None:
                continue
            try:
                size = os.stat(directory / os.fsdecode(event.name)).st_size
            except FileNotFoundError:
                continue
            self.waits += [now - since for wanted, since in missing if wanted <= size]
            self._pending[key] = [change for change in missing if change[0] > size]
            if not self._pending[key]:
                del self._pending[key]


def play(tool: Resident, case: Case, rhythm: Rhythm, result: Result) -> None:
    """Have a tool mirror a tree, and change files in the rhythm."""
    sizes = dict(write(case.source, rhythm.directories, rhythm.files))
    level(tool, case, sizes, apart=3.0)
    before = sum(map(cpu_of_all, tool.roots))
    names, dice = list(sizes), random.Random(1)
    dice.shuffle(names)
    watch = Watch(case, sorted({name.partition("/")[0] for name in names}))
    at = time.perf_counter()
    end, number = at + rhythm.seconds, 0
    while at < end:
        name = names[number % len(names)]
        sizes[name] += 1  # a file's size only grows, so it tells the version
        (case.source / name).write_bytes(b"y" * sizes[name])
        watch.expect(name, sizes[name], time.perf_counter())
        number, at = number + 1, at + dice.uniform(*rhythm.gap)
        watch.until(at)
    watch.finish(PATIENCE_SECONDS)
    result.waits += watch.waits
    result.cpu.append(sum(map(cpu_of_all, tool.roots)) - before)


def burst(tool: Tool, case: Case, row: Burst, result: Result) -> None:
    """Have a tool mirror a tree, and make many files in new directories of it."""
    level(tool, case, write(case.source, directories=1, files=1), apart=3.0)
    (case.source / "new").mkdir()
    sizes = write(case.source / "new", directories=max(row.files // 20, 1), files=row.files)
    written = time.time()
    tool.written()
    result.waits.append(
        until_there(case.copies, {f"new/{name}": size for name, size in sizes.items()}) - written
    )
    settle(1.0)


def main() -> int:
    """Measure, and print as it comes."""
    options = _options()
    tidy_on_sigterm()
    print(machine.statement())
    if not shutil.which(THEIRS):
        print(f"{THEIRS} is not installed: left out")
    failures, table = 0, [["rhythm", "nodes", "tool", "p50", "p99", "longest", "CPU", "p50 of theirs", "p99"]]
    for name in options.rows:
        row = _quick(ROWS[name]) if options.quick else ROWS[name]
        if program := missing(row.transport):
            print(f"{row.transport}: {program} is not installed: {name} is left out")
            continue
        print(f"{row.what}, {row.transport}, {of_nodes(row.nodes)}", flush=True)
        results = dict.fromkeys(_tools(row))
        found = {tool: Result() for tool in results if not options.tools or tool in options.tools}
        for _ in range(1 if options.quick else options.rounds or (3 if isinstance(row, Burst) else 1)):
            failures += _round(row, found)
        lines = list(_lines(row, {tool: result for tool, result in found.items() if result.waits}))
        for line in lines:
            print(
                "  "
                + "   ".join(f"{cell:>9}" if number else f"{cell:14}" for number, cell in enumerate(line[2:]))
            )
        sys.stdout.flush()
        table += lines
    if options.rst:
        note = report.wrapped(f"{NOTE} {machine.statement()}")
        options.rst.write_text(f"{report.table(table)}\n\n{note}\n")
    return 1 if failures else 0


def _round(row: Rhythm | Burst, found: Mapping[str, Result]) -> int:
    """Let each tool have its turn; the number of those that failed."""
    failures = 0
    with workspace() as home:
        nodes = Nodes(home, row.transport, row.nodes)
        try:
            nodes.start()
            for tool, result in found.items():
                try:
                    _turn(row, nodes, _tools(row)[tool], result)
                except AssertionError as error:
                    failures += 1
                    print(f"{tool} failed: {error}", file=sys.stderr, flush=True)
        finally:
            nodes.close()
    return failures


def _turn(row: Rhythm | Burst, nodes: Nodes, make: Callable[[Case], Resident], result: Result) -> None:
    with nodes.case() as case:
        tool = make(case)
        try:
            if isinstance(row, Rhythm):
                play(tool, case, row, result)
            else:
                burst(tool, case, row, result)
        finally:
            tool.stop()
            until_idle()


def _tools(row: Rhythm | Burst) -> Mapping[str, Callable[[Case], Resident]]:
    found: dict[str, Callable[[Case], Resident]] = {DEFAULT: Inosync}
    if shutil.which(THEIRS):
        found[f"{THEIRS}, delay {row.delay}"] = partial(Lsyncd, delay=row.delay, tuned=True)
    if isinstance(row, Burst):
        found[BY_HAND] = partial(ByHand, at_once=4)  # type: ignore[assignment]
    return found


def _quick(row: Rhythm | Burst) -> Rhythm | Burst:
    if isinstance(row, Burst):
        return replace(row, nodes=2, files=100)
    gap = min(row.gap[0], 0.5), min(row.gap[1], 0.5)
    return replace(row, nodes=2, seconds=2.0, directories=2, files=20, gap=gap)


def _lines(row: Rhythm | Burst, found: Mapping[str, Result]) -> Iterator[list[str]]:
    """One for each tool; those of the others say what share of their time inosync takes."""
    ours = found.get(DEFAULT)
    for tool, result in found.items():
        p50, p99 = result.share_of(0.5), result.share_of(0.99)
        cells = [shown(p50), shown(p99), shown(max(result.waits))]
        cells.append(shown(median(result.cpu)) if result.cpu else "-")
        if ours is not None and result is not ours:
            cells += [share(ratio(ours.share_of(0.5), p50)), share(ratio(ours.share_of(0.99), p99))]
        else:
            cells += ["-", "-"]
        yield [f"{row.what}, {row.transport}", str(row.nodes), tool, *cells]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=_DOC.format(rows=_ROWS, patience=PATIENCE_SECONDS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="small sizes: does it work at all?")
    parser.add_argument("--rows", type=words(*ROWS), default=list(ROWS), metavar="NAME,...")
    parser.add_argument("--rounds", type=int, metavar="N", help="turns of each tool; default 1, burst 3")
    known = list(dict.fromkeys(tool for row in ROWS.values() for tool in _tools(row)))
    parser.add_argument("--tools", type=words(*known, between=";"), metavar="NAME;...", help="; ".join(known))
    parser.add_argument("--rst", type=Path, metavar="FILE", help="write the table for the documentation")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
