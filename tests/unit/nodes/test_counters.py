"""What is counted of tries, batches and durations."""

from __future__ import annotations

from inosync.nodes.counters import BOUNDS_SECONDS, Counters, Histogram
from inosync.nodes.messages import Batch, Done, Failed, Unreachable


def test_histogram_counts_each_duration_in_one_bucket() -> None:
    histogram = Histogram()
    for seconds in (0.005, 0.006, 299.0, 301.0):
        histogram.add(seconds)
    assert [count for count in histogram.counts if count] == [1, 1, 1, 1]
    assert (histogram.count, histogram.sum) == (4, 600.011)


def test_histogram_cumulates_up_to_all() -> None:
    histogram = Histogram()
    for seconds in (0.001, 0.02, 1_000.0):
        histogram.add(seconds)
    found = histogram.cumulative()
    assert [bound for bound, _ in found] == [*BOUNDS_SECONDS, None]
    assert (found[0][1], found[2][1], found[-2][1], found[-1][1]) == (1, 2, 2, 3)


def test_failures_are_counted_by_exit_code() -> None:
    counters = Counters()
    counters.count_failure(Failed(1, 1, 12, "no", 1.0, rsyncs=2))
    counters.count_failure(Unreachable(1, -9, "no", 1.0, rsyncs=1))
    counters.count_done(Batch(1, 3, False), Done(1, 0.1, 23, "no"), 2.0)
    assert (counters.failures, counters.rsyncs) == ({"12": 1, "-9": 1, "23": 1}, 3)


def test_full_mirror_has_no_latency() -> None:
    counters = Counters()
    counters.count_done(Batch(1, 3, False), Done(1, 0.1, bytes=7), 2.0)
    counters.count_done(Batch(2, 0, True), Done(2, 0.1, bytes=70), 50.0)
    assert (counters.batches, counters.fulls, counters.paths, counters.bytes) == (2, 1, 3, 77)
    assert (counters.latency.count, counters.latency.sum) == (1, 2.0)


def test_batch_that_was_held_back_is_none() -> None:
    counters = Counters()
    counters.count_done(Batch(1, 3, False), Done(1, 0.1, bytes=7, rsyncs=1, held=(1,)), 2.0)
    assert (counters.batches, counters.paths, counters.latency.count) == (0, 0, 0)
    assert (counters.bytes, counters.rsyncs) == (7, 1)
