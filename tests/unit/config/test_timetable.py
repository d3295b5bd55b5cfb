"""The limit by the time of day: what is in force, when that changes, and what is refused."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inosync.config.errors import Invalid
from inosync.config.timetable import DAY_SECONDS, Timetable, check, constant

ISSUE = "08:00,512 18:00,2000 23:00,0"


def at(hour: int, minute: int = 0, second: float = 0.0) -> float:
    return (hour * 60 + minute) * 60 + second


@pytest.mark.parametrize(
    ("now", "speed", "left"),
    [
        (at(0), 0, 8 * 3600),
        (at(7, 59, 59.75), 0, 0.25),
        (at(8), 512, 10 * 3600),
        (at(8, 0, 0.001), 512, 10 * 3600 - 0.001),
        (at(17, 59, 59), 512, 1),
        (at(18), 2000, 5 * 3600),
        (at(23), 0, 9 * 3600),
        (at(23, 59, 59.5), 0, 8 * 3600 + 0.5),
    ],
)
def test_timetable_of_the_example_switches_as_documented(now: float, speed: int, left: float) -> None:
    timetable = check(ISSUE)
    assert timetable.speed(now) == speed
    assert timetable.until_switch(now) == pytest.approx(left, abs=1e-6)


@pytest.mark.parametrize("value", [0, 512, 512.0, "08:00,512"])
def test_single_limit_holds_all_day_and_never_switches(value: object) -> None:
    timetable = check(value)
    assert not timetable.switches
    for now in (0, at(7, 59), at(8), DAY_SECONDS - 0.001):
        assert timetable.speed(now) == (512 if value else 0)
        assert timetable.until_switch(now) == math.inf


@pytest.mark.parametrize(
    "text",
    [
        "22:00,0 06:00,512",
        "06:00,512 22:00,0",
        "  6:00,512\n\t22:00,0 ",
        "06:00, 512  22:00 ,0",
        "06:00,0512 22:00,00",
    ],
)
def test_order_and_blanks_make_no_difference(text: str) -> None:
    assert check(text) == Timetable(((360, 512), (1320, 0)))


def test_equal_timetables_have_equal_hashes() -> None:
    # What is compared when a configuration is read again.
    assert {check(ISSUE), check("23:00,0 " + ISSUE[:-8]), constant(5), check(5)} == {check(ISSUE), check(5)}
    assert check(5) != check(6)
    assert check(ISSUE) != check(ISSUE.replace("512", "513"))


def test_edges_of_the_day_and_of_the_range_are_accepted() -> None:
    timetable = check("00:00,0 23:59,2147483647")
    assert timetable.entries == ((0, 0), (1439, 2147483647))
    assert (timetable.speed(0), timetable.speed(at(23, 59))) == (0, 2147483647)
    assert timetable.until_switch(at(23, 59, 59)) == 1


RIGHT = 'write a timetable such as "08:00,512 23:00,0"'
WHOLE = "write a whole number of KB/s, 0 for no limit"
NEITHER = (
    "is neither a number nor a timetable",
    'write a whole number of KB/s, or a timetable such as "08:00,512 23:00,0"',
)
BAD: list[tuple[object, object, str, str]] = [
    ("", "", *NEITHER),
    (" ", " ", *NEITHER),
    ("512", "512", *NEITHER),
    ("as fast as you can", "as fast as you can", *NEITHER),
    ("0800,512", "0800,512", *NEITHER),
    ("08:00", "08:00", "is not a time and a speed", RIGHT),
    (":", ":", "is not a time and a speed", RIGHT),
    ("08:00 512", "08:00", "is not a time and a speed", RIGHT),
    ("08:00=512", "08:00=512", "is not a time and a speed", RIGHT),
    ("8,512 18:00,5", "8,512", "is not a time and a speed", RIGHT),
    ("8:5,512", "8:5,512", "is not a time and a speed", RIGHT),
    ("008:00,512", "008:00,512", "is not a time and a speed", RIGHT),
    ("-8:00,512", "-8:00,512", "is not a time and a speed", RIGHT),
    ("0\u0668:00,512", "0\u0668:00,512", "is not a time and a speed", RIGHT),
    ("24:00,512", "24:00,512", "there is no such time", "write one from 00:00 to 23:59"),
    ("08:60,512", "08:60,512", "there is no such time", "write one from 00:00 to 23:59"),
    ("08:00,-1", "08:00,-1", "the speed is negative", WHOLE),
    ("08:00,", "08:00,", "the speed is not a whole number", WHOLE),
    ("08:00,1.5", "08:00,1.5", "the speed is not a whole number", WHOLE),
    ("08:00,512k", "08:00,512k", "the speed is not a whole number", WHOLE),
    ("08:00,off", "08:00,off", "the speed is not a whole number", WHOLE),
    ("08:00,512;18:00,0", "08:00,512;18:00,0", "the speed is not a whole number", WHOLE),
    ("08:00,512,18:00,0", "08:00,512,18:00,0", "the speed is not a whole number", WHOLE),
    ("08:00,\u0665", "08:00,\u0665", "the speed is not a whole number", WHOLE),
    ("08:00,2147483648", "08:00,2147483648", "the speed is out of range", WHOLE + ", at most 2147483647"),
    (f"08:00,{10**4000}", f"08:00,{10**4000}", "the speed is out of range", WHOLE + ", at most 2147483647"),
    ("08:00,1 9:00,2 8:00,1", "8:00,1", "has the same time as '08:00,1'", "leave one out"),
    (-1, -1, "is negative", "write a whole number of KB/s, 0 or more"),
    (None, None, "is not a number", "write a whole number of KB/s, 0 or more"),
    (b"08:00,512", b"08:00,512", "is not a number", "write a whole number of KB/s, 0 or more"),
]


@pytest.mark.parametrize(("value", "shown", "wrong", "right"), BAD, ids=[str(bad[0])[:30] for bad in BAD])
def test_mistake_is_reported_for_its_entry(value: object, shown: object, wrong: str, right: str) -> None:
    with pytest.raises(Invalid) as caught:
        check(value)
    first = caught.value.problems[0]
    assert (first.value, first.problem, first.hint) == (shown, wrong, right)


def test_all_bad_entries_are_reported() -> None:
    with pytest.raises(Invalid) as caught:
        check("08:00,x 18:00,5 25:00,5 19:00,-5")
    assert [problem.value for problem in caught.value.problems] == ["08:00,x", "25:00,5", "19:00,-5"]


# Any timetable, and a day of one that looks at every minute ------------------------------------------------

MINUTES = range(DAY_SECONDS // 60)
timetables = st.dictionaries(st.sampled_from(MINUTES), st.integers(0, 5), min_size=1, max_size=6)
moments = st.floats(0, DAY_SECONDS, exclude_max=True)


def text_of(entries: dict[int, int]) -> str:
    return " ".join(f"{minute // 60:02d}:{minute % 60:02d},{speed}" for minute, speed in entries.items())


def naive(entries: dict[int, int]) -> list[int]:
    """The limit in each minute of a day, found by living through the day before."""
    limit = -1
    day = []
    for minute in itertools.chain(MINUTES, MINUTES):
        limit = entries.get(minute, limit)
        day.append(limit)
    return day[len(MINUTES) :]


@given(timetables, moments)
@example({0: 1}, 0.0)
@example({1439: 1, 0: 2}, math.nextafter(DAY_SECONDS, 0))
def test_limit_equals_that_of_a_clock_that_ran_all_day(entries: dict[int, int], now: float) -> None:
    assert check(text_of(entries)).speed(now) == naive(entries)[int(now // 60)]


@given(timetables.filter(lambda entries: len(entries) > 1), moments)
@example({1439: 1, 0: 2}, math.nextafter(DAY_SECONDS, 0))
@example({0: 1, 1: 2}, math.nextafter(60, 0))
def test_next_switch_is_the_next_entry(entries: dict[int, int], now: float) -> None:
    timetable = check(text_of(entries))
    left = timetable.until_switch(now)
    assert 0 < left <= DAY_SECONDS
    ahead = [(minute * 60 - now) % DAY_SECONDS or DAY_SECONDS for minute in entries]
    assert left == pytest.approx(min(ahead), abs=1e-6)
    limits = naive(entries)
    between = [limits[minute % len(MINUTES)] for minute in range(int(now // 60), round((now + left) / 60))]
    assert set(between) == {timetable.speed(now)}


@given(timetables.filter(lambda entries: len(entries) > 1), moments)
def test_switches_lead_round_the_clock(entries: dict[int, int], now: float) -> None:
    timetable = check(text_of(entries))
    seen = []
    for _ in entries:
        now = (now + timetable.until_switch(now)) % DAY_SECONDS
        seen.append((round(now / 60) % len(MINUTES), timetable.speed(round(now) % DAY_SECONDS)))
    assert sorted(seen) == sorted(entries.items())
