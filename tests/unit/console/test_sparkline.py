"""The line of the last hour in SVG."""

from __future__ import annotations

import math

from inosync.console import sparkline
from inosync.console.history import MAX_POINTS


def test_path_is_one_outline_for_each_stretch_without_a_gap() -> None:
    assert sparkline.path([]) == ""
    assert sparkline.path([0.0] * MAX_POINTS) == "M0 21H120"
    assert sparkline.path([0.0] * 3) == "M119 21H120"
    assert sparkline.path([0.0] * 6 + [1e9] * 3) == "M117 21H119V1H120V21"
    assert sparkline.path(
        [1e9, math.nan, 1e9, *[math.nan] * 3, 0, 0, 0]
    ) == "M117 21V1H118V21M119 21H120".replace("M117 21V1", "M117 21H117V1")


def test_greater_lag_is_drawn_higher() -> None:
    heights = [sparkline.height(lag) for lag in (0, 1, 5, 60, 600, 3600, 1e9)]
    assert heights == sorted(heights, reverse=True)
    assert heights[0] == sparkline.HEIGHT - 1
    assert len(set(heights)) == 6
