"""When a batch goes: at once after an isolated edit, seldom in a flood, never later than the delay."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inosync.journal import debounce
from inosync.journal.debounce import Debounce

QUIET, DELAY = 0.05, 10.0


Release = tuple[float, list[float]]  # when, and the times of the changes that went


def follow(changes: Iterable[float], quiet: float = QUIET, delay: float = DELAY) -> list[Release]:
    """The releases when something changes at these times, in order."""
    pace, waiting = debounce.start(quiet, delay), list[float]()
    releases: list[Release] = []
    for now in [*changes, math.inf]:
        due = debounce.due(pace)
        if due is not None and due <= now:
            releases.append((due, waiting))
            pace, waiting = debounce.release(pace, due), []
        pace = debounce.changed(pace, now)
        waiting.append(now)
    return releases


def play(changes: Iterable[float], quiet: float = QUIET, delay: float = DELAY) -> list[float]:
    """The times of the releases."""
    return [when for when, _ in follow(changes, quiet, delay)]


def test_nothing_is_due_before_anything_has_changed() -> None:
    pace = debounce.start(QUIET, DELAY)
    assert debounce.due(pace) is None
    assert debounce.due(debounce.release(pace, 5.0)) is None


def test_isolated_edit_goes_when_it_was_quiet_for_a_moment() -> None:
    assert play([100.0]) == [pytest.approx(100.0 + QUIET)]


def test_change_in_the_quiet_moment_prolongs_it() -> None:
    assert play([100.0, 100.03, 100.06]) == [pytest.approx(100.06 + QUIET)]


def test_edits_far_apart_all_go_at_once() -> None:
    times = [100.0 + i * 30 for i in range(20)]
    assert play(times) == [pytest.approx(at + QUIET) for at in times]


def test_wait_doubles_up_to_the_delay_under_lasting_activity() -> None:
    pace, now, waits = debounce.start(QUIET, DELAY), 100.0, []
    for _ in range(12):
        pace = debounce.changed(pace, now)
        due = debounce.due(pace)
        assert due is not None
        waits.append(due - now)
        pace = debounce.release(pace, due)
        now = due + 0.01  # never a lull
    assert waits == pytest.approx([min(QUIET * 2**i, DELAY) for i in range(12)])


def test_wait_starts_again_after_a_lull() -> None:
    pace, now = debounce.start(QUIET, DELAY), 100.0
    for _ in range(12):
        pace = debounce.changed(pace, now)
        due = debounce.due(pace)
        assert due is not None
        pace, now = debounce.release(pace, due), due + 0.01
    now += DELAY + 0.1
    assert debounce.due(debounce.changed(pace, now)) == pytest.approx(now + QUIET)


@pytest.mark.parametrize("every", [0.001, 0.01, 0.04, 0.06, 0.1, 0.3, 0.49])
def test_flood_costs_few_releases(every: float) -> None:
    seconds = 60
    releases = play(100.0 + i * every for i in range(int(seconds / every)))
    if every <= debounce.LULL_FACTOR * QUIET:
        assert len(releases) <= math.log2(DELAY / QUIET) + seconds / DELAY + 2
    assert releases[-1] <= 100.0 + seconds + DELAY


@given(
    gaps=st.lists(st.floats(0, 9.9 * QUIET), min_size=1, max_size=150),
    delay=st.sampled_from([QUIET, 0.2, 1.0]),
    lull=st.floats(1.001, 3),
)
def test_flood_without_a_lull_costs_one_release_in_a_delay(
    gaps: list[float], delay: float, lull: float
) -> None:
    changes = list(accumulate(gaps, initial=100.0))
    seconds = changes[-1] - changes[0]
    again = [at + seconds + delay * lull + QUIET for at in changes]
    releases = play([*changes, *again], delay=delay)
    first = [when for when in releases if when < again[0]]
    # The second time is not dearer than the first for what was before it, nor does it profit from it.
    for part in (first, releases[len(first) :]):
        assert 1 <= len(part) <= math.log2(delay / QUIET) + seconds / delay + 2


def test_release_in_a_lasting_flood_takes_as_long_as_the_delay() -> None:
    releases = play(100.0 + i * 0.01 for i in range(12_000))
    assert len(releases) == pytest.approx(12, abs=1)
    assert all(b - a >= DELAY for a, b in pairwise(releases[:-1]))


@given(gaps=st.lists(st.floats(0, 4 * QUIET), min_size=1, max_size=150))
def test_releases_are_at_least_a_quiet_moment_apart(gaps: list[float]) -> None:
    releases = play(accumulate(gaps, initial=100.0))
    assert all(b - a >= QUIET - 1e-9 for a, b in pairwise(releases))


@pytest.mark.parametrize("doublings", [0, 1, 3, 12])
def test_lull_longer_than_the_wait_ends_it_and_a_shorter_one_does_not(doublings: int) -> None:
    pace, now, wait = debounce.start(QUIET, DELAY), 100.0, QUIET
    for _ in range(doublings + 1):
        pace = debounce.changed(pace, now)
        due = debounce.due(pace)
        assert due is not None
        wait = due - now
        pace, now = debounce.release(pace, due), due + QUIET / 2
    end = now - QUIET / 2
    needed = max(wait, debounce.LULL_FACTOR * QUIET)
    for lull, expected in ((needed * 0.99, min(2 * wait, DELAY)), (needed * 1.01, QUIET)):
        due = debounce.due(debounce.changed(pace, end + lull))
        assert due is not None
        assert due - (end + lull) == pytest.approx(expected)


def test_every_change_of_a_flood_goes_within_the_delay() -> None:
    changes = [100.0 + i * 0.01 for i in range(6000)]
    releases = play(changes)
    for at in changes:
        assert min(release for release in releases if release >= at) <= at + DELAY + 1e-9


@given(
    gaps=st.lists(st.sampled_from([0.0, 0.001, 0.04, 0.06, 0.5, 3.0, 11.0, 100.0]), min_size=1, max_size=80),
    quiet=st.sampled_from([0.0, 0.001, 0.05, 1.0, 10.0]),
)
def test_change_waits_for_its_quiet_moment_and_no_longer_than_the_delay(
    gaps: list[float], quiet: float
) -> None:
    now, changes = 1000.0, []
    for gap in gaps:
        now += gap
        changes.append(now)
    releases = follow(changes, quiet)
    assert [change for _, went in releases for change in went] == changes
    for when, went in releases:
        # Either it was quiet by then, or the first of them had waited long enough.
        assert went[-1] <= when <= went[0] + DELAY + 1e-9
        assert when >= min(went[-1] + quiet, went[0] + DELAY) - 1e-9


def test_changes_are_due_at_once_without_a_quiet_moment() -> None:
    pace = debounce.start(0.0, DELAY)
    for i in range(100):
        now = 100.0 + i * 0.01
        pace = debounce.changed(pace, now)
        assert debounce.due(pace) == now
        pace = debounce.release(pace, now)


def test_changes_are_due_at_once_without_a_delay() -> None:
    assert play([100.0, 101.0, 200.0], quiet=0.0, delay=0.0) == [100.0, 101.0, 200.0]


@pytest.mark.parametrize(
    ("quiet", "delay", "due"),
    [(1.0, 10.0, 101.0), (0.05, 10.0, 100.2), (0.0, 0.1, 100.1), (20.0, 20.0, 120.0)],
    ids=["a longer moment", "the same settings", "a shorter delay", "longer than the old delay"],
)
def test_new_settings_count_for_what_waits_already(quiet: float, delay: float, due: float) -> None:
    pace = debounce.changed(Debounce(QUIET, DELAY, wait=0.1, released=99.99), 100.0)
    assert debounce.due(pace) == pytest.approx(100.2)
    assert debounce.due(debounce.reconfigured(pace, quiet, delay)) == pytest.approx(due)


def test_new_settings_make_nothing_due_that_has_gone() -> None:
    pace = debounce.release(debounce.changed(debounce.start(QUIET, DELAY), 100.0), 100.1)
    assert debounce.due(debounce.reconfigured(pace, 1.0, 5.0)) is None
