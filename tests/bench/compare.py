"""inosync beside lsyncd and rsync started by hand, on the same real nodes, taking turns in one run.

    python tests/bench/compare.py [--quick] [--nodes 1,10,50] [--transports daemon,ssh]
                                  [--work edit,files,cpu,directories,memory] [--tools NAME;...]
                                  [--rounds N] [--apart SECONDS] [--rst FILE]

``edit``: one small file is written while nothing else goes on; how long until every node has it?
``files``: 2,000 files are written into 100 new directories; how long until every node has all of them?
``cpu``: the master's processor time for 3,000 changes with 40 nodes, and with one.
``directories``: a tree of 50,000; how long until it is watched, and the memory of the master.
``memory``: PSS of everything for each of 50 nodes.

The nodes are on loopback, behind one rsync daemon or one sshd. A tool runs alone on fresh directories, is
ended, and the next one has its turn, round after round: what disturbs the machine disturbs them all. All of
it takes the better part of an hour. The exit code is 1 if a tool failed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import figures, machine, report
from bench.nodes import TRANSPORTS, Nodes, missing
from bench.options import add_apart, numbers, transports, words
from bench.report import Figure, Latency
from bench.tools import LSYNCD, Make, tools
from bench.work import edit, files

WORKS = ("edit", "files", "cpu", "directories", "memory")

PLAN = (
    ("daemon", "edit", (1, 10, 50)),
    ("ssh", "edit", (1, 10)),
    ("daemon", "files", (10, 50)),
)
"""What the goals are about, unless other nodes are asked for."""


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    turns: Mapping[str, int]
    """Of each tool, by work."""
    changes: int
    """Isolated ones in one turn."""
    directories: int
    files: int
    """How many new ones, and in how many directories."""


# Twice eleven changes are enough for a median, and to say what nine of ten do not exceed.
FULL = Extent({"edit": 2, "files": 3}, changes=11, directories=100, files=2000)
QUICK = Extent({"edit": 1, "files": 1}, changes=2, directories=5, files=100)


def main() -> int:
    """Measure, and print as it comes."""
    options = _options()
    machine.tidy_on_sigterm()
    print(machine.statement())
    if LSYNCD not in tools("edit"):
        print("lsyncd is not installed: left out")
    comparison = Comparison(options)
    try:
        for transport, work, counts in _plan(options):
            comparison.latencies(transport, work, counts)
        for work in options.work:
            if work not in ("edit", "files"):
                comparison.figures(work, options.nodes, options.transports)
    finally:
        # What was measured until it was interrupted is worth something, too.
        if options.rst:
            options.rst.write_text(report.rst(comparison.measured, comparison.found))
    return 1 if comparison.failures else 0


def _plan(options: argparse.Namespace) -> Iterator[tuple[str, str, list[int]]]:
    """Transport, work and numbers of nodes."""
    for transport, work, counts in PLAN if not options.nodes else _asked(options.nodes):
        if transport not in options.transports or work not in options.work:
            continue
        if program := missing(transport):
            print(f"{transport}: {program} is not installed: left out")
        else:
            yield transport, work, [2] if options.quick and not options.nodes else list(counts)


def _asked(counts: list[int]) -> Iterator[tuple[str, str, list[int]]]:
    for work in ("edit", "files"):
        for transport in TRANSPORTS:
            yield transport, work, counts


class Comparison:
    """All that was measured in one run."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._quick: bool = options.quick
        self._extent = QUICK if options.quick else FULL
        self._rounds: int | None = options.rounds
        self._apart: float = options.apart
        self._tools: list[str] | None = options.tools
        self.measured: list[Latency] = []
        self.found: list[Figure] = []
        self.failures = 0

    def latencies(self, transport: str, work: str, counts: list[int]) -> None:
        """Let the tools take turns."""
        for count in counts:
            with machine.workspace() as home:
                nodes = Nodes(home, transport, count)
                try:
                    nodes.start()
                    samples = self._samples(nodes, work, transport)
                finally:
                    nodes.close()
            result = Latency(work, transport, count, samples, self._title(work), self._quick)
            self.measured.append(result)
            print(report.text(result), flush=True)

    def figures(self, work: str, counts: list[int] | None, over: list[str]) -> None:
        """Measure what is no latency."""
        try:
            for figure in figures.measure(work, self._quick, counts, over):
                self.found.append(figure)
                print(report.figure_text(figure), flush=True)
        except AssertionError as error:
            self._failed(work, error)

    def _samples(self, nodes: Nodes, work: str, transport: str) -> dict[str, list[float]]:
        wanted, known = self._tools, tools(work, transport)
        contenders = {name: make for name, make in known.items() if not wanted or name in wanted}
        samples: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(self._rounds or self._extent.turns[work]):
            for name, make in contenders.items():
                try:
                    samples[name] += self._turn(nodes, work, make)
                except AssertionError as error:
                    self._failed(name, error)
        return samples

    def _turn(self, nodes: Nodes, work: str, make: Make) -> list[float]:
        with nodes.case() as case:
            tool = make(case)
            try:
                if work == "edit":
                    return edit(tool, case, self._extent.changes, self._apart)
                return files(tool, case, self._extent.directories, self._extent.files, self._apart)
            finally:
                tool.stop()

    def _failed(self, what: str, error: AssertionError) -> None:
        # The others are worth to be known all the same.
        self.failures += 1
        print(f"{what} failed: {error}", file=sys.stderr, flush=True)

    def _title(self, work: str) -> str:
        return "isolated change" if work == "edit" else f"{self._extent.files:,} new files"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compares inosync, lsyncd and rsync started by hand.")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it work at all?")
    parser.add_argument(
        "--nodes", type=numbers, metavar="N,...", help="how many; default: those of the goals"
    )
    parser.add_argument("--transports", type=transports, default=list(TRANSPORTS))
    parser.add_argument("--work", type=words(*WORKS), default=list(WORKS))
    known = list(dict.fromkeys([*tools("edit", "ssh"), *tools("files")]))
    text = f"some of {'; '.join(known)}"
    parser.add_argument("--tools", type=words(*known, between=";"), metavar="NAME;...", help=text)
    parser.add_argument("--rounds", type=int, metavar="N", help="turns of each tool; default 2 or 3")
    add_apart(parser)
    parser.add_argument("--rst", type=Path, metavar="FILE", help="write the tables for docs/performance.rst")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
