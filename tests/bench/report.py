"""What was measured, as lines to read and as the tables of docs/performance.rst."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench import goals, machine
from bench.goals import COLUMNS, Goal
from bench.tools import DEFAULT, LSYNCD, OWN_MASTER, QUICKEST, RSH, TUNED
from bench.units import of_nodes, p90, ratio, share, shown

NOTE = """
Medians. inosync has its default settings, ``equiet = 0``, or (cold) ``equiet = 0`` and ``rwarm = False``.
lsyncd has ``delay = 0``; tuned is with ControlMaster over ssh, and with TCP_NODELAY to rsync daemons. "of
lsyncd" and "of tuned" are what share of their time inosync takes: with ``equiet = 0`` for an isolated change,
with its defaults for many files; the goals are of lsyncd where nothing else is said. All on {machine}
"""


@dataclass(frozen=True)
class Latency:
    """Seconds until all nodes had the result of one work, by tool."""

    work: str
    transport: str
    nodes: int
    samples: Mapping[str, Sequence[float]]
    what: str
    """The work in words."""
    small: bool = False
    """Whether it was less than the goals are about."""

    @property
    def judged(self) -> str:
        """Which inosync: lsyncd's ``delay = 0`` is ``equiet = 0``, and many files want the default."""
        return QUICKEST if self.work == "edit" else DEFAULT

    def of(self, tool: str) -> float | None:
        """What share of a tool's median inosync takes; None if that is not known."""
        if not self.samples.get(tool) or not self.samples.get(self.judged):
            return None
        return ratio(median(self.samples[self.judged]), median(self.samples[tool]))

    @property
    def goals(self) -> Sequence[Goal]:
        """What was to be reached."""
        return () if self.small else goals.LATENCY.get((self.work, self.transport, self.nodes), ())


@dataclass(frozen=True)
class Figure:
    """Anything else that was measured, beside what it is compared with."""

    what: str
    ours: str
    theirs: str = ""
    share: float | None = None
    most: float | None = None
    """The goal for the share."""


def text(result: Latency) -> str:
    """A line for each tool, with the share of it that inosync takes, and the goals."""
    lines = [f"{result.what}, {result.transport}, {of_nodes(result.nodes)}"]
    for tool, samples in result.samples.items():
        if not samples:
            lines.append(f"  {tool:18} failed")
            continue
        line = f"  {tool:18} median {shown(median(samples)):>8}   p90 {shown(p90(samples)):>8}"
        line += f"   n {len(samples):3}"
        if tool in (RSH, OWN_MASTER) and result.samples.get(LSYNCD):
            line += f"   {share(ratio(median(samples), median(result.samples[LSYNCD])))} of lsyncd's"
        elif not tool.startswith(DEFAULT):
            line += f"   {result.judged} takes {share(result.of(tool))} of it"
        lines.append(line)
    for goal in result.goals:
        found = result.of(goal.of)
        lines.append(f"  goal {goal}: {share(found)}, reached: {goals.reached(found, goal.most)}")
    return "\n".join(lines)


def figure_text(figure: Figure) -> str:
    """One line."""
    line = f"{figure.what}: {figure.ours}"
    if figure.theirs:
        line += f" against {figure.theirs}"
    if figure.share is not None:
        line += f": {share(figure.share)}"
    if figure.most is not None:
        line += f", goal {figure.most:.2f}, reached: {goals.reached(figure.share, figure.most)}"
    return line


def rst(latencies: Sequence[Latency], figures: Sequence[Figure]) -> str:
    """Simple tables of reStructuredText, with what has to be known about them."""
    parts = []
    if latencies:
        head = ["work", "nodes", *COLUMNS.values(), "of lsyncd", "of tuned", "goal", "reached"]
        parts.append(table([head, *(row for latency in latencies for row in _rows(latency))]))
        parts.append(wrapped(NOTE.format(machine=machine.statement())))
    if figures:
        head = ["measured", "inosync", "beside", "share", "goal", "reached"]
        parts.append(table([head, *map(_figure_row, figures)]))
    return "\n\n".join(parts) + "\n"


def wrapped(text: str) -> str:
    """A paragraph, for docs/performance.rst."""
    return textwrap.fill(" ".join(text.split()), 118, break_long_words=False, break_on_hyphens=False)


def table(rows: Sequence[Sequence[str]]) -> str:
    """The first row is the head. A first cell must not be empty: what is empty there would join the rows."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = "  ".join("=" * width for width in widths)
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in [rule, lines[0], rule, *lines[1:], rule])


def _rows(result: Latency) -> list[list[str]]:
    start = [f"{result.what}, {result.transport}", str(result.nodes)]
    cells = [_cell(result.samples.get(tool, ())) for tool in COLUMNS]
    shares = [share(result.of(LSYNCD)), share(result.of(TUNED))]
    wanted = "; ".join(goal.short for goal in result.goals) or "-"
    got = "; ".join(goals.reached(result.of(goal.of), goal.most) for goal in result.goals) or "-"
    return [[*start, *cells, *shares, wanted, got]]


def _cell(samples: Sequence[float]) -> str:
    return shown(median(samples)) if samples else "-"


def _figure_row(figure: Figure) -> list[str]:
    if figure.most is None:
        goal = reached = "-"
    else:
        goal, reached = f"{figure.most:.2f}", goals.reached(figure.share, figure.most)
    return [figure.what, figure.ours, figure.theirs or "-", share(figure.share), goal, reached]
