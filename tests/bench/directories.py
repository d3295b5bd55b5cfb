"""A large tree: how long until all of it is watched, and the memory of the master then, beside lsyncd.

    python tests/bench/directories.py [--dirs 50000] [--rounds 3]

A program that transfers nothing stands in for rsync. Both tools start it over the whole tree as soon as they
watch all of it: the time ends there. They take turns, and the kernel has the tree in its caches for both. An
empty tree tells what a tool needs anyway; what it holds above that is its watches'.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.daemon import Daemon
from support.procs import Server
from support.wait import until

from bench.fake import Fake
from bench.machine import cpu_seconds, memory, tidy_on_sigterm, until_idle, watches, workspace
from bench.tools import byte_code
from bench.units import megabytes, ratio, share, shown

OURS = "inosync"
THEIRS = "lsyncd"
PATIENCE = 600.0
WIDTH = 100
"""Directories in each of the upper ones."""


@dataclass(frozen=True)
class Start:
    """One start of a tool."""

    seconds: float
    """From its start until all of the tree was watched."""
    cpu: float
    """Seconds of processor time that its master has used until then."""
    pss: int
    """Bytes that its master held afterwards."""


@dataclass(frozen=True)
class Comparison:
    """Starts on trees of so many directories, and on empty ones, by tool; lsyncd's if it is installed."""

    directories: int
    full: Mapping[str, Sequence[Start]]
    empty: Mapping[str, Sequence[Start]]

    def seconds(self, tool: str) -> float:
        """The median until all was watched."""
        return median(start.seconds for start in self.full[tool])

    def pss(self, tool: str) -> float:
        """The median of the master's memory, in bytes."""
        return median(start.pss for start in self.full[tool])

    def watch(self, tool: str) -> float:
        """Bytes that a watch costs in the master."""
        return (self.pss(tool) - median(start.pss for start in self.empty[tool])) / self.directories

    @property
    def time_ratio(self) -> float | None:
        """Our time in lsyncd's; None without it."""
        return ratio(self.seconds(OURS), self.seconds(THEIRS)) if THEIRS in self.full else None

    @property
    def memory_ratio(self) -> float | None:
        """Our master's memory in lsyncd's; None without it."""
        return ratio(self.pss(OURS), self.pss(THEIRS)) if THEIRS in self.full else None

    def __str__(self) -> str:
        lines = []
        for tool, starts in self.full.items():
            cpu = median(start.cpu for start in starts)
            alone = median(start.seconds for start in self.empty[tool])
            lines.append(
                f"{self.directories:,} directories, {tool:8} watched in {shown(self.seconds(tool)):>8} "
                f"(an empty tree {shown(alone):>8})   CPU {shown(cpu):>8}   "
                f"PSS {megabytes(self.pss(tool)):>8}   a watch {self.watch(tool):3.0f} B   n {len(starts)}"
            )
        if THEIRS in self.full:
            ratios = f"{share(self.time_ratio)} of {THEIRS}'s time, and {share(self.memory_ratio)}"
            lines.append(f"inosync takes {ratios} of its memory (PSS)")
        return "\n".join(lines)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measures the start on a large tree, beside lsyncd.")
    parser.add_argument("--dirs", type=int, default=50_000, metavar="N", help="how many (default: 50000)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="turns of each (default: 3)")
    options = parser.parse_args()
    tidy_on_sigterm()
    if not shutil.which(THEIRS):
        print(f"{THEIRS} is not installed: left out")
    print(measure(options.dirs, options.rounds))
    return 0


def measure(directories: int = 50_000, rounds: int = 3) -> Comparison:
    """Measure that many starts of each tool, on a tree of that size and on an empty one."""
    tools = [OURS, THEIRS] if shutil.which(THEIRS) else [OURS]
    full: dict[str, list[Start]] = {tool: [] for tool in tools}
    empty: dict[str, list[Start]] = {tool: [] for tool in tools}
    with workspace() as home:
        bench = _Bench(home)
        large, none = bench.tree("large", directories), bench.tree("none", 0)
        for tool in tools:  # programs and byte code are found in the caches from here on
            bench.start(tool, none, 0)
            bench.start(tool, large, directories)
        for number in range(rounds):
            for tool in tools[:: -1 if number % 2 else 1]:
                empty[tool].append(bench.start(tool, none, 0))
                full[tool].append(bench.start(tool, large, directories))
    return Comparison(directories, full, empty)


class _Bench:
    def __init__(self, home: Path) -> None:
        self._home = home
        self._starts = 0

    def tree(self, name: str, directories: int) -> Path:
        """Make so many directories below a new one."""
        tree = self._home / name
        tree.mkdir()
        uppers = -(-directories // (WIDTH + 1))
        for upper in range(uppers):
            (tree / f"d{upper:04}").mkdir()
        for number in range(directories - uppers):
            (tree / f"d{number % uppers:04}" / f"e{number:06}").mkdir()
        return tree

    def start(self, tool: str, tree: Path, directories: int) -> Start:
        """Start a tool on a tree, wait until it watches all of it, look at it, and end it."""
        self._starts += 1
        work = self._home / f"start-{self._starts}"
        work.mkdir(mode=0o700)
        fake = Fake(work)
        running = self._inosync(work, tree, fake) if tool == OURS else _Lsyncd(work, tree, fake)
        try:
            began = time.time()
            if isinstance(running, Daemon):
                running.start(ready=False)
            else:
                running.start()
            until(lambda: fake.starts() > 0, PATIENCE, f"{tool} to have watched the tree")
            took, cpu = fake.last() - began, cpu_seconds(running.pid)
            until_idle()
            # inosync has one more, for what flush marks.
            found = watches(running.pid) - (tool == OURS)
            assert found == directories + 1, f"{tool} has {found} watches, not one for each directory"
            return Start(took, cpu, memory(running.pid).pss)
        finally:
            if isinstance(running, Daemon):
                running.close()
            else:
                running.stop()

    def _inosync(self, work: Path, tree: Path, fake: Fake) -> Daemon:
        config = {
            "wpaths": [str(tree)],
            "rpaths": ["/tree"],
            "rnodes": [str(work / "node")],
            "rsync": str(fake.path),
        }
        return Daemon(work / "inosync", config, env=byte_code(self._home))


class _Lsyncd(Server):
    """lsyncd with one target, and the program in place of rsync."""

    name = THEIRS

    def __init__(self, home: Path, tree: Path, fake: Fake) -> None:
        super().__init__(home / "lsyncd.log")
        self._config = home / "lsyncd.lua"
        self._config.write_text(
            f'sync {{ default.rsync, source = "{tree}/", target = "{home}/node/", delay = 0, '
            f'rsync = {{ archive = true, binary = "{fake.path}" }} }}\n'
        )

    def command(self) -> tuple[str, ...]:
        return (self.name, "-nodaemon", str(self._config))

    def accepts(self) -> bool:
        return True


if __name__ == "__main__":
    sys.exit(main())
