"""Whose turn it is while two transfers share a limit. Time is played."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest

from inosync.changes import Lane
from inosync.worker.turns import TURN_SECONDS, Turns

STEP = 0.01


def play(times: Iterable[bool]) -> list[Lane | None]:
    """Return which lane is stopped in each step; ``times`` says whether both have something to send then."""
    turns, stopped = Turns(), []
    for number, both in enumerate(times):
        turns = turns.look(both, number * STEP)
        stopped.append(turns.stopped)
    return stopped


def steps(seconds: float) -> int:
    return round(seconds / STEP)


def test_nothing_is_stopped_while_one_lane_runs() -> None:
    assert set(play([False] * 1000)) == {None}
    assert Turns().look(False, 5.0).deadline == math.inf


def test_big_file_is_stopped_while_small_changes_are_sent() -> None:
    assert play([False, True, True, False]) == [None, Lane.SECOND, Lane.SECOND, None]


def test_lanes_alternate_while_both_always_run() -> None:
    found = play([True] * steps(4 * TURN_SECONDS))
    half = [found.count(lane) for lane in (Lane.FIRST, Lane.SECOND)]
    assert abs(half[0] - half[1]) <= 4
    assert found[:3] == [Lane.SECOND] * 3


@pytest.mark.parametrize("share", [0.5, 0.6, 0.9, 0.99])
def test_big_file_gets_its_part_beside_small_changes(share: float) -> None:
    """However much of the time small changes take, a big file runs in half of it, or in what is left."""
    period = 100
    pattern = [number % period < share * period for number in range(steps(60))]
    runs = sum(lane is not Lane.SECOND for lane in play(pattern))
    assert runs >= 0.4 * len(pattern)


def test_small_changes_that_take_little_never_wait() -> None:
    pattern = [number % 100 < 45 for number in range(steps(60))]
    assert Lane.FIRST not in play(pattern)


def test_small_change_waits_for_a_turn_at_most() -> None:
    found = play([True] * steps(20))
    longest = max(len(run) for run in "".join("x" if lane is Lane.FIRST else " " for lane in found).split())
    assert longest * STEP <= TURN_SECONDS + 2 * STEP


def test_turn_ends_at_its_deadline() -> None:
    turns = Turns().look(True, 10.0)
    assert turns.deadline == 10.0 + TURN_SECONDS
    assert turns.look(True, turns.deadline - STEP).holder is Lane.FIRST
    later = turns.look(True, turns.deadline)
    assert (later.holder, later.deadline) == (Lane.SECOND, 10.0 + 2 * TURN_SECONDS)
