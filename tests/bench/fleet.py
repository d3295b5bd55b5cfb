"""What a fleet of senders costs, and how fast it is; all of it on this one machine, with local nodes.

    python tests/bench/fleet.py [--quick] [--senders N ...] [--nodes N] [--large] [--stages]

For 1, 2, 4 and 8 senders with 40 nodes: processor time of the origin for a change, with all its processes,
less what it uses at rest, and that of all of the fleet; the time from a change to the last node; all in turns
with one daemon that sends to as many nodes itself; and the time from kill -9 of a sender until all of its
nodes have the next change, with leases of 15 seconds as they are; with --quick they are short. --large: 1,000
nodes and 8 senders with rwarm off, until all have everything, and what that needs. With all on the same
processors, more senders make nothing faster here.

--stages: where the time of a change goes on its way, as the places of the copies and MONITOR of Redis show.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import redis

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support import procs
from support.daemon import CHECKOUT, Daemon
from support.fleet import TRUSTING, Fleet

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
STAGES = {
    "appended": re.compile(r"ZADD \S+:journal "),
    "told": re.compile(r"PUBLISH "),
    "noted": re.compile(r"HSET \S+:nodes "),
}
"""What Redis is asked for by scripts when a change has come so far."""


@dataclass(frozen=True)
class Place:
    """A daemon, its tree, and where that has to arrive."""

    daemons: Sequence[Daemon]
    """The origin, or the one daemon, is the first."""
    tree: Path
    copies: list[Path]


@dataclass(frozen=True)
class Figures:
    """Of one place; in seconds."""

    latencies: tuple[float, ...]
    cpu: float
    """Processor time of the first daemon for a change."""
    total: float
    """That of all of them."""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measures a fleet of senders.")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it work at all?")
    parser.add_argument("--senders", type=int, nargs="+", metavar="N", help="as a rule 1, 2, 4 and 8")
    parser.add_argument("--nodes", type=int, default=40, metavar="N")
    parser.add_argument("--large", action="store_true", help="1,000 nodes and 8 senders")
    parser.add_argument("--stages", action="store_true", help="the time of a change, by stages")
    options = parser.parse_args()
    tidy_on_sigterm()
    print(statement(), flush=True)
    if options.large:
        measure_large(*((2, 20, TRUSTING) if options.quick else (8, 1_000, LAUNCHER)))
        return 0
    nodes, changes, counts = (4, 3, [2]) if options.quick else (options.nodes, 30, [1, 2, 4, 8])
    launcher = TRUSTING if options.quick else LAUNCHER
    for count in options.senders or counts:
        compare(count, nodes, changes, launcher, options.stages)
    return 0


def compare(senders: int, nodes: int, changes: int, launcher: str, stages: bool) -> None:
    """Measure a fleet and one daemon in turns, so that both have the same machine, and print a line."""
    with workspace() as home, one_daemon(home / "alone", nodes) as alone:
        fleet = made(home / "fleet", senders, nodes, launcher)
        with fleet.running():
            fleet.until_served(PATIENCE_SECONDS)
            fleet.until_level(PATIENCE_SECONDS)
            copies = [fleet.copy(name) for name in fleet.nodes]
            beside, found = measure([alone, Place(fleet.daemons(), fleet.tree, copies)], changes)
            p50, once = median(found.latencies), median(beside.latencies)
            share = found.cpu / senders / max(beside.cpu, 1e-6)
            line = f"{senders} senders, {nodes} nodes: p50 {shown(p50)}, one daemon {shown(once)}"
            line += f": {p50 / once:.2f}"
            line += f"   CPU of the origin {shown(found.cpu)}, one daemon {shown(beside.cpu)}:"
            line += f" {share:.3f} for each sender"
            line += f"   CPU of all {shown(found.total)}: {found.total / max(beside.total, 1e-6):.2f}"
            print(line, flush=True)
            if stages:
                print_stages(fleet, changes)
            if senders > 1:
                print(f"  {shown(take_over(fleet)):>8}  takeover", flush=True)


def print_stages(fleet: Fleet, changes: int) -> None:
    """Print when a change has come how far, in the median."""
    until_idle()
    client: Any = redis.Redis.from_url(fleet.redis.url)
    with client.monitor() as monitor:
        found = [stages_of(fleet, monitor, f"stage {number}") for number in range(changes)]
    client.close()
    for stage in found[0]:
        print(f"  {shown(median(one[stage] for one in found)):>8}  {stage}", flush=True)


def stages_of(fleet: Fleet, monitor: Any, text: str) -> dict[str, float]:
    """Make a change, and return how long after it each stage was reached, in their order."""
    time.sleep(PAUSE_SECONDS)
    copies = {name: fleet.copy(name) for name in (*fleet.names, *fleet.nodes)}
    began, at = time.time(), dict[str, float]()
    (fleet.tree / "changed").write_text(text)
    while len(at) < len(copies):
        assert time.time() < began + PATIENCE_SECONDS, f"{copies.keys() - at.keys()} do not get it"
        for name, copy in copies.items():
            if name not in at and has(copy / "changed", text):
                at[name] = time.time() - began
        time.sleep(LOOK_SECONDS)
    seen = defaultdict[str, list[float]](list)
    until = time.time()
    while (entry := monitor.next_command())["time"] < until:  # the next one comes soon, changes or not
        for stage, pattern in STAGES.items():
            if entry["time"] >= began and entry["client_type"] == "lua" and pattern.match(entry["command"]):
                seen[stage].append(entry["time"] - began)
    noted = [when for when in seen["noted"] if when <= max(at[name] for name in fleet.nodes)]
    return {
        "recorded in Redis": min(seen["appended"]),
        "on the first copy of a sender": min(at[name] for name in fleet.names),
        "on the last copy of a sender": max(at[name] for name in fleet.names),
        "the first sender is told": min(seen["told"]),
        "the last sender is told": max(seen["told"]),
        "the first sender may send it": min(noted),
        "on the first node": min(at[name] for name in fleet.nodes),
        "on the last node": max(at[name] for name in fleet.nodes),
    }


def take_over(fleet: Fleet) -> float:
    """Kill a sender, and return how long it takes until all of its nodes have the next change."""
    until_idle()
    vias = fleet.vias()
    dead = vias[fleet.nodes[0]]
    fleet.senders[dead].kill9()
    orphans = [fleet.copy(name) for name, via in vias.items() if via == dead]
    return change(fleet.tree, orphans, "takeover")


@contextmanager
def one_daemon(home: Path, nodes: int) -> Iterator[Place]:
    """One daemon that sends to all nodes itself."""
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
        yield Place([daemon], tree, [place / "www" for place in places])
    finally:
        daemon.close()


def made(
    home: Path, senders: int, nodes: int, launcher: str, settings: dict[str, object] | None = None
) -> Fleet:
    """Return a fleet whose leases last as long as the launcher says."""
    names = [f"s{number}" for number in range(senders)]
    fleet = Fleet(home, names, [f"n{number}" for number in range(nodes)], settings)
    fleet.launcher.write_text(launcher)
    return fleet


def measure(places: Sequence[Place], changes: int) -> list[Figures]:
    """Change one file after the other, at each place in turn; the first is not counted."""
    for place in places:
        change(place.tree, place.copies, "first")
    until_idle()
    rest, began = list(map(cpu_by_daemon, places)), time.monotonic()
    time.sleep(PAUSE_SECONDS * min(changes, 10))
    before, started = list(map(cpu_by_daemon, places)), time.monotonic()
    latencies: list[list[float]] = [[] for _ in places]
    for number in range(changes):
        for place, times in zip(places, latencies, strict=True):
            times.append(change(place.tree, place.copies, str(number)))
            time.sleep(PAUSE_SECONDS)
    took = time.monotonic() - started
    idle = took / (started - began)
    found = []
    for place, one, old, new in zip(places, latencies, rest, before, strict=True):
        now = cpu_by_daemon(place)
        each = [max(c - b - (b - a) * idle, 0.0) / changes for a, b, c in zip(old, new, now, strict=True)]
        found.append(Figures(tuple(one), each[0], sum(each)))
    return found


def cpu_by_daemon(place: Place) -> list[float]:
    """Return the processor time so far of each daemon, with all that came from it."""
    return [cpu_of_all(daemon.pid) for daemon in place.daemons]


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


def measure_large(senders: int, nodes: int, launcher: str) -> None:
    """Print how long a large fleet takes until it is level, and what it needs then."""
    with workspace() as home:
        fleet = made(home, senders, nodes, launcher, {"rwarm": False})
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
