"""How long changes gather: for a quiet moment, but not as long as they go on."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inosync.journal import debounce
from inosync.journal.debounce import GATHER_FACTOR, Debounce

QUIET, DELAY = 0.05, 10.0

Release = tuple[float, list[float]]  # when, and the times of the changes that went


def follow(changes: Iterable[float], quiet: float = QUIET, delay: float = DELAY) -> list[Release]:
    """Return the releases when something changes at these times, in order."""
    state, waiting = Debounce(quiet, delay), list[float]()
    releases: list[Release] = []
    for now in [*changes, math.inf]:
        due = debounce.due(state)
        if due is not None and due <= now:
            releases.append((due, waiting))
            state, waiting = debounce.release(state), []
        state = debounce.changed(state, now)
        waiting.append(now)
    return releases


def play(changes: Iterable[float], quiet: float = QUIET, delay: float = DELAY) -> list[float]:
    """Return the times of the releases."""
    return [when for when, _ in follow(changes, quiet, delay)]


def test_nothing_is_due_before_anything_has_changed() -> None:
    state = Debounce(QUIET, DELAY)
    assert debounce.due(state) is None
    assert debounce.due(debounce.release(state)) is None


@pytest.mark.parametrize(
    ("changes", "releases"),
    [
        ([100.0], [100.05]),
        ([100.0, 100.03, 100.06], [100.11]),
        ([100.0, 100.3, 100.6], [100.05, 100.35, 100.65]),
        ([100.0 + number * 0.03 for number in range(40)], [101.0, 101.22]),
    ],
    ids=["isolated", "in the quiet moment of another", "further apart than that", "without any"],
)
def test_changes_are_released_after_a_quiet_moment(changes: list[float], releases: list[float]) -> None:
    assert play(changes) == pytest.approx(releases)


@pytest.mark.parametrize("before", [0, 1, 10_000], ids=["nothing", "one change", "a flood"])
def test_changes_wait_no_longer_whatever_went_before(before: int) -> None:
    changes = [100.0 + number * 0.01 for number in range(before)]
    releases = play([*changes, 300.0, 300.3, 300.6])
    assert releases[-3:] == pytest.approx([300.05, 300.35, 300.65])


@pytest.mark.parametrize("every", [0.001, 0.01, 0.04, 0.049])
def test_changes_that_never_pause_go_all_the_time(every: float) -> None:
    releases = play(100.0 + number * every for number in range(int(60 / every)))
    most = GATHER_FACTOR * QUIET
    assert all(most - 1e-9 <= b - a <= most + every + 1e-9 for a, b in pairwise(releases[:-1]))
    assert releases[-1] <= 160.0 + most


@given(
    gaps=st.lists(st.sampled_from([0.0, 0.001, 0.04, 0.06, 0.5, 3.0, 11.0, 100.0]), min_size=1, max_size=80),
    quiet=st.sampled_from([0.0, 0.001, 0.05, 1.0, 10.0]),
    delay=st.sampled_from([0.0, 0.1, 10.0]),
)
def test_change_waits_for_a_quiet_moment_within_bounds(gaps: list[float], quiet: float, delay: float) -> None:
    quiet = min(quiet, delay)
    changes = list(accumulate(gaps, initial=1000.0))
    releases = follow(changes, quiet, delay)
    assert [change for _, went in releases for change in went] == changes
    longest = min(GATHER_FACTOR * quiet, delay)
    for when, went in releases:
        assert went[-1] <= when <= went[0] + longest + 1e-9
        assert when >= min(went[-1] + quiet, went[0] + longest) - 1e-9


@given(gaps=st.lists(st.floats(0, 4 * QUIET), min_size=1, max_size=150))
def test_releases_are_at_least_a_quiet_moment_apart(gaps: list[float]) -> None:
    releases = play(accumulate(gaps, initial=100.0))
    assert all(b - a >= QUIET - 1e-9 for a, b in pairwise(releases))


@pytest.mark.parametrize(
    ("quiet", "delay", "due"),
    [(1.0, 10.0, 101.2), (0.05, 10.0, 100.25), (0.2, 0.3, 100.3), (20.0, 20.0, 120.0)],
    ids=["a longer moment", "the same settings", "a short delay", "longer than the old delay"],
)
def test_other_settings_count_for_what_waits_already(quiet: float, delay: float, due: float) -> None:
    state = debounce.changed(debounce.changed(Debounce(QUIET, DELAY), 100.0), 100.2)
    assert debounce.due(debounce.reconfigured(state, quiet, delay)) == pytest.approx(due)


def test_other_settings_make_nothing_due_that_has_gone() -> None:
    state = debounce.release(debounce.changed(Debounce(QUIET, DELAY), 100.0))
    assert debounce.due(debounce.reconfigured(state, 1.0, 5.0)) is None
