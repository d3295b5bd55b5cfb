"""How long to wait after a failure."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inosync.nodes import backoff

durations = st.floats(0, 1e6, allow_nan=False)
chances = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(
    ("attempt", "seconds"), [(1, 1), (2, 2), (3, 4), (8, 128), (9, 256), (10, 300), (11, 300), (10**9, 300)]
)
def test_backoff_doubles_up_to_the_longest(attempt: int, seconds: float) -> None:
    assert backoff.delay(attempt, 1, 300, 0) == seconds


@given(attempt=st.integers(1, 10**12), first=durations, longest=durations, rand=chances)
def test_chance_takes_up_to_a_quarter_off_and_adds_nothing(
    attempt: int, first: float, longest: float, rand: float
) -> None:
    base = backoff.delay(attempt, first, longest, 0)
    found = backoff.delay(attempt, first, longest, rand)
    assert 0.75 * base <= found <= base <= longest
    assert found >= 0
    assert math.isfinite(found)


@given(attempt=st.integers(1, 200), first=durations, longest=durations)
def test_backoff_never_gets_shorter(attempt: int, first: float, longest: float) -> None:
    assert backoff.delay(attempt + 1, first, longest, 0) >= backoff.delay(attempt, first, longest, 0)


def test_nodes_behind_one_broken_switch_do_not_all_come_back_at_once() -> None:
    found = {backoff.delay(5, 1, 300, rand / 100) for rand in range(100)}
    assert len(found) == 100
