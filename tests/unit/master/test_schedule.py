"""When nodes are verified. Time is an argument."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inosync.master import schedule
from inosync.master.schedule import (
    BETWEEN_RETURNS_SECONDS,
    FIRST_PAUSE_SECONDS,
    RESUMED_SECONDS,
    Schedule,
)

DAY = 86_400.0
chances = st.floats(0, 1, exclude_max=True)
times = st.floats(0, 1e9)


@given(times, chances, st.floats(0.01, 1e6))
def test_first_is_after_a_part_of_the_interval_and_the_next_after_one(
    now: float, rand: float, every: float
) -> None:
    plan = schedule.first(every, now, rand)
    assert now + every / 4 <= plan.due <= now + every
    after = schedule.done(every, plan.due, rand)
    assert plan.due + 0.899 * every <= after.due <= plan.due + 1.101 * every


def test_nodes_added_together_are_spread() -> None:
    plans = [schedule.first(DAY, 0.0, number / 100) for number in range(100)]
    assert len({plan.due for plan in plans}) == 100
    assert max(plan.due for plan in plans) - min(plan.due for plan in plans) > DAY / 2


def test_nodes_that_were_taken_over_are_verified_within_an_hour_and_spread() -> None:
    plans = [schedule.resumed(schedule.first(DAY, 0.0, 0.5), 0.0, number / 100) for number in range(100)]
    assert RESUMED_SECONDS == 3600
    assert len({plan.due for plan in plans}) == 100
    assert min(plan.due for plan in plans) == RESUMED_SECONDS / 10
    assert RESUMED_SECONDS * 0.98 < max(plan.due for plan in plans) <= RESUMED_SECONDS
    soon = schedule.first(60.0, 0.0, 0.5)
    assert schedule.resumed(soon, 0.0, 0.9) == soon, "a shorter interval stays"


def test_failures_are_tried_again_less_and_less_soon() -> None:
    plan = schedule.first(DAY, 0.0, 0.0)
    pauses = []
    for _ in range(20):
        plan = schedule.failed(plan, 0.0, 0.0)
        pauses.append(plan.due)
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (FIRST_PAUSE_SECONDS, DAY)
    assert schedule.done(plan.interval, 0.0, 0.5).failures == 0
    often = schedule.failed(schedule.first(1, 0.0, 0.0), 0.0, 0.0)
    assert often.due == 1


@given(times, chances)
def test_interval_0_is_never(now: float, rand: float) -> None:
    never = schedule.first(0, now, rand)
    for plan in (
        never,
        schedule.done(never.interval, now, rand),
        schedule.failed(never, now, rand),
        schedule.configure(schedule.first(DAY, 0, rand), 0, None, now, rand),
        schedule.configure(schedule.first(DAY, 0, rand), 0, now, now, rand),
    ):
        assert plan.due == inf
    assert schedule.due_nodes({"a": never}, now) == []


def test_another_interval_counts_from_the_last_verification() -> None:
    plan = schedule.first(DAY, 0.0, 0.5)
    assert schedule.configure(plan, DAY, None, 50.0, 0.5) is plan
    assert schedule.configure(plan, 100, 30.0, 50.0, 0.5) == Schedule(100, 130)
    assert schedule.configure(plan, 100, None, 50.0, 0.0) == Schedule(100, 75)
    assert schedule.configure(schedule.first(0, 0, 0), 100, None, 50.0, 0.0) == Schedule(100, 75)


@pytest.mark.parametrize(("now", "expected"), [(5, []), (20, ["b", "a"]), (30, ["b", "a", "c"])])
def test_node_that_has_waited_longest_is_first(now: float, expected: list[str]) -> None:
    plans = {"a": Schedule(DAY, 20), "b": Schedule(DAY, 10), "c": Schedule(DAY, 30), "d": Schedule(0, inf)}
    assert schedule.due_nodes(plans, now) == expected


def test_node_that_was_away_is_verified_soon_but_not_often() -> None:
    known = Schedule(DAY, due=DAY)
    for rand in (0.0, 0.99):
        assert 130 <= schedule.hasten(known, None, 100.0, rand).due <= 160
    assert schedule.hasten(known, 90.0, 100.0, 0.0).due == 90 + BETWEEN_RETURNS_SECONDS
    assert schedule.hasten(known, 90.0, 10_000.0, 0.0).due == 10_030


@pytest.mark.parametrize("known", [Schedule(0.0, inf), Schedule(DAY, 101.0)], ids=["never", "sooner"])
def test_schedule_of_a_node_that_was_away_may_stay(known: Schedule) -> None:
    assert schedule.hasten(known, None, 100.0, 0.5) == known
