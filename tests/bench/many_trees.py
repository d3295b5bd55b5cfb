"""Many wpaths (the sites of a hoster) and some nodes: what is kept at rest, and what a change in one costs.

    python tests/bench/many_trees.py [--trees 40] [--nodes 10] [--changes 10] [--transports daemon,ssh]

inosync with ``equiet = 0``, with a connection for each tree (``rwarm = TREES``) as well, and lsyncd, in one
run, on /dev/shm. "first": a change in a tree that was quiet, until all nodes have it; "next": another one.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.wait import until

from bench.machine import memory, statement, tidy_on_sigterm, workspace
from bench.nodes import TRANSPORTS, Case, Nodes
from bench.options import transports
from bench.tools import LSYNCD, Inosync, Lsyncd, Resident
from bench.units import megabytes, shown

Make = Callable[[Case, list[str]], Resident]
"""Makes a tool for a case with trees of these names."""
REST_SECONDS = 1.0
"""Between two changes; the next rsyncs connect meanwhile."""


def main() -> int:
    """Measure, and print as it comes."""
    parser = argparse.ArgumentParser(description="Measures many trees at rest, and changes in them.")
    parser.add_argument("--trees", type=int, default=40)
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--changes", type=int, default=10)
    parser.add_argument("--transports", type=transports, default=list(TRANSPORTS))
    options = parser.parse_args()
    tidy_on_sigterm()
    print(statement())
    for transport in options.transports:
        with workspace() as home:
            nodes = Nodes(home, transport, options.nodes)
            try:
                nodes.start()
                for name, make in _tools(options.trees).items():
                    with nodes.case() as case:
                        print(f"{transport}, {_measure(name, make, case, options)}", flush=True)
            finally:
                nodes.close()
    return 0


def _tools(trees: int) -> Mapping[str, Make]:
    def inosync(case: Case, names: list[str], rwarm: int | bool = True) -> Resident:
        wpaths = [str(case.source / name) for name in names]
        rpaths = [f"{case.rpath}/{name}" for name in names]
        return Inosync(case, wpaths=wpaths, rpaths=rpaths, equiet=0, rwarm=rwarm)

    def lsyncd(case: Case, _names: list[str]) -> Resident:
        return Lsyncd(case)  # one tree with all of them: it takes one process however many there are

    found: dict[str, Make] = {"inosync": inosync, f"inosync, rwarm {trees}": partial(inosync, rwarm=trees)}
    if shutil.which(Lsyncd.name):
        found[LSYNCD] = lsyncd
    return found


def _measure(name: str, make: Make, case: Case, options: argparse.Namespace) -> str:
    names = [f"site{number}" for number in range(options.trees)]
    for each in names:
        (case.source / each).mkdir()
        (case.source / each / "index").write_text("0")
    for copy in case.copies:
        copy.mkdir()
    tool = make(case, names)
    try:
        tool.start()
        until(lambda: all(_has(case, each, "0") for each in names), 300, "all trees on all nodes")
        time.sleep(3 * REST_SECONDS)
        parts = tool.parts()
        pids = [pid for found in parts.values() for pid in found]
        rest = (
            f"{name}, {options.trees} trees, {options.nodes} nodes: {len(pids)} processes, "
            f"{len(parts.get('rsync and ssh', ()))} of them rsync and ssh, PSS {megabytes(memory(*pids).pss)}"
        )
        seconds: dict[str, list[float]] = {"first": [], "next": []}
        for number in range(options.changes):
            for kind, found in seconds.items():
                found.append(_change(case, names[-1 - number % len(names)], f"{kind}{number}"))
                time.sleep(REST_SECONDS)
        times = ", ".join(f"{kind} {shown(statistics.median(found))}" for kind, found in seconds.items())
        return f"{rest}; a change, median: {times}"
    finally:
        tool.stop()


def _change(case: Case, tree: str, content: str) -> float:
    began = time.monotonic()
    (case.source / tree / "index").write_text(content)
    while not _has(case, tree, content):
        assert time.monotonic() - began < 60, f"{tree} is not on all nodes"
        time.sleep(0.001)
    return time.monotonic() - began


def _has(case: Case, tree: str, content: str) -> bool:
    try:
        return all((copy / tree / "index").read_text() == content for copy in case.copies)
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
