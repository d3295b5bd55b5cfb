"""Who hears of changes."""

from __future__ import annotations

from typing import Protocol

from inosync.messages import Change


class ChangeListener(Protocol):
    """Who is told what the trees are like. ``now`` is when that was seen."""

    def record(self, change: Change, now: float) -> None:
        """A path may differ."""

    def gone(self, tree: int, path: bytes, now: float) -> None:
        """What was there is not there any more, subtree and all."""

    def walked(self, tree: int, now: float) -> None:
        """Every directory of the tree is watched: it can be compared whole."""

    def refiltered(self, tree: int, now: float) -> None:
        """Every directory that the new rules do not exclude is watched: it can be compared by them."""

    def lost(self, tree: int, why: str) -> None:
        """The root is not what it was. ``walked`` follows when it is back."""
