"""Medians, ratios, and the table for the README."""

from __future__ import annotations

import math
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

OURS = "inosync"
"""How the names of our own tools begin."""

Samples = Mapping[str, Sequence[float]]
"""Seconds, by tool."""


@dataclass(frozen=True)
class Result:
    """What was measured of one work."""

    work: str
    transport: str
    nodes: int
    samples: Samples


def p90(samples: Sequence[float]) -> float:
    """What nine of ten samples do not exceed."""
    return sorted(samples)[math.ceil(0.9 * len(samples)) - 1]


def shown(seconds: float) -> str:
    """A duration with three digits or so: ``3.1 ms``, ``250 ms``, ``4.20 s``."""
    if math.isinf(seconds):
        return "never"
    if seconds < 1:
        return f"{seconds * 1000:.{0 if seconds >= 0.1 else 1}f} ms"
    return f"{seconds:.{2 if seconds < 10 else 1}f} s"


def ratio(ours: float, theirs: float) -> str:
    """What share of theirs ours is; a dash when there is nothing to compare."""
    return f"{ours / theirs:.2f}" if math.isfinite(ours) and math.isfinite(theirs) else "-"


def text(result: Result) -> str:
    """A line for each tool; the ratios are those of the fastest inosync's median to its."""
    ours = _ours(result)
    lines = [f"{result.work}, {result.transport}, {result.nodes} node{'s' * (result.nodes != 1)}"]
    for tool, samples in result.samples.items():
        middle = median(samples)
        line = f"  {tool:22} median {shown(middle):>8}   p90 {shown(p90(samples)):>8}   n {len(samples):3}"
        if not tool.startswith(OURS):
            line += f"   inosync takes {ratio(ours, middle)} of it"
        lines.append(line)
    return "\n".join(lines)


def rst(results: Sequence[Result]) -> str:
    """A simple table of reStructuredText, with a line below it that tells what is in it."""
    # Words that only one transport knows share a column; the rows say which transport it is.
    tools = list(dict.fromkeys(tool for result in results for tool in map(_column, result.samples)))
    rows = [["work", "nodes", *tools]]
    for result in results:
        cells = {_column(tool): _cell(tool, samples, result) for tool, samples in result.samples.items()}
        start = [f"{result.work}, {result.transport}", str(result.nodes)]
        rows.append(start + [cells.get(tool, "-") for tool in tools])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = "  ".join("=" * width for width in widths)
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    table = [rule, lines[0], rule, *lines[1:], rule]
    return "\n".join([*(line.rstrip() for line in table), "", _conditions(), ""])


def _column(tool: str) -> str:
    return "lsyncd, tuned" if tool in ("lsyncd, ControlMaster", "lsyncd, TCP_NODELAY") else tool


def _cell(tool: str, samples: Sequence[float], result: Result) -> str:
    middle = median(samples)
    cell = shown(middle)
    if len(samples) >= 10:
        cell += f" ({shown(p90(samples))})"
    return cell if tool.startswith(OURS) else f"{cell}: {ratio(_ours(result), middle)}"


def _ours(result: Result) -> float:
    """The lower median, where there are two of ours."""
    return min(median(samples) for tool, samples in result.samples.items() if tool.startswith(OURS))


def _conditions() -> str:
    said = subprocess.run(["rsync", "--version"], capture_output=True, text=True, check=True).stdout
    rsync = " ".join(said.split()[:3])
    system = f"Linux {platform.release().partition('-')[0]}, Python {platform.python_version()}, {rsync}"
    return (
        "Median (p90): what share of it inosync takes, the faster one where there are two. Everything runs "
        f"on the same {os.cpu_count()} processors, the nodes too; {system}. lsyncd has delay = 0 where "
        "nothing else is said; tuned is with ControlMaster over ssh, and with TCP_NODELAY to a daemon."
    )
