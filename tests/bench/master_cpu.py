"""What the master itself costs, however slow rsync is: a program that only reads its input stands in for it.

    python tests/bench/master_cpu.py [--quick]

``changes``: the processor time (user and system) that inosync's master uses for 3,000 changes with 40 nodes,
and with one. ``directories``: how long until a tree of 50,000 directories is watched, and the memory of the
master then, beside lsyncd.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.daemon import Daemon
from support.procs import Server
from support.wait import until

from bench.machine import Memory, cpu_seconds, memory, tidy_on_sigterm, until_idle, watches
from bench.report import shown
from bench.tools import Lsyncd

BURST = 30
"""Changes at once; their pauses are longer than ``equiet``, so that most bursts are batches of their own."""
PAUSE = 0.2
EDELAY = 2
PATIENCE = 600.0

FAKE = """#!/bin/sh
case "$*" in
    *--version*) exec @REAL@ --version ;;
    *--files-from=-* | *--include-from=-*) cat >/dev/null ;;
    *) echo >>@STARTED@ ;;
esac
exit 0
"""
"""Takes every name, and notes the start of each run over a whole tree: then a tool has watched all of it."""


class Fake:
    """The program, and what it has noted."""

    def __init__(self, home: Path) -> None:
        self.path = home / "rsync"
        self._started = home / "started"
        real = shutil.which("rsync")
        assert real, "rsync is not installed"
        self.path.write_text(FAKE.replace("@REAL@", real).replace("@STARTED@", str(self._started)))
        self.path.chmod(0o755)

    def starts(self) -> int:
        """Runs over a whole tree so far."""
        return self._started.stat().st_size if self._started.exists() else 0

    def last(self) -> float:
        """When the last of them began, in seconds of the clock on the wall."""
        return self._started.stat().st_mtime


def main() -> int:
    """Measure, and print as it comes."""
    parser = argparse.ArgumentParser(description="Measures the master's own processor time and memory.")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it work at all?")
    quick = parser.parse_args().quick
    tidy_on_sigterm()
    _compare_nodes(changes=150 if quick else 3000, most=5 if quick else 40, rounds=1 if quick else 3)
    _compare_trees(directories=500 if quick else 50_000, rounds=1 if quick else 3)
    return 0


# Changes -----------------------------------------------------------------------------------------------


def _compare_nodes(changes: int, most: int, rounds: int) -> None:
    used: dict[int, list[float]] = {1: [], most: []}
    for _ in range(rounds):
        for nodes, samples in used.items():
            with _home() as home:
                samples.append(_cpu_for_changes(Path(home), nodes, changes))
    for nodes, samples in used.items():
        name = f"{nodes} node{'s' * (nodes != 1)}"
        print(f"{changes:,} changes, {name:8} master's CPU {shown(median(samples)):>8}   n {len(samples)}")
    print(f"{most} nodes cost the master {median(used[most]) / median(used[1]):.2f} times what one does")


def _cpu_for_changes(home: Path, nodes: int, changes: int) -> float:
    fake, tree = Fake(home), home / "tree"
    tree.mkdir()
    daemon = _inosync(home, tree, fake, nodes)
    try:
        daemon.start()
        until(lambda: fake.starts() >= nodes, PATIENCE, "the first run to every node")
        until_idle()
        before = cpu_seconds(daemon.pid)
        for number in range(changes):
            (tree / f"f{number:06}").write_bytes(b"x")
            if number % BURST == BURST - 1:
                time.sleep(PAUSE)
        time.sleep(EDELAY)  # until then a node may be called level with changes that have just been made
        until(lambda: _all_ok(daemon, nodes), PATIENCE, "all nodes to be level")
        until_idle()
        return cpu_seconds(daemon.pid) - before
    finally:
        daemon.close()


def _all_ok(daemon: Daemon, nodes: int) -> bool:
    states = list(daemon.states().values())
    return states == ["ok"] * nodes


def _inosync(home: Path, tree: Path, fake: Fake, nodes: int) -> Daemon:
    config = {
        "wpaths": [str(tree)],
        "rpaths": ["/tree"],
        "rnodes": [str(home / f"node-{number}") for number in range(nodes)],
        "rsync": str(fake.path),
        "edelay": EDELAY,
    }
    return Daemon(home / "inosync", config)


# Directories -------------------------------------------------------------------------------------------


def _compare_trees(directories: int, rounds: int) -> None:
    tools = ["inosync", *([Lsyncd.name] if shutil.which(Lsyncd.name) else [])]
    if len(tools) == 1:
        print("lsyncd is not installed: left out")
    took: dict[str, list[float]] = {tool: [] for tool in tools}
    held: dict[str, list[Memory]] = {tool: [] for tool in tools}
    with _home() as home:
        tree = Path(home) / "tree"
        _make(tree, directories)
        for number in range(rounds):
            for tool in tools:
                work = Path(home) / f"{tool}-{number}"
                work.mkdir(mode=0o700)
                seconds, size = _watch(tool, work, tree, directories)
                took[tool].append(seconds)
                held[tool].append(size)
    times = {tool: median(took[tool]) for tool in tools}
    sizes = {tool: median(one.pss for one in held[tool]) for tool in tools}
    for tool in tools:
        rss = median(one.rss for one in held[tool])
        what = f"{directories:,} directories, {tool:8} watched in {shown(times[tool]):>8}"
        print(f"{what}   PSS {sizes[tool] / 1e6:6.1f} MB   RSS {rss / 1e6:6.1f} MB   n {rounds}")
    for tool in tools[1:]:
        time_share, size_share = times["inosync"] / times[tool], sizes["inosync"] / sizes[tool]
        print(f"inosync takes {time_share:.2f} of {tool}'s time, and {size_share:.2f} of its memory (PSS)")


def _make(tree: Path, directories: int) -> None:
    """Make so many directories below the tree, a hundred in each of the upper ones."""
    tree.mkdir()
    uppers = max(directories // 101, 1)
    made = 0
    for upper in range(uppers):
        (tree / f"d{upper:04}").mkdir()
        made += 1
    for number in range(directories - made):
        (tree / f"d{number % uppers:04}" / f"e{number:06}").mkdir()


def _watch(tool: str, home: Path, tree: Path, directories: int) -> tuple[float, Memory]:
    """Seconds from the start of a tool to that of its first rsync, and its master's memory after it."""
    fake = Fake(home)
    ours = tool == "inosync"
    running = _inosync(home, tree, fake, nodes=1) if ours else _Lsyncd(home, tree, fake)
    try:
        began = time.time()
        running.start()
        until(lambda: fake.starts() > 0, PATIENCE, f"{tool} to have watched the tree")
        took = fake.last() - began
        until_idle()
        assert watches(running.pid) > directories, f"{tool} watches only {watches(running.pid)} directories"
        return took, memory(running.pid)
    finally:
        if isinstance(running, Daemon):
            running.close()
        else:
            running.stop()


class _Lsyncd(Server):
    """lsyncd with one target, and the program in place of rsync."""

    name = Lsyncd.name

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


def _home() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="inosync-bench-", ignore_cleanup_errors=True)


if __name__ == "__main__":
    sys.exit(main())
