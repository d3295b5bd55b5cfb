"""How latency and processor time grow: with nodes, with changes made at once, and with directories.

    python tests/bench/growth.py [--quick] [--axes nodes,local,changes,directories] [--apart SECONDS]
                                 [--svg FILE] [--rst FILE]

``nodes``: one isolated change to 1 to 200 nodes, behind one rsync daemon on loopback. ``local``: the same
to 10 to 500 directories of this machine, without warm rsyncs. Both say what the master takes for each node:
processor time, and system calls (strace). ``changes``: 1 to 100,000 new files, written as fast as can be,
to one node. ``directories``: one isolated change in a tree of 1 to 200,000 directories, to one node; the
processor time is that of the start. lsyncd has the same work, but for local nodes; where one took it too
long, it is spared the next.

The plot is written to docs/growth.svg, unless --quick; it needs matplotlib.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import machine, plot, report, sizes
from bench.options import add_apart, words
from bench.sizes import Point
from bench.units import shown

SIZES = {
    "nodes": (1, 3, 10, 30, 100, 200),
    "local": (10, 200, 500),
    "changes": (1, 10, 100, 1000, 10_000, 100_000),
    "directories": (1, 100, 1000, 10_000, 50_000, 200_000),
}
QUICK = {"nodes": (1, 2), "local": (1, 2), "changes": (1, 200), "directories": (1, 100)}

MEASURES = {
    "nodes": sizes.nodes,
    "local": sizes.local_nodes,
    "changes": sizes.changes,
    "directories": sizes.directories,
}

OF = {
    "nodes": ("one change", "one change"),
    "local": ("one change", "one change"),
    "changes": ("all of the changes", "all of the changes"),
    "directories": ("one change", "the start"),
}
"""What latency and processor time are of."""

NOTE = """\
inosync has ``equiet = 0``, lsyncd ``delay = 0`` and TCP_NODELAY. Latency: until all nodes have an isolated
change, or all of the changes made at once. CPU: of all processes of a tool, for {cpu}. All on {machine}
"""


def main() -> int:
    """Measure, and print as it comes."""
    options = _options()
    machine.tidy_on_sigterm()
    file = options.svg or (
        None if options.quick else Path(__file__).resolve().parents[2] / "docs" / "growth.svg"
    )
    if file and not plot.possible():
        print("matplotlib is not installed: no plot", file=sys.stderr)
        file = None
    points: list[Point] = []
    try:
        for axis in options.axes:
            chosen = (QUICK if options.quick else SIZES)[axis]
            for point in MEASURES[axis](chosen, 1 if options.quick else 5, options.apart):
                points.append(point)
                print(_line(point), flush=True)
    finally:  # what has been measured is not lost when it is interrupted
        _write(points, options, file)
    return 0


def _write(points: list[Point], options: argparse.Namespace, file: Path | None) -> None:
    tables = "\n\n".join(report.table(list(_rows(axis, points))) for axis in options.axes)
    print(f"\n{tables}")
    if options.rst:
        options.rst.write_text(f"{tables}\n\n{_note(options.axes)}")
    if file:
        plot.draw([point for point in points if point.axis != "local"], OF, file)


def _line(point: Point) -> str:
    cpu = f"CPU {shown(point.cost.all):>8}   its master {shown(point.cost.master):>8}"
    if point.axis in ("nodes", "local"):
        calls = "" if point.calls is None else f", {point.calls / point.size:.1f} system calls"
        cpu += f" (for each node {shown(point.cost.master / point.size)}{calls})"
    return f"{point.axis:11} {point.size:>7,}   {point.tool:18} latency {shown(point.latency):>8}   {cpu}"


def _rows(axis: str, points: list[Point]) -> Iterator[list[str]]:
    """One row for each size, the head first."""
    here = [point for point in points if point.axis == axis]
    tools = list(dict.fromkeys(point.tool for point in here))
    titles = [title for tool in tools for title in (f"{tool}: latency", "CPU", "its master")]
    yield [axis, *titles]
    by = {(point.size, point.tool): point for point in here}
    for size in dict.fromkeys(point.size for point in here):
        cells: list[str] = []
        for tool in tools:
            point = by.get((size, tool))
            times = (point.latency, point.cost.all, point.cost.master) if point else ()
            cells += [shown(time) for time in times] or ["-"] * 3
        yield [f"{size:,}", *cells]


def _note(axes: list[str]) -> str:
    cpu = "; ".join(f"{OF[axis][1]} ({axis})" for axis in axes)
    return report.wrapped(NOTE.format(cpu=cpu, machine=machine.statement())) + "\n"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures how latency and processor time grow.")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it work at all?")
    parser.add_argument("--axes", type=words(*SIZES), default=list(SIZES))
    add_apart(parser)
    write = partial(parser.add_argument, type=Path, metavar="FILE")
    write("--svg", help="write the plot there; default: docs/growth.svg, unless --quick")
    write("--rst", help="write the tables for docs/performance.rst")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
