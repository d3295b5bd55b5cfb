"""Figures as people read them."""

from __future__ import annotations

import math
from collections.abc import Sequence


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


def megabytes(size: float) -> str:
    """A size in bytes as ``12.3 MB``, or ``0.04 MB``."""
    return f"{size / 1e6:.{1 if size >= 1e6 else 2}f} MB"


def ratio(ours: float, theirs: float) -> float | None:
    """What share of theirs ours is; None when there is nothing to compare."""
    return ours / theirs if math.isfinite(ours) and math.isfinite(theirs) and theirs > 0 else None


def share(value: float | None) -> str:
    """A ratio with two digits, or three where two would say little; a dash for none."""
    if value is None:
        return "-"
    return f"{value:.3f}" if value < 0.095 else f"{value:.2f}"


def of_nodes(count: int) -> str:
    """``1 node``, ``10 nodes``."""
    return f"{count} node{'s' * (count != 1)}"
