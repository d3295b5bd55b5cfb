"""Lateness: what others have had for long, and this sender lacks."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inosync.fleet.lateness import MAX_MARKS, Lateness

LIMIT = 30.0
Step = tuple[float, int, Sequence[int]]


def outcomes(steps: Sequence[Step]) -> list[bool]:
    lateness = Lateness()
    return [lateness.note(now, mine, others, LIMIT) for now, mine, others in steps]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([(0, 5, [5, 4]), (100, 5, [5])], [False, False]),
        ([(0, 5, [6]), (29, 5, [7]), (30, 5, [7])], [False, False, True]),
        ([(0, 5, []), (100, 5, []), (101, 5, [9])], [False, False, False]),
        # What it has had is forgotten; what it lacks still counts from when it was seen first.
        ([(0, 5, [6]), (20, 5, [8]), (25, 6, [8]), (40, 6, [8]), (50, 6, [8])], [False] * 4 + [True]),
        # No sender is left that could do better.
        ([(0, 5, [6]), (40, 5, [6]), (41, 5, []), (42, 5, [6])], [False, True, False, False]),
    ],
)
def test_sender_is_late_for_what_others_have(steps: Sequence[Step], expected: Sequence[bool]) -> None:
    assert outcomes(steps) == list(expected)


def test_sender_stays_late_until_a_third_of_the_time_is_left() -> None:
    steps: list[Step] = [(0, 5, [6]), (25, 5, [7]), (30, 5, [7]), (34, 6, [7]), (35, 6, [7]), (36, 7, [8])]
    assert outcomes(steps) == [False, False, True, False, False, False]
    steps = [(0, 5, [6]), (20, 5, [7]), (30, 5, [7]), (31, 6, [7]), (32, 7, [8])]
    assert outcomes(steps) == [False, False, True, True, False]


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 3), st.integers(0, 3)), max_size=300))
def test_late_is_only_who_lacks_what_was_there_for_long(steps: list[tuple[float, int, int]]) -> None:
    """And one that lacks it for longer than that, and a mark, is late."""
    now, mine, best = 0.0, 0, 0
    seen: list[tuple[float, int]] = []
    lateness = Lateness()
    for seconds, own, other in steps:
        now, best = now + seconds, best + other
        mine = min(mine + own, best)
        seen.append((now, best))
        was_late = lateness.is_late
        is_late = lateness.note(now, mine, [best], LIMIT)
        since = min((at for at, position in seen if position > mine), default=now)
        if is_late:
            assert now - since >= (LIMIT / 3 if was_late else LIMIT) - 1e-6
        assert len(lateness._marks) <= MAX_MARKS


def test_sender_that_stands_still_is_late_whatever_the_others_do() -> None:
    lateness = Lateness()
    found = [lateness.note(float(now), 0, [now + 1], LIMIT) for now in range(1000)]
    assert found == [False] * 30 + [True] * 970
    assert len(lateness._marks) <= MAX_MARKS
