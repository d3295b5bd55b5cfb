"""Slots: the right to run one heavy transfer, given in the order of asking. Pure; times are arguments."""

from __future__ import annotations

from typing import Generic, TypeVar

HOLD_SECONDS = 30.0
"""Seconds after which a slot is free again although its transfer still runs. Slots spare the processors and
disks of this machine; a long transfer mostly waits for its node, and must not hold up the other nodes."""

Holder = TypeVar("Holder")


class Slots(Generic[Holder]):
    """``limit`` transfers at once, those of the last ``HOLD_SECONDS``."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._taken_at: dict[Holder, float] = {}
        self._queue: dict[Holder, None] = {}
        """The holders that wait, in the order of asking."""

    @property
    def queue(self) -> tuple[Holder, ...]:
        """Return the holders that wait, the one that has waited longest first."""
        return tuple(self._queue)

    def is_waiting(self, holder: Holder) -> bool:
        return holder in self._queue

    def free(self, now: float) -> int:
        return max(self.limit - len(self._hold_ends(now)), 0)

    def next_free_at(self, now: float) -> float:
        """Return when a slot is free at the latest; ``now`` if none is taken."""
        return min(self._hold_ends(now), default=now)

    def is_turn_of(self, holder: Holder, now: float) -> bool:
        """Return whether the holder would get a slot."""
        return self.free(now) > 0 and next(iter(self._queue), holder) == holder

    def take(self, holder: Holder, now: float) -> bool:
        """Give the holder a slot if it is its turn; otherwise it waits for one."""
        if not self.is_turn_of(holder, now):
            self._queue.setdefault(holder)
            return False
        self.stop_waiting(holder)
        self._taken_at[holder] = now
        return True

    def stop_waiting(self, holder: Holder) -> None:
        """Take the holder out of the queue; harmless if it is not in it."""
        self._queue.pop(holder, None)

    def give_back(self, holder: Holder) -> bool:
        """Free the holder's slot; return whether it had one."""
        return self._taken_at.pop(holder, None) is not None

    def _hold_ends(self, now: float) -> list[float]:
        ends = (taken_at + HOLD_SECONDS for taken_at in self._taken_at.values())
        return [end for end in ends if end > now]
