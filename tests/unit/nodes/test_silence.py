"""When a worker that takes no orders is given up: the time is played, and so are the workers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inosync.nodes.silence import GAP, LEAST, LONGEST, MOST, HangDetector, HangFinding, look, patience, start

PING = 50
"""Bytes of an order."""


class Worker:
    """A worker and whoever looks at it. ``takes``: whether it takes its orders, at once."""

    def __init__(self, patience: float = 60.0, rand: float = 0.0) -> None:
        self.patience, self.rand = patience, rand
        self.now = 1_000.0
        self.written = self.taken = self.asked = 0
        self.takes = True
        self.silence: HangDetector = start(self.now, patience, rand)

    def order(self) -> None:
        self.written += PING
        if self.takes:
            self.taken = self.written

    def look(self) -> HangFinding:
        unread = self.written - self.taken
        self.silence, finding = look(self.silence, self.now, self.taken, unread, self.patience, self.rand)
        if finding is HangFinding.ASK:
            self.asked += 1
            self.order()
        return finding

    def live(self, seconds: float, every: float = 1.0) -> float | None:
        """Look again and again; for how long until it was given up, None if it was not."""
        began = self.now
        while self.now < began + seconds:
            self.now += every
            if self.look() is HangFinding.GIVE_UP:
                return self.now - began
        return None


@pytest.mark.parametrize("rand", [0.0, 0.99])
def test_one_that_takes_its_orders_is_asked_a_few_times_a_minute_and_never_given_up(rand: float) -> None:
    worker = Worker(rand=rand)
    assert worker.live(3600) is None
    assert 60 <= worker.asked <= 4 * 60


def test_one_that_is_sent_something_is_given_up_when_the_patience_is_over() -> None:
    worker = Worker()
    worker.takes = False
    worker.order()
    assert worker.live(1000) == pytest.approx(60, abs=2)
    assert worker.asked == 0


def test_one_that_is_sent_nothing_is_asked_once_and_given_up() -> None:
    worker = Worker()
    worker.takes = False
    assert worker.live(1000) == pytest.approx(90, abs=3)
    assert worker.asked == 1


def test_one_that_goes_on_in_time_is_not_blamed_for_what_was() -> None:
    worker = Worker()
    for _ in range(10):
        worker.takes = False
        worker.order()
        assert worker.live(50) is None
        worker.takes, worker.taken = True, worker.written
        assert worker.live(5) is None


def test_one_that_takes_a_little_now_and_then_lives() -> None:
    worker = Worker()
    worker.takes = False
    worker.written = 1000 * PING
    for _ in range(100):
        assert worker.live(50) is None
        worker.taken += PING
    assert worker.live(1000) == pytest.approx(60, abs=2)


def test_time_in_which_nobody_looked_is_no_silence() -> None:
    worker = Worker()
    worker.takes = False
    worker.order()
    assert worker.live(30) is None
    worker.now += 100_000  # the master was stopped, or the machine frozen
    assert worker.look() is HangFinding.FINE
    worker.taken = worker.written  # the worker, too, is awake only now
    worker.takes = True
    assert worker.live(1000) is None


def test_where_looks_are_rare_patience_lasts_longer() -> None:
    worker = Worker()
    worker.takes = False
    worker.order()
    given_up = worker.live(10_000, every=10.0)
    assert given_up is not None
    assert given_up >= 60 / GAP * 10


def test_a_clock_that_goes_back_does_no_harm() -> None:
    worker = Worker()
    worker.takes = False
    worker.order()
    assert worker.live(30) is None
    worker.now -= 500
    assert worker.live(1000) == pytest.approx(30, abs=3)


@pytest.mark.parametrize(
    ("timeout", "silences", "seconds"),
    [
        (300, 0, MOST),
        (0, 0, MOST),
        (30, 0, 30),
        (0.5, 0, LEAST),
        (300, 1, 2 * MOST),
        (300, 3, 8 * MOST),
        (300, 1000, LONGEST),
        (1, 1000, LONGEST),
    ],
)
def test_patience_follows_the_timeout_and_grows(timeout: float, silences: int, seconds: float) -> None:
    assert patience(timeout, silences) == seconds


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
def test_nobody_is_given_up_before_he_was_silent_for_as_long_as_we_looked(
    steps: list[tuple[float, str]], rand: float
) -> None:
    worker = Worker(LEAST, rand)
    worker.takes = False
    seen, silent_since_look = 0.0, False
    for pause, what in steps:
        match what:
            case "order":
                worker.order()
            case "take all":
                worker.taken = worker.written
            case "take some" if worker.taken < worker.written:
                worker.taken += PING
        before = worker.silence.taken
        worker.now += pause
        unread = worker.written > worker.taken
        silent_since_look = unread and worker.taken == before
        seen = seen + min(pause, GAP) if silent_since_look else 0.0
        asked = worker.asked
        finding = worker.look()
        assert (finding is HangFinding.GIVE_UP) == (silent_since_look and seen >= LEAST)
        # What means nothing is never sent on top of what is unread, so it cannot fill the queue.
        assert worker.asked == asked or not unread
