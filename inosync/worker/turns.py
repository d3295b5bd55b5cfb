"""Turns: two transfers to one node share its ``rspeed``, although rsync cannot change its limit. Pure.

Each has all of the limit, and one of them is stopped (SIGSTOP) while both run. Small changes go first, and
the big file goes on as soon as they are there. If there is always something small, they alternate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from inosync.changes import Lane

TURN_SECONDS = 1.0
"""How long a lane may keep the other one waiting. Longer than rsync's own steps, so that the limit holds;
short beside the timeouts of nodes, which hear nothing from the lane that is stopped."""


@dataclass(frozen=True, slots=True)
class Turns:
    """Whose turn it is. Times are the caller's clock, in seconds."""

    holder: Lane = Lane.FIRST
    """The lane that goes on while both run."""
    used: float = 0.0
    """For how long it has kept the other lane waiting, less the time in which the other lane ran alone."""
    seen_at: float = 0.0
    """When ``used`` was counted."""
    both: bool = False
    """Whether both lanes have had something to send since then."""

    def look(self, both: bool, now: float) -> Turns:
        """Return whose turn it is from now on; ``both``: whether both lanes have something to send."""
        passed = now - self.seen_at
        if not self.both:
            return Turns(Lane.FIRST, max(self.used - passed, 0.0), now, both)
        used = self.used + passed
        if used < TURN_SECONDS:
            return replace(self, used=used, seen_at=now, both=both)
        other = Lane.SECOND if self.holder is Lane.FIRST else Lane.FIRST
        return Turns(other, 0.0, now, both)

    @property
    def stopped(self) -> Lane | None:
        """Return the lane that is to wait."""
        if not self.both:
            return None
        return Lane.SECOND if self.holder is Lane.FIRST else Lane.FIRST

    @property
    def deadline(self) -> float:
        """Return when the turn ends; infinite while nothing waits."""
        return self.seen_at + TURN_SECONDS - self.used if self.both else math.inf
