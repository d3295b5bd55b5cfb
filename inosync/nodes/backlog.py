"""How far each node is behind."""

from __future__ import annotations

from collections.abc import Callable

from inosync.journal.journal import Journal
from inosync.journal.subscription import Subscription
from inosync.nodes.node import Node


class Backlog:
    """Counts the changes that a node has not confirmed: those in the journal, and those to be retried."""

    def __init__(self, journal: Journal, clock: Callable[[], float]) -> None:
        self.journal = journal
        self._clock = clock
        self._counts: dict[tuple[int, Subscription | None], tuple[int, float | None]] = {}
        """Expensive, so cached by cursor and subscription, while the journal has the head ``_counted_at``."""
        self._counted_at = -1

    def pending(self, node: Node) -> int:
        """Return how many changes the node has not confirmed; unknown ones (a full mirror) count as one."""
        count = self._count(node)[0] + node.retries.count
        return max(count, 1) if node.outstanding is not None else count

    def lag(self, node: Node) -> float:
        """Return the age of the oldest change that the node lacks for whatever reason, in seconds; or 0."""
        times = (self.oldest(node), node.retries.oldest)
        oldest = min((since for since in times if since is not None), default=None)
        return 0.0 if oldest is None else max(self._clock() - oldest, 0.0)

    def oldest(self, node: Node) -> float | None:
        """Return since when something waits that has not failed on this node, by the clock; or None.

        What has failed already makes the node degraded instead.
        """
        times = (self.oldest_in_journal(node), node.retries.oldest_untried)
        return min((since for since in times if since is not None), default=None)

    def oldest_in_journal(self, node: Node) -> float | None:
        """Return when the oldest change in the journal was recorded that the node has not confirmed."""
        if node.subscription.everything:
            return self.journal.oldest_since(node.cursor)
        return self._count(node)[1]

    def _count(self, node: Node) -> tuple[int, float | None]:
        if self._counted_at != self.journal.head:
            self._counts.clear()
            self._counted_at = self.journal.head
        subscription = None if node.subscription.everything else node.subscription
        key = (node.cursor, subscription)
        if key not in self._counts:
            concerns = subscription.concerns if subscription is not None else None
            self._counts[key] = self.journal.backlog(node.cursor, concerns)
        return self._counts[key]
