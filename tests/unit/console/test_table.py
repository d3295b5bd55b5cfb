"""The table that status and top print."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import statuses
from support.descriptions import NOW, master, node

from inosync.console import table


def test_node_is_one_line() -> None:
    failing = node(
        name="b", state="retrying", attempts=3, lag=12.34, pending=7, reason="refused", retry_at=NOW + 5
    )
    head, first, second = table.lines([failing, node()], NOW)
    at = [time.strftime("%H:%M:%S", time.localtime(NOW + shift)) for shift in (-5, 5)]
    columns = ("NODE", "STATE", "LAG", "WAITING", "LAST OK", "NEXT TRY", "BATCHES", "BYTES", "REASON")
    assert head.split() == " ".join(columns).split()
    assert first.split() == ["b", "retrying", "3", "12.3", "s", "7", *at, "3", "1.2", "MB", "refused"]
    assert second.split() == ["a", "ok", "0.0", "s", "0", at[0], "-", "3", "1.2", "MB"]


def test_lines_are_cut_to_the_width_of_the_terminal() -> None:
    nodes = [node(reason="r" * 300)]
    assert all(len(line) <= 60 for line in table.lines(nodes, NOW, 60))
    assert table.lines(nodes, NOW, 60)[1].endswith("…")
    assert table.lines(nodes, NOW)[1].endswith("r" * 300)


def test_names_and_reasons_are_escaped_for_the_terminal() -> None:
    evil = "\x1b[2J\n\r\u202e"
    nodes = [node(name=f"n{evil}", reason=f"why{evil}")]
    text = "\n".join(table.lines(nodes, NOW))
    assert not any(bad in text for bad in ("\x1b", "\r", "\u202e"))
    assert len(table.lines(nodes, NOW)) == 2
    assert "\x1b" not in "\n".join(table.warnings(master(halted=[evil], refused=[evil])))


def test_summary_and_warnings_describe_the_daemon() -> None:
    assert table.summary(master()) == "1 node: 1 ok; 7 directories watched; up 1 min 1 s"
    assert "3 not: too many" in table.summary(master(unwatched=3, unwatched_reason="too many"))
    assert table.warnings(master(halted=["/x is empty"], refused=["no"])) == [
        "halted: /x is empty",
        "not reloaded: no",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59, "59 s"), (60, "1 min"), (3_661, "1 h 1 min"), (90_000, "1 d 1 h"), (86_400, "1 d")],
)
def test_duration_has_two_units(seconds: float, text: str) -> None:
    assert table.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.0 kB"),
        (99_400, "99.4 kB"),
        (99_500, "100 kB"),
        (999_600, "1.0 MB"),
        (10**18, "1000 PB"),
    ],
)
def test_size_has_a_unit_that_fits(count: int, text: str) -> None:
    assert table.size(count) == text


@given(st.lists(st.floats(0, 1e9), max_size=50), st.integers(1, 40))
def test_sparkline_has_a_mark_for_each_value_and_rises_with_them(values: list[float], width: int) -> None:
    marks = "▁▂▃▄▅▆▇█"
    line = table.sparkline(values, width)
    shown = values[-width:]
    assert len(line) == len(shown)
    heights = [marks.index(mark) for mark in line]
    for (a, left), (b, right) in zip(
        zip(shown, heights, strict=True), list(zip(shown, heights, strict=True))[1:], strict=False
    ):
        assert (a <= b) <= (left <= right)
    assert not shown or max(heights) == (7 if max(shown) > 0 else 0)


@pytest.mark.parametrize(("percent", "done"), [(0, 0), (50, 10), (100, 20), (250, 20)])
def test_bar_is_as_long_as_the_percentage(percent: int, done: int) -> None:
    assert table.bar(percent, 20) == "█" * done + "░" * (20 - done)


def test_hold_is_said_with_its_longest_time() -> None:
    assert table.held_lines(master()) == []
    [line] = table.warnings(master(held_until=0.0))
    assert re.fullmatch(r"held: nothing is sent to any node until release, or \d\d:\d\d:\d\d", line)


def test_warnings_tell_what_is_wrong_with_a_fleet() -> None:
    assert table.warnings(master(fleet=statuses.FLEET)) == [
        "sender us: it has not been heard of for a while",
        "served by no sender: 1 node",
    ]
    away = {**statuses.FLEET, "redis": "refused\n", "unserved": None}
    assert table.warnings(master(fleet=away)) == ["Redis: refused\\n"]
