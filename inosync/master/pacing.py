"""When recorded changes are handed out to the nodes: after a quiet moment, or when a flush wants it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from inosync.journal import debounce
from inosync.journal.debounce import Debounce
from inosync.journal.journal import Journal
from inosync.nodes.dispatch import Dispatcher
from inosync.nodes.node import Node
from inosync.watch.watcher import Watcher


@dataclass(slots=True)
class Pacing:
    """Joins the debounce, the journal and the dispatcher. ``nodes`` is the pool's own, by name."""

    nodes: Mapping[str, Node]
    journal: Journal
    dispatch: Dispatcher
    watcher: Watcher
    state: Debounce
    clock: Callable[[], float]
    _seen: int = 0
    """The journal's head when the debounce was last told of changes."""

    @property
    def due(self) -> float:
        """When changes are to be handed out, by the clock; infinite while there are none."""
        due = debounce.due(self.state)
        return math.inf if due is None else due

    def release_if_due(self) -> None:
        """Hand out what has been quiet for long enough. To be called after every look for events."""
        now = self.clock()
        if self.journal.head != self._seen:
            self._seen = self.journal.head
            self.state = debounce.changed(self.state, now)
        if now < self.due:
            return
        first = self.state.first
        if self.watcher.is_walking and first is not None and now < first + self.state.max_delay:
            return  # what is being walked belongs to the same change
        self.release()

    def release(self) -> None:
        """Hand out what there is."""
        self._seen = self.journal.head
        self.state = debounce.release(self.state, self.clock())
        self.dispatch.release_changes()
        for node in self.nodes.values():
            self.dispatch.offer_batch(node)

    def configure(self, quiet: float, max_delay: float) -> None:
        """Follow other settings, in seconds."""
        self.state = debounce.reconfigured(self.state, quiet, max_delay)
