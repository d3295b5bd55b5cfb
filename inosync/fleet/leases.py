"""How long a sender may rely on a lease. Pure; times in seconds, by the machine's own clock.

The clock must count the time in which the machine sleeps (CLOCK_BOOTTIME). It may be wrong by ``DRIFT``, and
so may the clock of Redis, in the other direction. No two clocks are ever compared.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

TTL_SECONDS = 15.0
"""After so long without a renewal Redis forgets a lease."""
RENEW_SECONDS = 5.0
STOP_SECONDS = 2.0
"""How long it may take to end a transfer, with everything that it has started."""
LATE_SECONDS = 2 * TTL_SECONDS
"""A sender whose copy lacks what others have had for so long leaves its nodes to them."""
DRIFT = 0.05
"""How much faster or slower than true time a clock may run."""
HOLD_SECONDS = TTL_SECONDS * (1 - DRIFT) / (1 + DRIFT)
"""A lease lasts so long by the own clock, even if that is the slowest, and that of Redis the fastest."""
QUARANTINE_SECONDS = TTL_SECONDS * (1 + DRIFT) / (1 - DRIFT)
"""The lease of another sender is over by then, even if the own clock is the fastest, and its the slowest."""


class LeasePhase(enum.Enum):
    """What a sender has to do about a lease."""

    HELD = "held"
    RENEW = "renew"
    """It can be relied on, and a renewal is due."""
    STOP = "stop"
    """What runs for the node has to be ended now."""
    OVER = "over"
    """Another sender may have it: nothing may be written to the node."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease that Redis has confirmed."""

    value: bytes
    """Different for each lease that is taken: a request that Redis executes late fits no later one."""
    asked_at: float
    """When the request was sent that was confirmed last; never when its answer came."""

    @property
    def stop_at(self) -> float:
        """When what runs for the node has to be ended."""
        return self.over_at - STOP_SECONDS

    @property
    def over_at(self) -> float:
        """When Redis may forget the lease, at the earliest."""
        return self.asked_at + HOLD_SECONDS

    def phase(self, now: float) -> LeasePhase:
        """Return what has to be done now."""
        if now >= self.over_at:
            return LeasePhase.OVER
        if now >= self.stop_at:
            return LeasePhase.STOP
        return LeasePhase.RENEW if now >= self.asked_at + RENEW_SECONDS else LeasePhase.HELD

    def renewed(self, asked_at: float, answered_at: float) -> Lease | None:
        """Return the lease after a confirmed renewal; None if the answer came after the lease was over.

        What was ended is not begun anew with the old lease: another sender may have had the node meanwhile.
        """
        if answered_at >= self.over_at:
            return None
        return Lease(self.value, max(self.asked_at, asked_at))


def taken(value: bytes, asked_at: float, answered_at: float) -> Lease | None:
    """Return a lease that Redis has granted; None if the answer came so late that it is no use."""
    lease = Lease(value, asked_at)
    return lease if lease.phase(answered_at) in (LeasePhase.HELD, LeasePhase.RENEW) else None


def may_take_at(met_at: float) -> float:
    """Return when leases may be taken from an instance of Redis that was first met at a time.

    A Redis that was restarted, or that another has taken over from, may have lost leases that are in use.
    """
    return met_at + QUARANTINE_SECONDS
