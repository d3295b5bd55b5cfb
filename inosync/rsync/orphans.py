"""The processes that an rsync leaves behind when it dies."""

from __future__ import annotations

import signal
from collections.abc import Iterable

from inosync.system import process
from inosync.system.loop import Loop

KILL_AFTER_SECONDS = 2.0
"""The age at which an orphan is killed."""
_POLL_SECONDS = 0.02
"""The time between two checks whether an orphan has ended: nothing reports that."""


class OrphanReaper:
    """Ends them. They become ours: we are a subreaper."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._seen_at: dict[int, float] = {}
        """When each orphan was first seen."""
        self._asked: set[int] = set()
        """Orphans that were asked to end."""

    def reap(self, known: Iterable[int]) -> bool:
        """End all children but the ``known`` ones; return whether none is left. If not, the loop wakes soon.

        They become ours when a child of ours ends, as a rule: only then there is something to do.

        A receiver gets the time to remove its temporary file. An orphan is left alone at first: one that ssh
        leaves for sharing has its title only a moment later (``process.is_left_for_sharing``).
        """
        now = self._loop.clock()
        self._seen_at = {pid: self._seen_at.get(pid, now) for pid in process.orphans(known)}
        ages = {pid: now - seen_at for pid, seen_at in self._seen_at.items()}
        to_end = {pid for pid, age in ages.items() if age >= _POLL_SECONDS}
        process.send(to_end - self._asked, signal.SIGTERM)
        process.send([pid for pid, age in ages.items() if age >= KILL_AFTER_SECONDS], signal.SIGKILL)
        self._asked = to_end
        if ages:
            self._loop.call_at(now + _POLL_SECONDS, lambda: None)
        return not ages
