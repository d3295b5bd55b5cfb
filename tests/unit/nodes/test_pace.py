"""How soon a node gets its next batch; tests/unit/master/test_pacing.py has what follows for many nodes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inosync.nodes.pace import BURST_SECONDS, SHARE, SLOPE, Cost, Pace

PROCESSORS, LONGEST = 2, 10.0
ALLOWED = PROCESSORS * SHARE


def loaded(load: float) -> Pace:
    """Return a pace with this load, of 4 at most, at 100.0."""
    pace = Pace(PROCESSORS, LONGEST)
    pace.spend(Cost(load * BURST_SECONDS * ALLOWED, 99.9, 100.0))
    assert pace.load(100.0) == pytest.approx(load)
    return pace


def test_load_is_nothing_before_the_first_batch() -> None:
    assert Pace(PROCESSORS, LONGEST).load(0.0) == Pace(PROCESSORS, LONGEST).load(1e9) == 0


@pytest.mark.parametrize(
    ("load", "nodes", "cpu", "seconds", "pause"),
    [
        (0.0, 50, 0.02, 0.1, 0.0),
        (1.0, 50, 0.02, 0.1, 0.0),
        (1 + SLOPE / 2, 50, 0.02, 0.1, 0.4),
        (1 + SLOPE, 50, 0.02, 0.1, 0.9),
        (2.0, 50, 0.02, 0.1, 0.9),
        (2.0, 50, 0.04, 0.1, 1.9),
        (2.0, 1, 0.02, 0.1, 0.0),
        (2.0, 50, 0.02, 5.0, 0.0),
        (2.0, 500, 0.02, 0.1, 9.9),
        (2.0, 500, 0.05, 0.1, LONGEST),
        (2.0, 50, 0.0, 0.1, 0.0),
    ],
    ids=[
        "nothing goes on",
        "all that is allowed",
        "a little more",
        "more by the whole slope",
        "twice as much",
        "a batch twice as dear",
        "one node only",
        "a node that takes long by itself",
        "ten times the nodes",
        "more than the longest pause",
        "a batch for nothing",
    ],
)
def test_pause_is_in_proportion_to_what_the_last_batch_cost(
    load: float, nodes: int, cpu: float, seconds: float, pause: float
) -> None:
    last = Cost(cpu, 100.0 - seconds, 100.0)
    assert loaded(load).next_at(last, nodes, 100.0) - 100.0 == pytest.approx(pause, abs=1e-6)


def test_pause_ends_as_soon_as_the_load_is_gone() -> None:
    pace, last = loaded(2.0), Cost(0.1, 99.9, 100.0)
    assert pace.next_at(last, 50, 100.0) == pytest.approx(104.9)
    gone = 100.0 + BURST_SECONDS
    assert pace.next_at(last, 50, gone - BURST_SECONDS * SLOPE) == pytest.approx(104.9)
    assert pace.next_at(last, 50, gone + 0.001) == 100.0


@pytest.mark.parametrize("cpu", [0.0, 0.001, 0.01])
def test_pause_does_not_grow_from_its_own_past(cpu: float) -> None:
    pace, pauses = loaded(4.0), []
    for number in range(100):
        last = Cost(cpu, 100.0 + number / 100, 100.005 + number / 100)
        pace.spend(last)
        pauses.append(pace.next_at(last, 50, last.ended) - last.ended)
    assert pauses == pytest.approx([max(50 * cpu / ALLOWED - 0.005, 0.0)] * 100)


def test_pace_lifted_holds_back_no_batch_from_before() -> None:
    pace, before, after = loaded(2.0), Cost(0.1, 99.9, 100.0), Cost(0.1, 100.0, 100.1)
    pace.lift(100.0)
    assert pace.next_at(before, 50, 100.0) == 100.0
    assert pace.next_at(after, 50, 100.1) > 101


def test_longest_pause_follows_the_setting() -> None:
    pace, last = loaded(2.0), Cost(1.0, 99.0, 100.0)
    assert pace.next_at(last, 50, 100.0) == 100.0 + LONGEST
    pace.set_longest(2.0)
    assert pace.next_at(last, 50, 100.0) == 102.0
    pace.set_longest(0.0)
    assert pace.next_at(last, 50, 100.0) == 100.0


@pytest.mark.parametrize(("cpu", "is_over"), [(0.95, False), (1.05, True)])
def test_load_that_lasts_is_more_than_what_is_allowed(cpu: float, is_over: bool) -> None:
    pace, now = Pace(PROCESSORS, LONGEST), 100.0
    for _ in range(1000):
        now += 0.1
        pace.spend(Cost(cpu * ALLOWED * 0.1, now - 0.05, now))
    assert (pace.load(now) > 1) is is_over


@pytest.mark.parametrize(
    ("seconds", "load"), [(BURST_SECONDS, 10.0), (2 * BURST_SECONDS, 5.0), (600.0, 10 * BURST_SECONDS / 600)]
)
def test_transfer_that_takes_long_is_no_burst_at_its_end(seconds: float, load: float) -> None:
    pace = Pace(PROCESSORS, 1000.0)
    pace.spend(Cost(10 * BURST_SECONDS * ALLOWED, 1000.0 - seconds, 1000.0))
    assert pace.load(1000.0) == pytest.approx(load)


def test_debt_that_is_not_paid_for_within_the_longest_pause_is_forgotten() -> None:
    pace = loaded(0.0)
    pace.spend(Cost(1e6, 100.0, 100.0))
    assert pace.load(100.0) > 1
    assert pace.load(100.0 + LONGEST + 2 * BURST_SECONDS) == 0


@given(
    st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 1e5), st.floats(-1, 1e6)), min_size=1, max_size=30),
    st.integers(1, 1000),
)
def test_next_batch_waits_no_longer_than_the_longest_pause(
    batches: list[tuple[float, float, float]], nodes: int
) -> None:
    pace, now = Pace(PROCESSORS, LONGEST), 1e6
    for cpu, seconds, passed in batches:
        now += passed  # the clocks of one turn may be read in another order
        last = Cost(cpu, now - seconds, now)
        pace.spend(last)
        assert last.ended <= pace.next_at(last, nodes, now) <= last.ended + LONGEST
        assert pace.next_at(last, nodes, now + 1e9) == last.ended
