"""What has happened to one node since the daemon started: counts, which only grow."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

from inosync.changes import Lane
from inosync.nodes.messages import Batch, Done, Failed, HookFinished, Unreachable

BOUNDS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""The upper ends of the buckets of a ``Histogram``; one more bucket has no end."""


@dataclass(slots=True)
class Histogram:
    """How often something took how long."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_SECONDS) + 1))
    """By bucket, each without those below it."""
    sum: float = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS_SECONDS, seconds)] += 1
        self.sum += seconds

    @property
    def count(self) -> int:
        return sum(self.counts)

    def cumulative(self) -> list[tuple[float | None, int]]:
        """Return (seconds, how many took at most that); the last is (None, all)."""
        total, found = 0, []
        for bound, count in zip((*BOUNDS_SECONDS, None), self.counts, strict=True):
            total += count
            found.append((bound, total))
        return found


@dataclass(slots=True)
class Counters:
    """The counts of a node; they survive its workers, and reloads."""

    batches: int = 0
    """Batches and full mirrors that were done."""
    fulls: int = 0
    paths: int = 0
    bytes: int = 0
    """What rsync said that it had sent and received."""
    renamed_bytes: int = 0
    """What was not sent because the node had it under another name."""
    rsyncs: int = 0
    deaths: int = 0
    """Workers that ended without being told to."""
    hooks: int = 0
    hook_failures: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    """Tries that failed, and batches that left something undone, by the exit code of rsync: a number,
    negative for a signal, 0 if rsync did not even start."""
    latency: Histogram = field(default_factory=Histogram)
    """Seconds from reading the oldest change of a batch until the batch was done."""

    def count_death(self) -> None:
        self.deaths += 1

    def count_hook(self, report: HookFinished) -> None:
        self.hooks += 1
        self.hook_failures += bool(report.reason)

    def count_failure(self, report: Failed | Unreachable) -> None:
        self.rsyncs += report.rsyncs
        self.failures[str(report.code)] += 1

    def count_done(self, batch: Batch, report: Done, seconds: float) -> None:
        """Count a batch that is done. ``seconds``: since its oldest change was read."""
        self.rsyncs += report.rsyncs
        self.bytes += report.bytes
        self.renamed_bytes += report.renamed_bytes
        if report.code:
            self.failures[str(report.code)] += 1
        if report.held or (report.code and batch.lane is Lane.SECOND):  # there nothing is tried again
            return
        self.batches += 1
        self.paths += batch.count
        if batch.full:
            self.fulls += 1
        else:
            self.latency.add(max(seconds, 0.0))
