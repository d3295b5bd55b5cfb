"""What the order of arrival costs, beside an inosync without it, and bare rsync.

    git worktree add --detach DIR 136a94f~    # the last commit without it
    python tests/bench/deployment.py [--quick] [--before DIR] [--files 2000] [--rounds 10]

A deployment writes so many files into a new directory, switches a link to it, and removes an older one. It
takes from its first file to when the node's link leads to all of the new ones. An isolated change is that of
one small file. The tools take turns. Trees and nodes are on tmpfs (/dev/shm).
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from functools import partial
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.publishing import LINK, Site

from bench.arrivals import LONGEST
from bench.machine import statement, tidy_on_sigterm, workspace
from bench.nodes import LOCAL, Case, Nodes, missing
from bench.options import words
from bench.tools import BY_HAND, DEFAULT, ByHand, Inosync, Make, Tool
from bench.units import p90, ratio, share, shown
from bench.work import APART, edit, settle

BEFORE = "inosync before"
TURNS = 2
"""How often each tool gets its turn."""
POLL_SECONDS = 0.002
GOAL = 1.1
"""Of the time without the order of arrival."""


class Before(Inosync):
    """An inosync of another checkout, which may not know ``statedir``."""

    def __init__(self, case: Case, checkout: Path) -> None:
        super().__init__(case, launcher=checkout / "bin/inosync")
        config = case.home / "inosync/etc/default.py"
        lines = config.read_text().splitlines(keepends=True)
        config.write_text("".join(line for line in lines if not line.startswith("statedir")))


def main() -> int:
    """Measure, and print as it comes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=Path, help="a checkout of an earlier inosync")
    parser.add_argument("--files", type=int, default=2000, help="files of a deployment; default %(default)s")
    parser.add_argument("--rounds", type=int, default=10, help="of each turn; default %(default)s")
    parser.add_argument("--transports", type=words(LOCAL, "daemon", "ssh"), default=["daemon", "ssh"])
    parser.add_argument("--quick", action="store_true", help="a few files: does it work at all?")
    options = parser.parse_args()
    count, rounds, apart = (20, 1, 0.0) if options.quick else (options.files, options.rounds, APART)
    tidy_on_sigterm()
    print(statement())
    tools: dict[str, Make] = {DEFAULT: Inosync}
    if options.before:
        tools[BEFORE] = partial(Before, checkout=options.before)
    for transport in options.transports:
        if transport != LOCAL and (program := missing(transport)):
            print(f"{transport}: {program} is not installed")
            continue
        found = _measure(transport, tools | {BY_HAND: ByHand}, count, rounds, apart)
        _show(f"deployment of {count} files, {transport}", found)
        _show(f"isolated change, {transport}", _measure(transport, tools, 0, rounds, apart))
    return 0


def _show(what: str, found: dict[str, list[float]]) -> None:
    """Print a line for each tool, with what inosync takes of its time."""
    ours = median(found[DEFAULT])
    for name, samples in found.items():
        row = f"{what}, {name:16} median {shown(median(samples)):>8}   p90 {shown(p90(samples)):>8}"
        if name != DEFAULT:
            row += f"   inosync: {share(ratio(ours, median(samples)))} of its time"
            row += f" (goal: {GOAL})" if name == BEFORE else ""
        print(row, flush=True)


def _measure(
    transport: str, tools: dict[str, Make], files: int, rounds: int, apart: float
) -> dict[str, list[float]]:
    """Return the seconds of each deployment, or of each isolated change if there are no files, by tool."""
    found: dict[str, list[float]] = {name: [] for name in tools}
    with workspace() as home:
        nodes = Nodes(home, transport, 1)
        try:
            nodes.start()
            for _ in range(TURNS if apart else 1):
                for name, make in tools.items():
                    with nodes.case() as case:
                        tool = make(case)
                        try:
                            found[name] += (
                                _deploy(tool, case, files, rounds, apart)
                                if files
                                else edit(tool, case, rounds, apart)
                            )
                        finally:
                            tool.stop()
        finally:
            nodes.close()
    return found


def _deploy(tool: Tool, case: Case, files: int, rounds: int, apart: float) -> list[float]:
    [copy] = case.copies
    site, took = Site(case.source, files), []
    for _ in range(rounds + 2):  # the first mirror does not count, nor what comes first after it
        began = time.perf_counter()
        site.deploy()
        if site.version == 1:
            tool.start()
        tool.written()
        took.append(_until_there(copy, site.version, files) - began)
        settle(apart)
    return took[2:]


def _until_there(copy: Path, version: int, files: int) -> float:
    """Wait until the link leads to all of a release; ``perf_counter`` by then, infinite if it never does."""
    target = f"releases/{version}"
    end = time.perf_counter() + LONGEST
    while time.perf_counter() < end:
        try:
            names = os.listdir(copy / target) if os.readlink(copy / LINK) == target else []
            if sum(not name.startswith(".") for name in names) == files:
                return time.perf_counter()
        except OSError:  # not yet
            pass
        time.sleep(POLL_SECONDS)
    return math.inf


if __name__ == "__main__":
    sys.exit(main())
