"""When nodes are compared in full. Time is played."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inosync.master import rounds
from inosync.master.rounds import FIRST_PAUSE, Round

DAY = 86_400.0
chances = st.floats(0, 1, exclude_max=True)
times = st.floats(0, 1e9)


@given(times, chances, st.floats(0.01, 1e6))
def test_the_first_is_after_a_part_of_the_time_and_the_next_ones_about_as_often_as_is_wanted(
    now: float, rand: float, every: float
) -> None:
    plan = rounds.first(every, now, rand)
    assert now + every / 4 <= plan.due <= now + every
    after = rounds.done(plan, plan.due, rand)
    assert plan.due + 0.899 * every <= after.due <= plan.due + 1.101 * every


def test_nodes_that_were_met_together_do_not_come_together() -> None:
    plans = [rounds.first(DAY, 0.0, number / 100) for number in range(100)]
    assert len({plan.due for plan in plans}) == 100
    assert max(plan.due for plan in plans) - min(plan.due for plan in plans) > DAY / 2


def test_what_came_to_nothing_is_tried_again_soon_and_less_and_less_soon() -> None:
    plan = rounds.first(DAY, 0.0, 0.0)
    pauses = []
    for _ in range(20):
        plan = rounds.failed(plan, 0.0, 0.0)
        pauses.append(plan.due)
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (FIRST_PAUSE, DAY)
    assert rounds.done(plan, 0.0, 0.5).failures == 0
    often = rounds.failed(rounds.first(1, 0.0, 0.0), 0.0, 0.0)
    assert often.due == 1


@given(times, chances)
def test_0_is_never(now: float, rand: float) -> None:
    never = rounds.first(0, now, rand)
    for plan in (
        never,
        rounds.done(never, now, rand),
        rounds.failed(never, now, rand),
        rounds.retuned(rounds.first(DAY, 0, rand), 0, None, now, rand),
        rounds.retuned(rounds.first(DAY, 0, rand), 0, now, now, rand),
    ):
        assert plan.due == inf
    assert rounds.next_ones({"a": never}, now) == []


def test_another_time_counts_from_the_last_comparison() -> None:
    plan = rounds.first(DAY, 0.0, 0.5)
    assert rounds.retuned(plan, DAY, None, 50.0, 0.5) is plan
    assert rounds.retuned(plan, 100, 30.0, 50.0, 0.5) == Round(100, 130)
    assert rounds.retuned(plan, 100, None, 50.0, 0.0) == Round(100, 75)
    assert rounds.retuned(rounds.first(0, 0, 0), 100, None, 50.0, 0.0) == Round(100, 75)


@pytest.mark.parametrize(("now", "expected"), [(5, []), (20, ["b", "a"]), (30, ["b", "a", "c"])])
def test_who_has_waited_longest_is_first(now: float, expected: list[str]) -> None:
    plans = {"a": Round(DAY, 20), "b": Round(DAY, 10), "c": Round(DAY, 30), "d": Round(0, inf)}
    assert rounds.next_ones(plans, now) == expected
