"""The processor time of the origin for one small change and node, and where it goes, beside lsyncd's.

    python tests/bench/change_cost.py [--quick] [--nodes 20] [--transports daemon,ssh] [--changes 30]
                                      [--rounds 2] [--profile LINES]

Of inosync: its master, the Python of a worker, and what a worker starts (rsync, ssh), from the fork on. Of
lsyncd: itself, and what it starts; over ssh it finds a connection to each node waiting (ControlMaster). What
runs on the nodes does not count. The trees are on tmpfs (/dev/shm).

``--profile`` says what the workers' Python is spent on, for a change. The profiler itself makes it more.
"""

from __future__ import annotations

import argparse
import pstats
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import profiled
from bench.machine import cpu_of_all, cpu_seconds, statement, tidy_on_sigterm, workspace
from bench.nodes import Case, Nodes, missing
from bench.options import add_apart, numbers, transports
from bench.tools import DEFAULT, LSYNCD, OWN_MASTER, TUNED, Inosync, InosyncOwnShell, Lsyncd, Resident
from bench.units import of_nodes, ratio, share, shown
from bench.work import Edits, settle

NODES = {"daemon": [20], "ssh": [10]}

MASTER, PYTHON, CHILDREN = "master", "worker", "children"
"""Parts of the cost: the master, the workers' own Python, and all that they have started."""


@dataclass(frozen=True)
class Cost:
    """Seconds of processor time, for one change and node, by part."""

    tool: str
    transport: str
    nodes: int
    parts: Mapping[str, float]

    @property
    def whole(self) -> float:
        """Of all parts."""
        return sum(self.parts.values())

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {shown(seconds)}" for name, seconds in self.parts.items())
        start = f"{self.transport}, {of_nodes(self.nodes)}, {self.tool:13}"
        return f"{start} for a change and node {shown(self.whole):>8}   ({parts})"


def main() -> int:
    """Measure, and print as it comes."""
    options = _options()
    tidy_on_sigterm()
    print(statement())
    rounds = 1 if options.quick else options.rounds
    changes = 3 if options.quick else options.changes
    for transport in options.transports:
        if program := missing(transport):
            print(f"{transport}: {program} is not installed")
            continue
        for count in [2] if options.quick else options.nodes or NODES[transport]:
            measured = list(measure(transport, count, changes, rounds, options.apart))
            for cost in measured:
                print(cost)
            for ours in (cost for cost in measured if cost.tool.startswith(DEFAULT)):
                for theirs in (cost for cost in measured if not cost.tool.startswith(DEFAULT)):
                    taken = share(ratio(ours.whole, theirs.whole))
                    print(f"{ours.tool} is {taken} of {theirs.tool}", flush=True)
            if options.profile:
                _print_profile(transport, count, changes, options)
    return 0


def measure(transport: str, count: int, changes: int, rounds: int, apart: float) -> Iterator[Cost]:
    """The median of some rounds, in which the tools take turns; inosync first."""
    makes: dict[str, Callable[[Case], Resident]] = {DEFAULT: Inosync}
    if transport == "ssh":
        makes[OWN_MASTER] = partial(InosyncOwnShell, shared=True)
    if shutil.which(Lsyncd.name):
        makes[TUNED if transport == "ssh" else LSYNCD] = partial(Lsyncd, tuned=True)
    found: dict[str, list[Mapping[str, float]]] = {name: [] for name in makes}
    for _ in range(rounds):
        for name, make in makes.items():
            found[name].append(_measure(transport, count, changes, apart, make))
    for name, costs in found.items():
        middle = {part: median(cost[part] for cost in costs) for part in costs[0]}
        yield Cost(name, transport, count, middle)


def _measure(
    transport: str, count: int, changes: int, apart: float, make: Callable[[Case], Resident]
) -> Mapping[str, float]:
    """Seconds of processor time for one change and node, by part."""
    with workspace() as home:
        nodes = Nodes(home, transport, count)
        try:
            nodes.start()
            with nodes.case() as case:
                tool = make(case)
                try:
                    edits = Edits(tool, case, apart)
                    edits.measure(profiled.BATCHES_BEFORE)
                    settle(apart)
                    before = _spent(tool)
                    edits.measure(changes)
                    settle(apart)
                    after = _spent(tool)
                finally:
                    tool.stop()
        finally:
            nodes.close()
    return {part: (after[part] - before[part]) / changes / count for part in after}


def _spent(tool: Resident) -> Mapping[str, float]:
    """Seconds of processor time so far, by part."""
    master, workers = cpu_seconds(tool.pid), tool.parts().get("workers", ())
    python = sum(map(cpu_seconds, workers))
    found = {MASTER: master, CHILDREN: sum(map(cpu_of_all, tool.roots)) - master - python}
    return found | ({PYTHON: python} if workers else {})


def _print_profile(transport: str, count: int, changes: int, options: argparse.Namespace) -> None:
    """What the workers' Python is spent on; the profile has rounds of its own."""
    with workspace() as directory:
        make = partial(
            Inosync, launcher=Path(profiled.__file__), environment={profiled.DIRECTORY: str(directory)}
        )
        _measure(transport, count, changes, options.apart, make)
        files = [str(path) for path in directory.iterdir()]
        if not files:
            print("no worker has left a profile")
            return
        stats = pstats.Stats(*files)
    # (primitive calls, calls, own seconds, seconds with what is called, callers) by (file, line, function)
    rows = sorted(stats.stats.items(), key=lambda item: item[1][2], reverse=True)  # type: ignore[attr-defined]
    per = changes * count
    print(f"{transport}, {of_nodes(count)}: a worker's Python for a change, with the profiler's own work")
    print(f"{'calls':>8} {'itself':>10} {'with callees':>13}")
    for (file, line, function), (_, calls, own, whole, _) in rows[: options.profile]:
        place = f"{Path(file).name}:{line} " if line else ""
        print(f"{calls / per:8.1f} {own / per * 1e6:7.0f} us {whole / per * 1e6:10.0f} us  {place}{function}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures the processor time for one change and node.")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it work at all?")
    text = "default: 20 with rsync daemons, 10 over ssh"
    parser.add_argument("--nodes", type=numbers, metavar="N,...", help=text)
    parser.add_argument("--transports", type=transports, default=list(NODES))
    parser.add_argument("--changes", type=int, default=30, metavar="N")
    parser.add_argument("--rounds", type=int, default=2, metavar="N")
    parser.add_argument(
        "--profile", type=int, default=0, metavar="LINES", help="how many; default: no profile"
    )
    add_apart(parser)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
