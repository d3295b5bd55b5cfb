"""When positions were recorded, with fewer marks than records."""

from __future__ import annotations

import pytest

from inosync.journal.times import RecordTimes


def times(limit: int, *records: tuple[int, float]) -> RecordTimes:
    made = RecordTimes(limit)
    for position, now in records:
        made.add(position, now)
    return made


def test_positions_of_one_moment_are_one_mark() -> None:
    made = times(4, (1, 5.0), (2, 5.0), (3, 6.0))
    assert [made.first_after(cursor) for cursor in range(4)] == [5.0, 5.0, 6.0, None]


@pytest.mark.parametrize(
    ("when", "position"), [(0.5, -1), (1.0, -1), (1.5, -1), (2.0, 1), (3.0, 2), (3.5, 3), (9.0, 3)]
)
def test_all_up_to_a_position_was_recorded_before_a_time(when: float, position: int) -> None:
    assert times(4, (1, 1.0), (2, 2.0), (3, 3.0)).last_before(when) == position


def test_times_are_too_early_rather_than_too_late_when_marks_are_merged() -> None:
    made = times(4, *((position, float(position)) for position in range(1, 8)))
    found = [made.first_after(cursor) for cursor in range(7)]
    assert all(time is not None and time <= cursor + 1 for cursor, time in enumerate(found))
    assert found[-1] == 7.0, "the newest are exact"


def test_confirmed_positions_are_forgotten() -> None:
    made = times(4, (1, 1.0), (2, 2.0), (3, 3.0))
    made.drop_confirmed(2)
    assert [made.first_after(cursor) for cursor in (0, 2, 3)] == [3.0, 3.0, None]
    assert RecordTimes(4).last_before(1.0) == -1
