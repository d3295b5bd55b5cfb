"""When a worker that reads no orders has hung; time and workers are played."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inosync.nodes.watchdog import (
    LONGEST_PATIENCE_SECONDS,
    MAX_GAP_SECONDS,
    MAX_PATIENCE_SECONDS,
    MIN_PATIENCE_SECONDS,
    Finding,
    HangDetector,
    patience,
    start,
)

PING = 50
"""Bytes of an order."""


class Worker:
    """A worker and what checks it. ``takes``: whether it reads its orders, at once."""

    def __init__(self, patience: float = 60.0, rand: float = 0.0) -> None:
        self.patience, self.rand = patience, rand
        self.now = 1_000.0
        self.written = self.taken = self.pinged = 0
        self.takes = True
        self.detector: HangDetector = start(self.now, patience, rand)

    def order(self) -> None:
        self.written += PING
        if self.takes:
            self.taken = self.written

    def check(self) -> Finding:
        unread = self.written - self.taken
        self.detector, finding = self.detector.check(self.now, self.taken, unread, self.patience, self.rand)
        if finding is Finding.QUIET:
            self.pinged += 1
            self.order()
        return finding

    def live(self, seconds: float, every: float = 1.0) -> float | None:
        """Check for so long; return the seconds until it had hung, None if it has not."""
        began = self.now
        while self.now < began + seconds:
            self.now += every
            if self.check() is Finding.HUNG:
                return self.now - began
        return None


@pytest.mark.parametrize("rand", [0.0, 0.99])
def test_worker_that_reads_is_pinged_at_times_and_never_hung(rand: float) -> None:
    worker = Worker(rand=rand)
    assert worker.live(3600) is None
    assert 60 <= worker.pinged <= 4 * 60


def test_unread_order_means_hung_after_the_patience() -> None:
    worker = Worker()
    worker.takes = False
    worker.order()
    assert worker.live(1000) == pytest.approx(60, abs=2)
    assert worker.pinged == 0


def test_idle_worker_that_hangs_is_found_by_one_ping() -> None:
    worker = Worker()
    worker.takes = False
    assert worker.live(1000) == pytest.approx(90, abs=3)
    assert worker.pinged == 1


def test_worker_that_reads_in_time_starts_anew() -> None:
    worker = Worker()
    for _ in range(10):
        worker.takes = False
        worker.order()
        assert worker.live(50) is None
        worker.takes, worker.taken = True, worker.written
        assert worker.live(5) is None


def test_worker_that_reads_a_little_now_and_then_lives() -> None:
    worker = Worker()
    worker.takes = False
    worker.written = 1000 * PING
    for _ in range(100):
        assert worker.live(50) is None
        worker.taken += PING
    assert worker.live(1000) == pytest.approx(60, abs=2)


def test_time_without_checks_does_not_count() -> None:
    worker = Worker()
    worker.takes = False
    worker.order()
    assert worker.live(30) is None
    worker.now += 100_000  # the master was stopped, or the machine frozen
    assert worker.check() is Finding.FINE
    worker.taken = worker.written  # the worker, too, is awake only now
    worker.takes = True
    assert worker.live(1000) is None


def test_patience_lasts_longer_where_checks_are_rare() -> None:
    worker = Worker()
    worker.takes = False
    worker.order()
    given_up = worker.live(10_000, every=10.0)
    assert given_up is not None
    assert given_up >= 60 / MAX_GAP_SECONDS * 10


def test_clock_that_goes_back_does_no_harm() -> None:
    worker = Worker()
    worker.takes = False
    worker.order()
    assert worker.live(30) is None
    worker.now -= 500
    assert worker.live(1000) == pytest.approx(30, abs=3)


@pytest.mark.parametrize(
    ("timeout", "hangs", "seconds"),
    [
        (300, 0, MAX_PATIENCE_SECONDS),
        (0, 0, MAX_PATIENCE_SECONDS),
        (30, 0, 30),
        (0.5, 0, MIN_PATIENCE_SECONDS),
        (300, 1, 2 * MAX_PATIENCE_SECONDS),
        (300, 3, 8 * MAX_PATIENCE_SECONDS),
        (300, 1000, LONGEST_PATIENCE_SECONDS),
        (1, 1000, LONGEST_PATIENCE_SECONDS),
    ],
)
def test_patience_follows_the_timeout_and_grows(timeout: float, hangs: int, seconds: float) -> None:
    assert patience(timeout, hangs) == seconds


@given(
    steps=st.lists(
        st.tuples(
            st.floats(0, 1000),
            st.sampled_from(["order", "take all", "take some", "nothing"]),
        ),
        max_size=60,
    ),
    rand=st.floats(0, 1, exclude_max=True),
)
def test_hung_is_only_what_was_seen_unread_for_the_patience(
    steps: list[tuple[float, str]], rand: float
) -> None:
    worker = Worker(MIN_PATIENCE_SECONDS, rand)
    worker.takes = False
    seen, unread_since_check = 0.0, False
    for pause, what in steps:
        match what:
            case "order":
                worker.order()
            case "take all":
                worker.taken = worker.written
            case "take some" if worker.taken < worker.written:
                worker.taken += PING
        before = worker.detector.taken
        worker.now += pause
        unread = worker.written > worker.taken
        unread_since_check = unread and worker.taken == before
        seen = seen + min(pause, MAX_GAP_SECONDS) if unread_since_check else 0.0
        pinged = worker.pinged
        finding = worker.check()
        assert (finding is Finding.HUNG) == (unread_since_check and seen >= MIN_PATIENCE_SECONDS)
        # What means nothing is never sent on top of what is unread, so it cannot fill the queue.
        assert worker.pinged == pinged or not unread
