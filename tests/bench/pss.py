"""The memory of everything for each node, when all is level and idle: master, workers, and rsyncs that wait.

    python tests/bench/pss.py [--nodes 50] [--transports daemon,ssh]

PSS (proc(5), smaps_rollup): what processes share is counted in parts. What runs on the nodes is theirs.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.machine import memory, tidy_on_sigterm, workspace
from bench.nodes import TRANSPORTS, Case, Nodes
from bench.options import numbers, transports
from bench.tools import DEFAULT, LSYNCD, TUNED, Inosync, Lsyncd, Resident
from bench.units import megabytes, of_nodes
from bench.work import level, write

OFF = "inosync, rwarm off"


@dataclass(frozen=True)
class Part:
    """Processes that do the same."""

    count: int
    pss: int
    """Bytes, of all of them."""


@dataclass(frozen=True)
class Holding:
    """What one tool holds."""

    tool: str
    transport: str
    nodes: int
    parts: Mapping[str, Part]

    @property
    def each(self) -> float:
        """Bytes of everything, for each node."""
        return sum(part.pss for part in self.parts.values()) / self.nodes

    @property
    def worker(self) -> float | None:
        """Bytes of one worker, its rsync apart; None if there are none."""
        workers = self.parts.get("workers")
        return workers.pss / workers.count if workers and workers.count else None

    def __str__(self) -> str:
        parts = ", ".join(f"{part.count} {name} {megabytes(part.pss)}" for name, part in self.parts.items())
        start = f"{self.transport}, {of_nodes(self.nodes)}, {self.tool:18}"
        worker = f"   a worker {megabytes(self.worker)}" if self.worker else ""
        return f"{start} PSS for each node {megabytes(self.each):>8}{worker}   ({parts})"


def main() -> int:
    """Measure, and print as it comes."""
    parser = argparse.ArgumentParser(description="Measures the memory for each node.")
    parser.add_argument("--nodes", type=numbers, default=[50], metavar="N,...")
    parser.add_argument("--transports", type=transports, default=list(TRANSPORTS))
    options = parser.parse_args()
    tidy_on_sigterm()
    for transport in options.transports:
        for count in options.nodes:
            for holding in measure(transport, count):
                print(holding, flush=True)
    return 0


def measure(transport: str, count: int) -> Sequence[Holding]:
    """What each tool holds with so many nodes."""
    makes: dict[str, Callable[[Case], Resident]] = {
        DEFAULT: Inosync,
        OFF: partial(Inosync, rwarm=False),
    }
    if shutil.which(Lsyncd.name):
        makes[LSYNCD] = Lsyncd
        if transport == "ssh":
            makes[TUNED] = partial(Lsyncd, tuned=True)
    found = []
    with workspace() as home:
        nodes = Nodes(home, transport, count)
        try:
            nodes.start()
            for name, make in makes.items():
                with nodes.case() as case:
                    found.append(Holding(name, transport, count, _parts(make(case), case)))
        finally:
            nodes.close()
    return found


def _parts(tool: Resident, case: Case) -> Mapping[str, Part]:
    try:
        level(tool, case, write(case.source, directories=20, files=200))
        parts = {name: pids for name, pids in tool.parts().items() if pids}
        return {name: Part(len(pids), memory(*pids).pss) for name, pids in parts.items()}
    finally:
        tool.stop()


if __name__ == "__main__":
    sys.exit(main())
