"""The limit in force, by a clock on the wall that runs, is set, and changes in spring. Time is played."""

from __future__ import annotations

import calendar
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inosync.config.timetable import Timetable, check, constant
from inosync.worker.bwlimit import LOOK, Throttle

CENTRAL_EUROPE = "CET-1CEST,M3.5.0,M10.5.0/3"  # tzset(3): no files of zones are needed


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The local time is that of Central Europe: in 2024 it changes on March 31 and October 27, 01:00 UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", CENTRAL_EUROPE)
        time.tzset()
        yield
    time.tzset()


def utc(month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> float:
    return calendar.timegm((2024, month, day, hour, minute, second))


@dataclass
class World:
    """Both clocks; that on the wall may be set."""

    wall: float
    now: float = 1_000.0

    def throttle(self, timetable: Timetable) -> Throttle:
        return Throttle(timetable, lambda: self.now, lambda: self.wall)

    def sleep(self, until: float) -> None:
        """Until this time of the clock that is never set."""
        self.wall += until - self.now
        self.now = until


@pytest.mark.usefixtures("zone")
@pytest.mark.parametrize(
    ("wall", "limit"),
    [
        (utc(1, 15, 6, 59, 59), 0),  # 07:59:59
        (utc(1, 15, 7), 512),
        (utc(1, 15, 21, 59), 2000),
        (utc(1, 15, 22), 0),
        (utc(7, 15, 5, 59, 59), 0),  # in summer that is 07:59:59, too
        (utc(7, 15, 6), 512),
        (utc(7, 15, 21), 0),
    ],
)
def test_bwlimit_is_that_of_the_local_time(wall: float, limit: int) -> None:
    assert World(wall).throttle(check("08:00,512 18:00,2000 23:00,0")).limit == limit


def test_bwlimit_without_a_timetable_never_changes() -> None:
    world = World(utc(1, 15))
    throttle = world.throttle(constant(512))
    for _ in range(100):
        assert (throttle.limit, throttle.deadline, throttle.changed()) == (512, math.inf, False)
        world.wall += 10_007


@pytest.mark.usefixtures("zone")
def test_limit_change_is_reported_once() -> None:
    world = World(utc(1, 15, 6, 59, 50))
    throttle = world.throttle(check("08:00,512 08:01,512 18:00,0"))
    assert throttle.deadline == world.now + 10
    world.sleep(throttle.deadline - 0.5)
    assert not throttle.changed()
    assert throttle.deadline == pytest.approx(world.now + 0.5)
    world.sleep(throttle.deadline)
    assert throttle.changed()
    assert throttle.limit == 512
    assert not throttle.changed()
    for _ in range(3):
        world.sleep(throttle.deadline)
        assert (throttle.changed(), throttle.limit) == (False, 512)


@pytest.mark.usefixtures("zone")
@pytest.mark.parametrize("hours", [-36, -11, -1.5, 1.5, 11, 36])
def test_bwlimit_notices_a_clock_that_is_set_within_a_minute(hours: float) -> None:
    world = World(utc(1, 15, 12))  # 13:00
    throttle = world.throttle(check("13:30,1 12:30,2"))
    assert throttle.limit == 2
    world.wall += hours * 3600
    world.sleep(throttle.deadline)
    assert world.now <= 1_000 + LOOK
    assert throttle.changed()
    assert throttle.limit == 1


def by_minutes(timetable: Timetable, wall: float) -> int:
    """The limit that belongs to what people read off their clocks."""
    hours, minutes = map(int, time.strftime("%H:%M", time.localtime(wall)).split(":"))
    return timetable.speed((hours * 60 + minutes) * 60)


@pytest.mark.usefixtures("zone")
@pytest.mark.parametrize("day", [utc(3, 31), utc(10, 27), utc(6, 1)], ids=["March", "October", "June"])
@given(
    minutes=st.lists(st.integers(0, 1439), min_size=2, max_size=8, unique=True),
    eighths=st.integers(-8 * 3_600, 8 * 86_400),  # of a second, which floats can add up exactly
)
def test_bwlimit_is_never_a_minute_late_on_any_day(day: float, minutes: list[int], eighths: int) -> None:
    timetable = Timetable(tuple((minute, minute) for minute in sorted(minutes)))
    world = World(day + eighths / 8)
    throttle = world.throttle(timetable)
    wrong = 0.0
    for _ in range(240):
        before = world.now
        world.sleep(throttle.deadline)
        assert before < world.now <= before + LOOK
        just_before = by_minutes(timetable, world.wall - 1 / 16)
        wrong = wrong + world.now - before if just_before != throttle.limit else 0.0
        assert wrong <= LOOK
        throttle.changed()
        assert throttle.limit == by_minutes(timetable, world.wall)


@pytest.mark.usefixtures("zone")
def test_limit_change_is_noticed_at_once_and_after_a_skipped_hour() -> None:
    world = World(utc(3, 31, 0, 59, 30))  # 01:59:30, and half a minute later it is 03:00:00
    throttle = world.throttle(check("02:30,7 12:00,0"))
    assert (throttle.limit, throttle.deadline) == (0, world.now + LOOK)
    world.sleep(throttle.deadline)
    assert throttle.changed()
    assert throttle.limit == 7
    world = World(utc(3, 31, 9, 59, 59))  # 11:59:59
    throttle = world.throttle(check("02:30,7 12:00,0"))
    assert (throttle.limit, throttle.deadline) == (7, world.now + 1)
    world.sleep(throttle.deadline)
    assert throttle.changed()


@pytest.mark.usefixtures("zone")
def test_bwlimit_switches_twice_in_an_hour_that_comes_twice() -> None:
    world = World(utc(10, 27, 0, 15))  # 02:15, for the first time
    throttle = world.throttle(check("02:30,7 12:00,0"))
    seen = [throttle.limit]
    while world.wall < utc(10, 27, 2):  # 03:00
        world.sleep(throttle.deadline)
        if throttle.changed():
            seen.append(throttle.limit)
    assert seen == [0, 7, 0, 7]


def test_leap_second_belongs_to_the_last_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    midnight = time.struct_time((2016, 12, 31, 23, 59, 60, 5, 366, 0))
    monkeypatch.setattr(time, "localtime", lambda _wall: midnight)
    world = World(0.25)
    throttle = world.throttle(check("00:00,1 12:00,2"))
    assert throttle.limit == 2
    assert throttle.deadline == world.now + 0.75
