"""Marks: the newest one that a cursor has reached, never one that promises too much."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inosync.state.marks import Mark, Marks


def made(*marks: tuple[int, float], limit: int = 500) -> Marks:
    found = Marks(limit)
    for position, wall in marks:
        found.add(Mark(position, wall))
    return found


@pytest.mark.parametrize(
    ("marks", "cursor", "wall"),
    [
        ((), 5, None),
        (((3, 10.0),), 2, None),
        (((3, 10.0),), 3, 10.0),
        (((3, 10.0), (7, 20.0)), 6, 10.0),
        (((3, 10.0), (7, 20.0)), 9, 20.0),
        (((3, 10.0), (3, 20.0)), 3, 20.0),
        (((3, 10.0), (7, 5.0)), 3, 5.0),  # the clock was set back
        (((3, 10.0), (7, 5.0), (9, 30.0)), 8, 5.0),
    ],
)
def test_cursor_has_what_its_newest_mark_says(
    marks: tuple[tuple[int, float], ...], cursor: int, wall: float | None
) -> None:
    found = made(*marks).at(cursor)
    assert (found and found.wall) == wall


def test_marks_before_every_cursor_are_dropped_but_for_the_newest() -> None:
    marks = made((1, 1.0), (4, 4.0), (8, 8.0))
    marks.drop_before(5)
    found = marks.at(5)
    assert marks.at(3) is None
    assert found is not None
    assert found.position == 4


def test_cut_leaves_no_mark_to_those_that_are_behind() -> None:
    marks = made((1, 1.0), (4, 4.0))
    assert not marks.were_cut
    marks.cut()
    marks.add(Mark(6, 6.0))
    assert (marks.at(5), marks.were_cut) == (None, True)
    assert marks.at(6) == Mark(6, 6.0)


def test_unclosed_files_are_those_of_the_mark_itself() -> None:
    marks = Marks()
    marks.add(Mark(1, 1.0, frozenset({(1, b"open")})))
    marks.add(Mark(2, 2.0))
    first, second = marks.at(1), marks.at(2)
    assert first is not None
    assert second is not None
    assert first.unclosed == {(1, b"open")}
    assert not second.unclosed


@given(
    st.lists(st.tuples(st.integers(0, 3), st.floats(-5, 9)), max_size=60),
    st.integers(4, 12),
    st.integers(0, 200),
)
def test_mark_never_promises_more_than_was_recorded(
    steps: list[tuple[int, float]], limit: int, cursor: int
) -> None:
    """A change at any time is before the mark only if it was recorded at its position or before it."""
    marks, position, wall = Marks(limit), 0, 100.0
    recorded: list[tuple[int, float]] = []  # position and time of each change, seen by the next mark
    for changes, passed in steps:
        for _ in range(changes):
            position += 1
            recorded.append((position, wall))
        wall += passed
        marks.add(Mark(position, wall))
    found = marks.at(cursor)
    if found is not None:
        assert found.position <= cursor
        assert all(at >= found.wall for each, at in recorded if each > found.position)
