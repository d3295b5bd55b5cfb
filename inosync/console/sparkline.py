"""The lag of the last hour as a small line: SVG, drawn here, so that a browser needs no script for it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from inosync.console.history import POINTS

WIDTH, HEIGHT = 120, 22
"""In units of the picture, which are pixels on a wide screen."""
TOP = 3600.0
"""The lag, in seconds, that reaches the top."""
_FLOOR = HEIGHT - 1


def height(lag: float) -> int:
    """How far below the top a lag is drawn.

    One scale for all nodes, so that rows can be compared; logarithmic, so that 5 s and half an hour show.
    """
    part = math.log1p(max(lag, 0.0)) / math.log1p(TOP)
    return round(_FLOOR - min(part, 1.0) * (_FLOOR - 1))


def columns(points: Sequence[float]) -> list[float]:
    """The greatest lag for each unit of width, the last one now; NaN where nothing is known."""
    each = POINTS // WIDTH
    padded = [math.nan] * (POINTS - len(points)) + list(points[-POINTS:])
    found = []
    for start in range(0, POINTS, each):
        known = [point for point in padded[start : start + each] if not math.isnan(point)]
        found.append(max(known, default=math.nan))
    return found


def path(points: Sequence[float]) -> str:
    """The outline of the area below the line; one for each stretch without a gap."""
    return "".join(_outline(start, heights) for start, heights in _stretches(columns(points)))


def _stretches(values: Sequence[float]) -> Iterator[tuple[int, list[int]]]:
    heights: list[int] = []
    for at, value in enumerate([*values, math.nan]):
        if not math.isnan(value):
            heights.append(height(value))
        elif heights:
            yield at - len(heights), heights
            heights = []


def _outline(start: int, heights: Sequence[int]) -> str:
    drawn, level = f"M{start} {_FLOOR}", _FLOOR
    for at, now in enumerate(heights, start):
        if now != level:
            drawn += f"H{at}V{now}"
            level = now
    drawn += f"H{start + len(heights)}"
    return drawn + (f"V{_FLOOR}" if level != _FLOOR else "")
