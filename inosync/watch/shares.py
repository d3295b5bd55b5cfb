"""How processes share a list without asking one another: one goes up, the others come down to it. Pure.

Each share of the list belongs to a scout, which begins at its end. The watcher begins at its first item, goes
on through all shares, and leaves out what a scout has done. So a scout that is late, hangs or dies costs
nothing but its help.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

MAX_SCOUTS = 3
MIN_ITEMS = 300
"""Fewer directories are not worth the fork of a scout: some milliseconds."""


@dataclass(slots=True)
class Stretch:
    """The items of a scout: from ``first`` up to ``end``, which is not one of them."""

    first: int
    end: int
    left: int
    """The scout has done this one and all after it."""


def divide(items: int, processors: int) -> list[Stretch]:
    """Return the shares of a list of so many items; none if scouts would not help."""
    count = max(min(processors - 1, MAX_SCOUTS, items // MIN_ITEMS), 0)
    bounds = [items * number // count for number in range(count + 1)] if count else []
    return [Stretch(first, end, end) for first, end in pairwise(bounds)]


def skip_done(at: int, shares: Iterable[Stretch]) -> int:
    """Return the next item from ``at`` on that is in no share, or that its scout has not done."""
    for share in shares:  # in their order
        if share.left <= at < share.end:
            at = share.end
    return at
