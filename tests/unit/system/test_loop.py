"""The event loop: what is called, when, and in which order."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

import pytest

from inosync.system.loop import Loop, Timer, call_by


class Clock:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def loop(clock: Clock) -> Loop:
    return Loop(clock)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_timers_run_in_order_of_time_then_of_setting(loop: Loop, clock: Clock) -> None:
    ran: list[str] = []
    loop.call_at(102, lambda: ran.append("c"))
    loop.call_at(101, lambda: ran.append("a"))
    loop.call_at(101, lambda: ran.append("b"))
    clock.now = 101.5
    loop.turn(0)
    assert ran == ["a", "b"]
    clock.now = 102
    loop.turn(0)
    assert ran == ["a", "b", "c"]


def test_timer_set_by_a_timer_runs_in_the_next_turn(loop: Loop) -> None:
    ran: list[int] = []

    def again() -> None:
        ran.append(len(ran))
        loop.call_at(0, again)

    loop.call_at(0, again)
    loop.turn(None)
    assert ran == [0]
    loop.turn(None)
    assert ran == [0, 1]


def test_call_every_calls_at_once_and_then_at_intervals(loop: Loop, clock: Clock) -> None:
    ran: list[float] = []
    loop.call_every(2, lambda: ran.append(clock.now))
    for now in (100.0, 101.0, 102.5, 104.0, 104.5):
        clock.now = now
        loop.turn(0)
    assert ran == [100.0, 102.5, 104.5]


def test_timer_that_is_cancelled_does_not_run(loop: Loop) -> None:
    ran: list[str] = []
    timer = loop.call_at(0, lambda: ran.append("a"))
    loop.call_at(0, lambda: ran.append("b"))
    assert timer.is_pending
    timer.cancel()
    assert not timer.is_pending
    loop.turn(0)
    assert ran == ["b"]


def test_timer_can_cancel_another_of_the_same_time(loop: Loop) -> None:
    ran: list[str] = []
    loop.call_at(0, lambda: other.cancel())
    other = loop.call_at(0, lambda: ran.append("other"))
    loop.turn(0)
    assert ran == []


def test_next_timer_passes_over_cancelled_ones(loop: Loop) -> None:
    assert loop.next_timer == math.inf
    first, second = loop.call_at(101, lambda: None), loop.call_at(102, lambda: None)
    assert loop.next_timer == 101
    first.cancel()
    assert loop.next_timer == 102
    second.cancel()
    assert loop.next_timer == math.inf


def test_turn_without_timeout_ends_when_a_timer_is_due() -> None:
    loop, ran = Loop(), []
    loop.call_at(0, lambda: ran.append(1))
    loop.turn(None)
    assert ran == [1]


def test_descriptor_is_called_while_it_is_readable(loop: Loop, pipe: tuple[int, int]) -> None:
    called: list[bytes] = []
    loop.on_readable(pipe[0], lambda: called.append(os.read(pipe[0], 1)))
    loop.turn(0)
    assert called == []
    os.write(pipe[1], b"ab")
    loop.turn(None)
    loop.turn(None)
    loop.turn(0)
    assert called == [b"a", b"b"]


def test_descriptor_that_another_call_drops_is_not_called(loop: Loop, pipe: tuple[int, int]) -> None:
    other = os.dup(pipe[0])
    called: list[int] = []

    def drop(dropped: int, own: int) -> None:
        called.append(own)
        loop.drop(dropped)

    loop.on_readable(pipe[0], lambda: drop(other, pipe[0]))
    loop.on_readable(other, lambda: drop(pipe[0], other))
    os.write(pipe[1], b"a")
    try:
        loop.turn(None)
        assert len(called) == 1
    finally:
        loop.drop(other)
        os.close(other)


def test_dropping_an_unknown_descriptor_is_harmless(loop: Loop) -> None:
    loop.drop(0)


@pytest.mark.parametrize(
    ("before", "wanted", "runs_at"),
    [(None, 103, [103]), (102, 103, [102]), (103, 103, [103]), (104, 103, [103]), (99, 103, [99, 103])],
)
def test_call_by_a_time_is_made_by_the_pending_timer_if_that_is_sooner(
    loop: Loop, clock: Clock, before: float | None, wanted: float, runs_at: list[float]
) -> None:
    ran: list[float] = []

    def call() -> None:
        ran.append(clock.now)

    timer: Timer | None = None
    if before is not None:
        clock.now = min(before, 100)
        timer = call_by(loop, before, call, None)
        loop.turn(0)
    for now in (100, 102, 103, 104):
        clock.now = now
        if now == 100:
            timer = call_by(loop, wanted, call, timer)
        loop.turn(0)
    assert ran == runs_at
