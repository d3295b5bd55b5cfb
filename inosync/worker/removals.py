"""What a node would lose by a batch: of a directory that is gone, only the node knows how much was in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce

from inosync.changes import Allowance, Rename
from inosync.filters.rules import Excluded
from inosync.guard.removals import common_directory
from inosync.rsync.itemize import Difference
from inosync.rsync.names import CurrentNames
from inosync.system import entries


def to_be_counted(current: CurrentNames, renames: Iterable[Rename]) -> tuple[bytes, ...]:
    """Return the names that remove something, but for those that have another name now."""
    new = {rename.old: rename.new for rename in renames}

    def is_renamed(name: bytes) -> bool:
        seen = set[bytes]()
        while name in new and name not in seen:
            seen.add(name)
            name = new[name]
        return name not in current.missing and bool(seen)

    return tuple(
        name
        for name in current.send
        if name in current.removing or (name in current.missing and not is_renamed(name))
    )


def removed(differences: Iterable[Difference], further: int) -> int:
    """Return how many entries the node would lose, of these differences and so many that are not known."""
    return sum(found.extra for found in differences) + further


def are_allowed(count: int, allowance: Allowance, source: str, excluded: Excluded) -> bool:
    if count <= allowance.count:
        return True
    needed = count * allowance.left_for_each
    return needed > 0 and entries.count_below(source, excluded, int(needed) + 1) >= needed


def place(names: Sequence[bytes]) -> bytes:
    """Return the directory that all of the names are in, or the only name."""
    return reduce(common_directory, (name.rstrip(b"/") for name in names))
