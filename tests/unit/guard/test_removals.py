"""How removals are counted: by time, by place, and against a number or a share."""

from __future__ import annotations

import math

import pytest

from inosync.config.checks import Share
from inosync.guard.removals import BUCKETS, Removals, common_directory, must_be_left

WINDOW = 8.0


def of(*removals: tuple[float, bytes]) -> Removals:
    made = Removals()
    for now, path in removals:
        made.add(path, now, WINDOW)
    return made


@pytest.mark.parametrize(("now", "total"), [(7.9, 3), (8.0, 2), (11.9, 2), (12.0, 0)])
def test_removals_are_forgotten_when_their_time_is_over(now: float, total: int) -> None:
    made = of((0.0, b"a"), (4.0, b"b"), (4.1, b"c"))
    assert made.total(now, WINDOW) == total


def test_removals_are_kept_in_few_pieces_however_many_there_are() -> None:
    made = of(*((number / 1000, b"a") for number in range(8_000)))
    assert made.total(7.999, WINDOW) == 8_000
    assert len(made._buckets) <= BUCKETS + 1


@pytest.mark.parametrize(
    ("paths", "place"),
    [
        ([b"a"], b""),
        ([b"d/a"], b"d"),
        ([b"d/a", b"d/b"], b"d"),
        ([b"d/e/a", b"d/f/a", b"d/b"], b"d"),
        ([b"d/a", b"dd/a"], b""),
        ([b"d/a", b"b"], b""),
        ([b"d/e/a", b"d/e", b"d"], b"d"),
        ([b"d/a", b"d", b"b"], b""),
        ([b"da/a", b"d"], b""),
    ],
)
@pytest.mark.parametrize("pause", [0.0, 2.0])
def test_place_is_the_directory_that_all_were_below(paths: list[bytes], place: bytes, pause: float) -> None:
    made = of(*((number * pause, path) for number, path in enumerate(paths)))
    assert made.place() == place


def test_moved_in_entries_cancel_removals_and_no_more() -> None:
    made = of((0.0, b"a"), (0.0, b"b"))
    for _ in range(5):
        made.cancel()
    assert made.total(0.0, WINDOW) == 0
    made.add(b"c", 0.0, WINDOW)
    assert made.total(0.0, WINDOW) == 1
    Removals().cancel()


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (b"", b"a", b""),
        (b"a/b", b"a/b", b"a/b"),
        (b"a/b/c", b"a/b", b"a/b"),
        (b"a/bc", b"a/b", b"a"),
        (b"x", b"y", b""),
    ],
)
def test_common_directory_is_made_of_whole_names(one: bytes, other: bytes, expected: bytes) -> None:
    assert common_directory(one, other) == common_directory(other, one) == expected


@pytest.mark.parametrize(
    ("removed", "limit", "expected"),
    [
        (10, 10, 0),
        (11, 10, math.inf),
        (20, Share(20), 80),
        (1, Share(99), pytest.approx(1 / 99)),
        (0, Share(20), 0),
    ],
)
def test_must_be_left_is_what_makes_removals_too_many(
    removed: int, limit: int | Share, expected: float
) -> None:
    assert must_be_left(removed, limit) == expected
