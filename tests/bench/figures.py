"""What is measured beside latency, as lines of the second table. A goal is for the full size only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench import directories, goals, master_cpu, pss
from bench.directories import OURS, THEIRS
from bench.nodes import missing
from bench.report import Figure
from bench.tools import DEFAULT, LSYNCD, TUNED
from bench.units import megabytes, of_nodes, shown


def measure(
    work: str, quick: bool, counts: Sequence[int] | None, transports: Sequence[str]
) -> Iterator[Figure]:
    """Measure ``cpu``, ``directories`` or ``memory``; the latter with so many nodes over these transports."""
    if work == "cpu":
        yield _cpu(quick)
    elif work == "directories":
        yield from _directories(quick)
    else:
        for transport in transports:
            if not missing(transport):
                for count in counts or ([2] if quick else [goals.EACH]):
                    yield from _memory(pss.measure(transport, count))


def _cpu(quick: bool) -> Figure:
    found = master_cpu.measure(quick)
    what = f"master's CPU for {found.changes:,} changes, {of_nodes(found.most)}"
    one = f"{of_nodes(1)}: {shown(found.middle(1))}"
    return Figure(
        what, shown(found.middle(found.most)), one, found.ratio, None if quick else goals.MASTER_CPU
    )


def _directories(quick: bool) -> Iterator[Figure]:
    found = directories.measure(500, 1) if quick else directories.measure()
    what = f"{found.directories:,} directories"
    theirs = THEIRS in found.full
    ready = f"lsyncd: {shown(found.seconds(THEIRS))}" if theirs else ""
    yield Figure(
        f"{what}: ready",
        shown(found.seconds(OURS)),
        ready,
        found.time_ratio,
        None if quick else goals.READY,
    )
    held = f"lsyncd: {megabytes(found.pss(THEIRS))}" if theirs else ""
    yield Figure(
        f"{what}: memory of the master",
        megabytes(found.pss(OURS)),
        held,
        found.memory_ratio,
        None if quick else goals.MEMORY,
    )


def _memory(holdings: Sequence[pss.Holding]) -> Iterator[Figure]:
    theirs = {holding.tool: holding for holding in holdings if holding.tool in (LSYNCD, TUNED)}
    beside = "; ".join(f"{tool}: {megabytes(holding.each)}" for tool, holding in theirs.items())
    for holding in holdings:
        if holding.tool in theirs:
            continue
        where = f"{holding.transport}, {of_nodes(holding.nodes)}"
        kind = "warm" if holding.tool == DEFAULT else "rwarm off"
        parts = ", ".join(
            f"{name} {megabytes(part.pss / holding.nodes)}" for name, part in holding.parts.items()
        )
        what = f"PSS of everything for each node, {where}, {kind}"
        yield Figure(what, f"{megabytes(holding.each)} ({parts})", beside)
        if holding.worker is not None:
            what = f"PSS of a worker, its rsync apart, {where}, {kind}"
            most = megabytes(goals.WORKER)
            goal = 1.0 if holding.nodes == goals.EACH else None
            yield Figure(what, megabytes(holding.worker), most, holding.worker / goals.WORKER, goal)
