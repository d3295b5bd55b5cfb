"""inosync beside lsyncd and rsync started by hand, on the same real nodes, taking turns in one run.

    python tests/bench/compare.py [--quick] [--nodes 1,10,50] [--transports daemon,ssh]
                                  [--work edit,files] [--rst FILE]

``edit``: one small file is written while nothing else goes on; how long until every node has it?
``files``: 2,000 files are written into 100 new directories; how long until every node has all of them?

The nodes are on loopback, behind one rsync daemon or one sshd. A tool runs alone on fresh directories, is
ended, and the next one has its turn, round after round: what disturbs the machine disturbs them all.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import report
from bench.machine import tidy_on_sigterm
from bench.nodes import TRANSPORTS, Nodes, missing
from bench.report import Result
from bench.tools import Lsyncd, Make, tools
from bench.work import edit, files

MOST_SSH = 10
"""Nodes over ssh, unless others are asked for: cold starts of more take minutes."""


def main() -> int:
    """Measure, and print as it comes."""
    options = _options()
    tidy_on_sigterm()
    if not shutil.which(Lsyncd.name):
        print("lsyncd is not installed: left out")
    results = []
    for transport in options.transports:
        if program := missing(transport):
            print(f"{transport}: {program} is not installed: left out")
            continue
        for count in options.nodes or ([2] if options.quick else [1, 10, 50]):
            if not options.nodes and transport == "ssh" and count > MOST_SSH:
                continue
            with tempfile.TemporaryDirectory(prefix="inosync-bench-", ignore_cleanup_errors=True) as home:
                nodes = Nodes(Path(home), transport, count)
                try:
                    nodes.start()
                    for work in options.work:
                        samples = _measure(nodes, work, tools(work, transport), options.quick)
                        results.append(Result(_title(work, options.quick), transport, count, samples))
                        print(report.text(results[-1]), flush=True)
                finally:
                    nodes.close()
    results.sort(key=lambda result: result.work)
    if options.rst and results:
        options.rst.write_text(report.rst(results))
    return 0


def _measure(nodes: Nodes, work: str, contenders: dict[str, Make], quick: bool) -> dict[str, list[float]]:
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    rounds = (2 if work == "edit" else 1) if quick else (4 if work == "edit" else 3)
    for _ in range(rounds):
        for name, make in contenders.items():
            with nodes.case() as case:
                tool = make(case)
                try:
                    if work == "edit":
                        samples[name] += edit(tool, case, changes=2 if quick else 8)
                    else:
                        samples[name] += files(tool, case, *_size(quick))
                finally:
                    tool.stop()
    return samples


def _size(quick: bool) -> tuple[int, int]:
    """Directories and files of the work ``files``."""
    return (10, 200) if quick else (100, 2000)


def _title(work: str, quick: bool) -> str:
    return "edit of one file" if work == "edit" else f"files: {_size(quick)[1]:,} new ones"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compares inosync, lsyncd and rsync started by hand.")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it work at all?")
    parser.add_argument("--nodes", type=_numbers, metavar="N,...", help="how many; default 1,10,50")
    parser.add_argument("--transports", type=_words(*TRANSPORTS), default=list(TRANSPORTS))
    parser.add_argument("--work", type=_words("edit", "files"), default=["edit", "files"])
    parser.add_argument("--rst", type=Path, metavar="FILE", help="write the table for the README")
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    words = text.split(",")
    if not all(word.isdecimal() and int(word) for word in words):
        raise argparse.ArgumentTypeError(f"{text!r}: write numbers from 1 on, such as 1,10,50")
    return [int(word) for word in words]


def _words(*known: str) -> Callable[[str], list[str]]:
    """Read some of these words, with commas between them."""

    def read(text: str) -> list[str]:
        words = text.split(",")
        if not set(words) <= set(known):
            raise argparse.ArgumentTypeError(f"{text!r}: write some of {','.join(known)}")
        return words

    return read


if __name__ == "__main__":
    sys.exit(main())
