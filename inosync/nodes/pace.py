"""How soon a node gets its next batch: at once, unless batches take too much of this machine. Pure.

A node's own batches set its rhythm: what changes while one is on its way goes with the next one. Above that
there is one budget. While batches take more than their share of the processors, each node gets its next
batch when its last one is paid for: the dearer that one was, the later. Times are arguments, by one clock, in
seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

SHARE = 0.5
"""The share of this machine's processors that batches may take for long."""
BURST_SECONDS = 3.0
"""What they may take at once: their share of so much time."""
SLOPE = 0.1
"""From no pause to full ones they take so much more than that: without a slope, pauses would flap."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a batch has cost."""

    cpu: float
    """Processor time of this machine, in seconds."""
    began: float
    """When the batch was sent."""
    ended: float
    """When it was confirmed."""


class Pace:
    """The budget. ``processors`` are those of this machine; no pause is longer than ``longest``."""

    def __init__(self, processors: int, longest: float) -> None:
        self._allowed = SHARE * processors
        """Processor time that batches may take, in seconds for each second."""
        self._longest = longest
        self._debt = 0.0
        """Processor time, in seconds, that was taken and not paid for yet at the time ``_counted_at``."""
        self._counted_at = -math.inf
        self._lifted_at = -math.inf
        """Batches that were confirmed by then are followed by no pause."""

    def set_longest(self, seconds: float) -> None:
        self._longest = seconds

    def spend(self, cost: Cost) -> None:
        """Count a batch that was confirmed just now."""
        now = cost.ended
        # What a long transfer took before that was paid for meanwhile: it is no burst at its end.
        taken = cost.cpu * min(1.0, BURST_SECONDS / max(now - cost.began, BURST_SECONDS))
        # What is not paid for after the longest pause is forgotten.
        most = (BURST_SECONDS * (1 + SLOPE) + self._longest) * self._allowed
        self._debt, self._counted_at = min(self._owed(now) + taken, most), now

    def load(self, now: float) -> float:
        """Return what batches take, in what they may take at once: above 1 they are followed by pauses."""
        return self._owed(now) / (BURST_SECONDS * self._allowed)

    def next_at(self, last: Cost, nodes: int, now: float) -> float:
        """Return when the node with this last batch gets its next one, as far as can be said now.

        No node waits longer than it takes to pay for its last batch with an equal part of what is allowed:
        ``nodes`` share that. So a node with cheap batches is not held up by others with dear ones.
        """
        excess = min((self.load(now) - 1) / SLOPE, 1.0)
        if excess <= 0 or last.ended <= self._lifted_at:
            return last.ended
        paid_at = last.began + excess * last.cpu * nodes / self._allowed
        return min(max(paid_at, last.ended), last.ended + self._longest)

    def lift(self, now: float) -> None:
        """Let no batch that was confirmed by now be followed by a pause."""
        self._lifted_at = now

    def _owed(self, now: float) -> float:
        return max(self._debt - self._allowed * max(now - self._counted_at, 0.0), 0.0)
