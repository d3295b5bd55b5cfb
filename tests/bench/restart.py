"""What a restart costs when nothing has changed meanwhile, beside full mirrors, the bare walk, and lsyncd.

    python tests/bench/restart.py [--quick]

100,000 files in 1,000 directories, and 10 local nodes that have them all, on tmpfs (or in TMPDIR). The time
is that from the start of the process until all nodes are ok; lsyncd is ready when it has compared its nodes.
The processor time is that of all processes until then. ``bare walk`` is the time until all directories are
watched in a start with --full, which only looks for directories. ``find`` reads the times of all files, as a
restart has to: what no program can do without.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.daemon import Daemon

from bench.machine import cpu_of_all, statement, tidy_on_sigterm, until_idle, workspace
from bench.nodes import Case
from bench.tools import Lsyncd, byte_code
from bench.units import shown

SETTLE_SECONDS = 2.5
"""A start looks back over two seconds, because of file systems with coarse times."""
LOOK_SECONDS = 0.003
PATIENCE_SECONDS = 600.0


@dataclass(frozen=True)
class Start:
    """One start, in seconds."""

    wall: float
    cpu: float
    walk: float = 0.0
    """Until all directories were watched."""
    sent: int = 0
    """Batches and full mirrors until then."""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measures what a restart costs if nothing has changed.")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it work at all?")
    quick = parser.parse_args().quick
    directories, files, nodes, rounds = (10, 10, 2, 1) if quick else (1_000, 100, 10, 5)
    tidy_on_sigterm()
    with workspace() as home:
        tree, copies = home / "tree", [home / f"node{number}" for number in range(nodes)]
        for number in range(directories):
            directory = tree / str(number // 50) / str(number)
            directory.mkdir(parents=True)
            for name in range(files):
                (directory / f"file{name}").write_bytes(b"content")
        print(f"{directories * files:,} files, {nodes} local nodes; {statement()}", flush=True)
        measure(home, tree, copies, rounds)
    return 0


def measure(home: Path, tree: Path, copies: list[Path], rounds: int) -> None:
    """Start each in turn, so that all meet the same machine."""
    settings = {
        "wpaths": [str(tree)],
        "rpaths": [""],
        "rnodes": [{"node": f"{copy}/", "name": copy.name} for copy in copies],
    }
    daemon = Daemon(home / "inosync", settings, env=byte_code(home))
    run(daemon, len(copies))  # the first full mirrors
    time.sleep(SETTLE_SECONDS)
    starts: dict[str, list[Start]] = {"restart": [], "restart --full": []}
    if shutil.which(Lsyncd.name):
        starts["lsyncd"] = []
    for _ in range(rounds):
        for name, found in starts.items():
            until_idle()
            if name == "lsyncd":
                found.append(run_lsyncd(home, tree, copies))
            else:
                daemon.args = ("--full",) if "--full" in name else ()
                found.append(run(daemon, len(copies)))
    daemon.close()
    found_by = [read_times(tree) for _ in range(rounds)]
    full = starts["restart --full"]
    walk, cpu = middle(full, lambda start: start.walk), middle(full, lambda start: start.cpu)
    print(f"{'bare walk':16} time {shown(walk):>8}")
    print(f"{'find':16} time {shown(median(found_by)):>8}")
    for name, found in starts.items():
        own = middle(found, lambda start: start.wall), middle(found, lambda start: start.cpu)
        ratios = f"{own[0] / walk:5.2f} of the bare walk, {own[1] / cpu:5.2f} of the CPU of --full"
        sent = f", {max(start.sent for start in found)} transfers" if name != "lsyncd" else ""
        print(f"{name:16} time {shown(own[0]):>8}   CPU {shown(own[1]):>8}   {ratios}{sent}")


def read_times(tree: Path) -> float:
    """Read the ctime of everything in a tree by find(1); the seconds that it took."""
    until_idle()
    began = time.monotonic()
    subprocess.run(["find", tree, "-newerct", "2100-01-01"], check=True)
    return time.monotonic() - began


def middle(starts: list[Start], value: Callable[[Start], float]) -> float:
    """The median."""
    return median(map(value, starts))


def run(daemon: Daemon, nodes: int) -> Start:
    """Start it, wait until all nodes are ok, and stop it."""
    seen, began = len(daemon.log()), time.monotonic()
    daemon.start(ready=False)
    walk = 0.0

    def is_ok() -> bool:
        nonlocal walk
        if not walk and re.search("directories are watched", daemon.log()[seen:]):
            walk = time.monotonic() - began
        return f"{nodes} nodes: {nodes} ok" in daemon.title()

    until_soon(is_ok, "all nodes to be ok")
    wall, cpu = time.monotonic() - began, cpu_of_all(daemon.pid)
    sent = sum(node["batches"] for node in daemon.ask("status")["nodes"])
    time.sleep(SETTLE_SECONDS)
    daemon.stop()
    return Start(wall, cpu, walk, sent)


def until_soon(condition: Callable[[], bool], what: str) -> None:
    """Wait as ``wait.until`` does, but without its growing pauses: they would be most of what is measured."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(LOOK_SECONDS)


def run_lsyncd(home: Path, tree: Path, copies: list[Path]) -> Start:
    """The same for lsyncd."""
    case = Case(home, tree, "", tuple(map(str, copies)), tuple(copies), None)
    tool = Lsyncd(case)
    (home / "lsyncd.log").unlink(missing_ok=True)
    began = time.monotonic()
    tool.start()
    try:
        until_soon(lambda: tool.log().count("finished.") >= len(copies), "lsyncd's start")
        return Start(time.monotonic() - began, cpu_of_all(tool.pid))
    finally:
        tool.stop()


if __name__ == "__main__":
    sys.exit(main())
