"""What a batch has left, as it goes to the master with the report that it is done."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from inosync.changes import Part
from inosync.nodes.messages import Leftovers
from inosync.system import spool

MAX_HELD = 200
"""Trees that a report names as held; it has no room for more beside the longest payload."""


def without_excess(left: Leftovers, held: Iterable[int]) -> tuple[Leftovers, tuple[int, ...]]:
    """Return the leftovers, and the held trees that a report has room for; the others are due as a whole."""
    named = tuple(held)
    excess = tuple(Part(tree, True) for tree in named[MAX_HELD:])
    return (replace(left, due=(*left.due, *excess)) if excess else left), named[:MAX_HELD]


def packed(left: Leftovers, path: str) -> tuple[bytes, str]:
    """Return the leftovers as ``spool.pack`` does.

    Where no file can be written the trees are due as a whole. If these are too many, the path of a file that
    is not there is returned: then the master takes all trees for due.
    """
    if left == Leftovers():
        return b"", ""
    try:
        return spool.pack(left, path)
    except OSError:
        outdated = {part.tree for part in left.outdated}
        trees = {part.tree for parts in left.all() for part in parts}
    whole = (Part(tree, True, ignore_times=tree in outdated) for tree in trees)
    try:
        return spool.pack(Leftovers(tuple(whole)), path)
    except OSError:
        return b"", path
