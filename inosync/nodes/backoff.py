"""How long to wait after a failure."""

from __future__ import annotations


def delay(attempt: int, first: float, longest: float, rand: float) -> float:
    """Return the seconds between try ``attempt`` (from 1), which has failed, and the next one.

    Doubles from ``first`` to ``longest``. ``rand`` in [0, 1) takes up to a quarter off, so that
    a hundred nodes behind one broken switch do not all come back in the same second.
    """
    doublings = min(attempt - 1, 64)  # a larger exponent overflows
    return float(min(longest, first * 2.0**doublings) * (1 - rand / 4))
