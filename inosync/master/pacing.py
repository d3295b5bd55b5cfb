"""When recorded changes are released to the nodes: after a quiet moment, or when a flush wants it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from inosync.journal import debounce
from inosync.journal.debounce import Debounce
from inosync.journal.journal import Journal
from inosync.nodes.dispatch import Dispatcher
from inosync.watch.watcher import Watcher

WALK_SECONDS = 1.0
"""The longest that changes wait for a walk: what is being walked belongs to the same change."""


@dataclass(slots=True)
class Pacing:
    """Releases the journal's changes to the dispatcher when the debounce says so."""

    journal: Journal
    dispatch: Dispatcher
    watcher: Watcher
    state: Debounce
    clock: Callable[[], float]
    _seen: int = 0
    """The journal's head when the debounce was last told of changes."""

    @property
    def due(self) -> float:
        """When changes are to be released, by the clock; infinite while there are none."""
        due = debounce.due(self.state)
        return math.inf if due is None else due

    def release_if_due(self) -> None:
        """Release what has been quiet for long enough. To be called after every look for events."""
        now = self.clock()
        if self.journal.head != self._seen:
            self._seen = self.journal.head
            self.state = debounce.changed(self.state, now)
        if now < self.due:
            return
        first, longest = self.state.first, min(WALK_SECONDS, self.state.max_delay)
        if not (self.watcher.is_walking and first is not None and now < first + longest):
            self._release()

    def release(self) -> None:
        """Release what there is, and have it sent whatever earlier batches have cost."""
        self._release(at_once=True)

    def _release(self, at_once: bool = False) -> None:
        self._seen = self.journal.head
        self.state = debounce.release(self.state)
        self.dispatch.release_changes(at_once)

    def configure(self, quiet: float, max_delay: float) -> None:
        self.state = debounce.reconfigured(self.state, quiet, max_delay)
