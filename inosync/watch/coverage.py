"""How well the trees are watched: what has no watch, and since when there may be unseen changes in it."""

from __future__ import annotations

from collections.abc import Collection

from inosync.watch.poller import Poller
from inosync.watch.watches import Watches


class Coverage:
    """Answers for trees by their numbers. All times are by the clock."""

    def __init__(self, watches: Watches, poller: Poller) -> None:
        self._watches, self._poller = watches, poller

    @property
    def directories(self) -> int:
        """How many directories are watched."""
        return len(self._watches.by_wd)

    def unwatched(self, trees: Collection[int] | None = None) -> tuple[int, str]:
        """Return how many directories of these trees (None: of all) are unwatched, and why most are."""
        count, why = self._watches.unwatched.of(trees)
        return count, self._watches.with_help(why)

    def unreadable(self, trees: Collection[int]) -> int:
        """Return how many directories of these trees are neither watched nor polled."""
        return self._watches.unwatched.unreadable(trees)

    def unseen_since(self, trees: Collection[int]) -> float | None:
        """Since when there may be unseen changes in directories of these trees; None if all are watched."""
        return self._watches.unwatched.unseen_since(trees, self._poller.covered_since)

    def has_polled(self, trees: Collection[int], since: float) -> bool:
        """Return whether unwatched directories of these trees were compared since; if not, they soon are."""
        return not self._watches.unwatched.of(trees)[0] or self._poller.has_covered(since)

    @property
    def polled_since(self) -> float | None:
        """Since when unwatched directories were compared; None if all are watched."""
        return self._poller.covered_since if self._watches.unwatched else None
