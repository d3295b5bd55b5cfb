"""What has happened to one node since the daemon began: counts, which only grow."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Seconds, the upper ends of the classes of a ``Histogram``; there is one more class, without an end."""


@dataclass(slots=True)
class Histogram:
    """How often something took how long."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    """By class, each without those below it."""
    sum: float = 0.0
    """Seconds."""

    def add(self, seconds: float) -> None:
        """It took so long once more."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds

    @property
    def count(self) -> int:
        """How often it was counted."""
        return sum(self.counts)

    def cumulative(self) -> list[tuple[float | None, int]]:
        """(seconds, how often it took at most that); the last is (None, always)."""
        total, found = 0, []
        for bound, count in zip((*BOUNDS, None), self.counts, strict=True):
            total += count
            found.append((bound, total))
        return found


@dataclass(slots=True)
class Counters:
    """The counts of a node; they survive its workers, and reloads."""

    batches: int = 0
    """Batches and full mirrors that came through."""
    fulls: int = 0
    """The full mirrors among them."""
    paths: int = 0
    """Names in batches that came through."""
    bytes: int = 0
    """What rsync said that it had sent and received for them."""
    rsyncs: int = 0
    """Starts of rsync, for whatever."""
    deaths: int = 0
    """Workers that have ended without being told to."""
    hooks: int = 0
    """Hooks that have ended ..."""
    hook_failures: int = 0
    """... and those of them that were no success."""
    failures: Counter[str] = field(default_factory=Counter)
    """Tries that failed, and batches that left something undone, by the exit code of rsync: a number,
    negative for a signal, 0 if it did not even start."""
    latency: Histogram = field(default_factory=Histogram)
    """Seconds from when the oldest change of a batch was read until the node had confirmed it."""
