"""Who looks at which items of a shared list."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inosync.watch.shares import MAX_SCOUTS, MIN_ITEMS, Stretch, divide, skip_done


@pytest.mark.parametrize(
    ("items", "processors", "expected"),
    [
        (0, 8, []),
        (MIN_ITEMS - 1, 8, []),
        (1000, 1, []),
        (MIN_ITEMS, 8, [(0, MIN_ITEMS)]),
        (1000, 2, [(0, 1000)]),
        (1000, 3, [(0, 500), (500, 1000)]),
        (901, 8, [(0, 300), (300, 600), (600, 901)]),
        (10**6, 64, [(10**6 * n // MAX_SCOUTS, 10**6 * (n + 1) // MAX_SCOUTS) for n in range(MAX_SCOUTS)]),
    ],
)
def test_shares_are_one_for_each_other_processor(
    items: int, processors: int, expected: list[tuple[int, int]]
) -> None:
    assert divide(items, processors) == [Stretch(first, end, end) for first, end in expected]


@pytest.mark.parametrize(
    ("at", "lefts", "expected"),
    [
        (0, (10, 20), 0),
        (9, (10, 20), 9),
        (4, (4, 20), 10),
        (5, (4, 20), 10),
        (3, (4, 20), 3),
        (0, (0, 20), 10),
        (0, (0, 10), 20),
        (12, (0, 15), 12),
        (20, (0, 10), 20),
        (23, (0, 10), 23),
    ],
)
def test_what_a_scout_has_done_is_skipped(at: int, lefts: tuple[int, int], expected: int) -> None:
    shared = [Stretch(0, 10, lefts[0]), Stretch(10, 20, lefts[1])]
    assert skip_done(at, shared) == expected


@given(st.integers(0, 500), st.integers(1, 6), st.lists(st.integers(-1, MAX_SCOUTS - 1), max_size=700))
def test_each_item_is_done_whoever_is_slow(items: int, processors: int, turns: list[int]) -> None:
    """-1: the watcher's turn, else that of a scout. At the end the scouts are dead."""
    shared, done, at = divide(items, processors), set[int](), 0
    for turn in [*turns, *[-1] * (items + 1)]:
        if turn < 0:
            at = skip_done(at, shared)
            if at < items:
                done.add(at)
                at += 1
        elif turn < len(shared) and shared[turn].left > shared[turn].first:
            shared[turn].left -= 1
            done.add(shared[turn].left)
    assert done == set(range(items))
