"""What a fleet of senders costs, and how fast it is; all of it on this one machine, with local nodes.

    python tests/bench/fleet.py [--quick] [--senders N ...] [--large]

For 1, 2, 4 and 8 senders with 40 nodes: processor time of the origin for a change, with all its processes,
less what it uses at rest; the time from a change to the last node, beside one daemon that sends to the same
nodes itself; and the time from kill -9 of a sender until all of its nodes have the next change, with leases
of 15 seconds as they are. --large: 1,000 nodes and 8 senders with rwarm off, until all have everything, and
what that needs. With all on the same processors, more senders do not make anything faster here.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support import procs
from support.daemon import CHECKOUT, Daemon
from support.fleet import Fleet

from bench.machine import cpu_of_all, memory, statement, tidy_on_sigterm, until_idle, workspace
from bench.units import shown

LAUNCHER = f"""\
import sys
sys.path.insert(0, {str(CHECKOUT)!r})
from inosync.cli import main
sys.exit(main())
"""
"""With leases that last as long as they do; those of the tests are shorter."""
PAUSE_SECONDS = 0.4
"""Between two changes, so that each goes by itself."""
LOOK_SECONDS = 0.002
PATIENCE_SECONDS = 900.0
TARGET_NODES = 10_000


@dataclass(frozen=True)
class Figures:
    """Of one fleet, or of one daemon; in seconds."""

    latencies: tuple[float, ...]
    cpu: float
    """Processor time of the origin for a change."""
    takeover: float | None = None


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measures a fleet of senders.")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it work at all?")
    parser.add_argument("--senders", type=int, nargs="+", default=[1, 2, 4, 8], metavar="N")
    parser.add_argument("--large", action="store_true", help="1,000 nodes and 8 senders")
    options = parser.parse_args()
    tidy_on_sigterm()
    print(statement(), flush=True)
    if options.large:
        measure_large(*((2, 20) if options.quick else (8, 1_000)))
        return 0
    nodes, changes, counts = (4, 3, [2]) if options.quick else (40, 30, options.senders)
    alone = measure_alone(nodes, changes)
    p50 = median(alone.latencies)
    print(f"{'one daemon':12} {nodes} nodes: p50 {shown(p50):>8}   CPU {shown(alone.cpu):>8} for a change")
    for count in counts:
        found = measure_fleet(count, nodes, changes)
        line = f"p50 {shown(median(found.latencies)):>8} ({median(found.latencies) / p50:.2f} of one daemon)"
        share = found.cpu / count / max(alone.cpu, 1e-6)
        line += f"   CPU {shown(found.cpu):>8} ({share:.3f} of one daemon for each sender)"
        if found.takeover is not None:
            line += f"   takeover {shown(found.takeover):>8}"
        print(f"{f'{count} senders':12} {nodes} nodes: {line}", flush=True)
    return 0


def measure_alone(nodes: int, changes: int) -> Figures:
    """Let one daemon send to all nodes itself."""
    with workspace() as home:
        tree, places = home / "tree", [home / "places" / f"n{number}" for number in range(nodes)]
        for directory in (tree, *places):
            directory.mkdir(parents=True)
        settings = {
            "wpaths": [str(tree)],
            "rpaths": ["www"],
            "rnodes": [{"node": f"{place}/", "name": place.name} for place in places],
        }
        daemon = Daemon(home / "inosync", settings)
        daemon.start()
        try:
            return measure(daemon, tree, [place / "www" for place in places], changes)
        finally:
            daemon.close()


def measure_fleet(senders: int, nodes: int, changes: int) -> Figures:
    """Let senders do it."""
    with workspace() as home:
        fleet = made(home, senders, nodes)
        with fleet.running():
            fleet.until_served(PATIENCE_SECONDS)
            fleet.until_level(PATIENCE_SECONDS)
            copies = [fleet.copy(name) for name in fleet.nodes]
            found = measure(fleet.origin, fleet.tree, copies, changes)
            if senders == 1:
                return found
            until_idle()
            vias = fleet.vias()
            dead = vias[fleet.nodes[0]]
            fleet.senders[dead].kill9()
            orphans = [fleet.copy(name) for name, via in vias.items() if via == dead]
            return Figures(found.latencies, found.cpu, change(fleet.tree, orphans, "takeover"))


def made(home: Path, senders: int, nodes: int, settings: dict[str, object] | None = None) -> Fleet:
    """Return a fleet with leases that last as long as they do."""
    names = [f"s{number}" for number in range(senders)]
    fleet = Fleet(home, names, [f"n{number}" for number in range(nodes)], settings)
    fleet.launcher.write_text(LAUNCHER)
    return fleet


def measure(daemon: Daemon, tree: Path, copies: list[Path], changes: int) -> Figures:
    """Change one file after the other; the first is not counted."""
    change(tree, copies, "first")
    until_idle()
    rest, began = cpu_of_all(daemon.pid), time.monotonic()
    time.sleep(PAUSE_SECONDS * min(changes, 10))
    at_rest = (cpu_of_all(daemon.pid) - rest) / (time.monotonic() - began)
    before, began = cpu_of_all(daemon.pid), time.monotonic()
    latencies = []
    for number in range(changes):
        latencies.append(change(tree, copies, str(number)))
        time.sleep(PAUSE_SECONDS)
    used = cpu_of_all(daemon.pid) - before - at_rest * (time.monotonic() - began)
    return Figures(tuple(latencies), max(used, 0.0) / changes)


def change(tree: Path, copies: Iterable[Path], text: str) -> float:
    """Change a file, and return how long it took until all these copies had it."""
    began = time.monotonic()
    (tree / "changed").write_text(text)
    waiting = list(copies)
    while waiting:
        assert time.monotonic() < began + PATIENCE_SECONDS, f"{waiting[0]} does not get it"
        waiting = [copy for copy in waiting if not has(copy / "changed", text)]
        if waiting:
            time.sleep(LOOK_SECONDS)
    return time.monotonic() - began


def has(path: Path, text: str) -> bool:
    """Whether a file has that content."""
    try:
        return path.read_text() == text
    except FileNotFoundError:
        return False


def measure_large(senders: int, nodes: int) -> None:
    """Print how long a large fleet takes until it is level, and what it needs then."""
    with workspace() as home:
        fleet = made(home, senders, nodes, {"rwarm": False})
        for number in range(100):
            (fleet.tree / str(number)).write_text("content")
        began = time.monotonic()
        with fleet.running():
            fleet.until_served(PATIENCE_SECONDS)
            served = time.monotonic() - began
            fleet.until_level(PATIENCE_SECONDS)
            level = time.monotonic() - began
            times = f"served after {shown(served)}, level after {shown(level)}"
            print(f"{nodes:,} nodes, {senders} senders: {times}")
            until_idle()
            took = change(fleet.tree, [fleet.copy(name) for name in fleet.nodes], "large")
            print(f"a change is on all of them after {shown(took)}, {shown(took / nodes)} for each")
            for what, daemon in (("origin", fleet.origin), ("one sender", fleet.senders[fleet.names[0]])):
                family = [process.pid for process in procs.family([daemon.pid])]
                size = memory(*family).pss / 1e6
                print(f"{what:12} {len(family):4} processes, {size:,.0f} MB (PSS)")
            began, before = time.monotonic(), cpu_of_all(fleet.origin.pid)
            time.sleep(PAUSE_SECONDS * 10)
            share = (cpu_of_all(fleet.origin.pid) - before) / (time.monotonic() - began)
            print(f"at rest the origin uses {share:.1%} of a processor")
            each = memory(*[one.pid for one in procs.family([fleet.senders[fleet.names[0]].pid])]).pss
            per_node = each / (nodes / senders)
            needed = TARGET_NODES * per_node / 1e9
            print(f"by calculation, senders for {TARGET_NODES:,} nodes need {needed:,.1f} GB in all")


if __name__ == "__main__":
    sys.exit(main())
