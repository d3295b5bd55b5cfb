"""Renames beside the journal: hints how nodes may make a new name from what they have at the old one."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

from inosync.changes import Rename

MAX_HINTS = 200
"""Of more only the newest are kept. Each batch that is cut meanwhile carries them."""


@dataclass(frozen=True, slots=True)
class Hint:
    """A rename. Nodes with a cursor from ``since`` on, and before ``left``, have what was renamed."""

    tree: int
    rename: Rename
    since: int
    """The position up to which the old path was recorded as new or changed; 0 if it was not."""
    left: int
    """The position at which it was recorded as gone."""


class RenameHints:
    """The newest hints, oldest first."""

    def __init__(self) -> None:
        self._hints: deque[Hint] = deque(maxlen=MAX_HINTS)

    def add(self, hint: Hint) -> None:
        self._hints.append(hint)

    def drop_confirmed(self, confirmed: int) -> None:
        """Drop what no node can use any more because all have confirmed up to that position."""
        while self._hints and self._hints[0].left <= confirmed:
            self._hints.popleft()

    def drop_tree(self, tree: int) -> None:
        self._hints = deque((hint for hint in self._hints if hint.tree != tree), MAX_HINTS)

    def after(self, cursor: int, upto: float = math.inf) -> dict[int, tuple[Rename, ...]]:
        """Return by tree what a node with this cursor has under another name, in the order to be followed.

        What was renamed after the position ``upto`` is left out.
        """
        found: dict[int, _Moves] = {}
        for hint in self._hints:
            if cursor < hint.left <= upto:
                found.setdefault(hint.tree, _Moves()).follow(hint, cursor)
        return {tree: moves.renames() for tree, moves in found.items() if moves.renames()}


class _Moves:
    """Follows renames of renames: of ``a`` to ``b`` and ``b`` to ``c`` a node that has ``a`` makes ``c``."""

    def __init__(self) -> None:
        self._moves: list[Rename] = []

    def follow(self, hint: Hint, cursor: int) -> None:
        old, new, is_directory = hint.rename.old, hint.rename.new, hint.rename.is_directory
        at = min((hint.rename.at, *(move.at for move in self._moves if _is_within(old, move.new))))
        origin = _origin(old, self._moves)
        if origin is None and hint.since <= cursor:
            origin = old
        # What was at the new path is replaced; what had come below the old one goes along.
        kept = [move for move in self._moves if not _is_within(move.new, new) and move.new != old]
        self._moves = [
            replace(move, new=new + move.new[len(old) :]) if _is_within(move.new, old) else move
            for move in kept
        ]
        if origin is not None and origin != new:
            # What has come into a directory is made before it, or it would be sent with the directory.
            above = (at for at, move in enumerate(self._moves) if _is_within(new, move.new))
            self._moves.insert(next(above, len(self._moves)), Rename(origin, new, is_directory, at))

    def renames(self) -> tuple[Rename, ...]:
        """Return them without those that follow from others."""
        moves = self._moves
        return tuple(m for m in moves if _origin(m.new, [each for each in moves if each is not m]) != m.old)


def _origin(path: bytes, moves: Iterable[Rename]) -> bytes | None:
    """Where what is at a path was before these moves; None if none of them has moved it."""
    above = [move for move in moves if _is_within(path, move.new)]
    if not above:
        return None
    nearest = max(above, key=lambda move: len(move.new))
    return nearest.old + path[len(nearest.new) :]


def _is_within(path: bytes, directory: bytes) -> bool:
    return path == directory or path.startswith(directory + b"/")
