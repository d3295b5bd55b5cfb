"""The lag of the last hour as a small line in SVG, which a browser shows without a script."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from inosync.console.history import MAX_POINTS

WIDTH, HEIGHT = 120, 22
"""In pixels on a wide screen."""
TOP_SECONDS = 3600.0
"""The lag that reaches the top."""
MARKS = ((3600.0, "1 h"), (300.0, "5 min"), (30.0, "30 s"), (3.0, "3 s"), (0.0, "0"))
"""Lags, in seconds, that an axis names."""
_FLOOR = HEIGHT - 1


def height(lag: float) -> int:
    """Return how far below the top a lag is drawn.

    The scale is the same for all nodes, so that they can be compared, and logarithmic, so that 5 s shows.
    """
    part = math.log1p(max(lag, 0.0)) / math.log1p(TOP_SECONDS)
    return round(_FLOOR - min(part, 1.0) * (_FLOOR - 1))


def columns(points: Sequence[float]) -> list[float]:
    """Return the greatest lag for each pixel of width, NaN where it is not known; the last one is now."""
    each = MAX_POINTS // WIDTH
    padded = [math.nan] * (MAX_POINTS - len(points)) + list(points[-MAX_POINTS:])
    found = []
    for start in range(0, MAX_POINTS, each):
        known = [point for point in padded[start : start + each] if not math.isnan(point)]
        found.append(max(known, default=math.nan))
    return found


def path(points: Sequence[float]) -> str:
    """Return the outline of the area below the line, in one piece for each stretch without a gap."""
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
