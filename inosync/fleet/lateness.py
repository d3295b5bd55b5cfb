"""Whether a sender's copy stays behind those of other senders: a full disk, a slow line. Pure.

Such a sender leaves its nodes to the others. No clock is compared with another one: a sender notes, by its
own clock, when it has seen that another one had something.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

MARK_SECONDS = 1.0
"""The shortest time between two positions that are noted."""
MAX_MARKS = 120


@dataclass(slots=True)
class Lateness:
    """What others have had, and this sender lacks. Times in seconds, by its own clock."""

    is_late: bool = False
    _marks: list[tuple[float, int]] = field(default_factory=list)
    """When another sender was seen at a position that this one has not reached; the oldest first."""

    def note(self, now: float, mine: int, others: Iterable[int], limit: float) -> bool:
        """Return whether this sender is late: it lacks what others have had for ``limit`` seconds.

        ``others``: the positions of the senders that may serve its nodes; without them it is never late. A
        late sender stays late until what it lacks is younger than a third of ``limit``.
        """
        best = max(others, default=None)
        self._marks = [] if best is None else [mark for mark in self._marks if mark[1] > mine]
        if best is not None and best > mine and self._may_mark(now, best):
            self._marks.append((now, best))
        seconds = now - self._marks[0][0] if self._marks else 0.0
        self.is_late = seconds >= (limit / 3 if self.is_late else limit)
        return self.is_late

    def _may_mark(self, now: float, best: int) -> bool:
        if not self._marks:
            return True
        at, position = self._marks[-1]
        return best > position and now >= at + MARK_SECONDS and len(self._marks) < MAX_MARKS
