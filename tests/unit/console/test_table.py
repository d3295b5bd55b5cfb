"""What status and top print."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inosync.console import commands, table
from inosync.console.top import Top

NOW = 1_750_000_000.0


def node(**more: Any) -> dict[str, Any]:
    return {
        "node": "u@a:",
        "name": "a",
        "state": "ok",
        "lag": 0.0,
        "pending": 0,
        "reason": "",
        "retry_at": None,
        "attempts": 0,
        "percent": None,
        "last_ok": NOW - 5,
        "batches": 3,
        "bytes": 1_234_567,
        **more,
    }


def master(**more: Any) -> dict[str, Any]:
    told = {
        "summary": "1 node: 1 ok",
        "directories": 7,
        "unwatched": 0,
        "unwatched_reason": "",
        "uptime": 61.0,
    }
    return {**told, "halted": [], "refused": [], **more}


def test_a_node_is_a_line() -> None:
    failing = node(
        name="b", state="retrying", attempts=3, lag=12.34, pending=7, reason="refused", retry_at=NOW + 5
    )
    head, first, second = table.lines([failing, node()], NOW)
    at = [time.strftime("%H:%M:%S", time.localtime(NOW + shift)) for shift in (-5, 5)]
    columns = ("NODE", "STATE", "LAG", "WAITING", "LAST OK", "NEXT TRY", "BATCHES", "BYTES", "REASON")
    assert head.split() == " ".join(columns).split()
    assert first.split() == ["b", "retrying", "3", "12.3", "s", "7", *at, "3", "1.2", "MB", "refused"]
    assert second.split() == ["a", "ok", "0.0", "s", "0", at[0], "-", "3", "1.2", "MB"]


def test_lines_are_cut_to_the_terminal_and_whole_without_one() -> None:
    told = [node(reason="r" * 300)]
    assert all(len(line) <= 60 for line in table.lines(told, NOW, 60))
    assert table.lines(told, NOW, 60)[1].endswith("…")
    assert table.lines(told, NOW)[1].endswith("r" * 300)


def test_names_and_reasons_drive_no_terminal() -> None:
    evil = "\x1b[2J\n\r\u202e"
    told = [node(name=f"n{evil}", reason=f"why{evil}")]
    text = "\n".join(table.lines(told, NOW) + Top().frame({"master": master(), "nodes": told}, 200, 50, NOW))
    assert not any(bad in text for bad in ("\x1b", "\r", "\u202e"))
    assert len(table.lines(told, NOW)) == 2
    assert "\x1b" not in "\n".join(table.worries(master(halted=[evil], refused=[evil])))


def test_what_is_worth_knowing_of_the_daemon() -> None:
    assert table.summary(master()) == "1 node: 1 ok; 7 directories watched; up 1 min 1 s"
    assert "3 not: too many" in table.summary(master(unwatched=3, unwatched_reason="too many"))
    assert table.worries(master(halted=["/x is empty"], refused=["no"])) == [
        "halted: /x is empty",
        "not reloaded: no",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59, "59 s"), (60, "1 min"), (3_661, "1 h 1 min"), (90_000, "1 d 1 h"), (86_400, "1 d")],
)
def test_durations(seconds: float, text: str) -> None:
    assert table.seconds(seconds) == text


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
def test_sizes(count: int, text: str) -> None:
    assert table.size(count) == text


@given(st.lists(st.floats(0, 1e9), max_size=50), st.integers(1, 40))
def test_a_sparkline_has_a_mark_for_each_value_and_rises_with_them(values: list[float], width: int) -> None:
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
def test_a_bar(percent: int, done: int) -> None:
    assert table.bar(percent, 20) == "█" * done + "░" * (20 - done)


def test_top_fits_the_screen_and_remembers_the_lag() -> None:
    top = Top()
    told = {"master": master(), "nodes": [node(name=f"n{number}") for number in range(200)]}
    lines = top.frame(told, 80, 24, NOW)
    assert len(lines) == 24
    assert all(len(line) <= 80 for line in lines)
    assert lines[-1].startswith("q")
    assert "more nodes" in lines[-2]
    told["nodes"] = [node(name="n7", lag=8.0), node(name="n8", state="full", percent=40)]
    lines = top.frame(told, 200, 24, NOW)
    assert "▁█" in next(line for line in lines if "n7" in line)
    assert "█" * 8 + "░" * 12 + "  40%" in next(line for line in lines if "n8" in line)


@pytest.mark.parametrize("height", [1, 2, 3, 5])
@pytest.mark.parametrize("width", [1, 20])
def test_top_does_not_mind_a_tiny_screen(width: int, height: int) -> None:
    assert Top().frame({"master": master(), "nodes": [node()]}, width, height, NOW)


@pytest.mark.parametrize(
    ("nodes", "tolerance", "code"),
    [
        ([node()], 0, 0),
        ([node(), node(state="syncing", pending=1, lag=0.1)], 0, 1),
        ([node(), node(state="syncing", pending=1, lag=0.1)], 5, 0),
        ([node(), node(state="syncing", pending=1, lag=6)], 5, 1),
        ([node(state="lagging", pending=1, lag=1)], 5, 1),
        ([node(state="paused")], 0, 1),
        ([node(state="starting")], 0, 1),
        ([node(state="full")], 0, 1),
        ([node(state="starting"), node(state="degraded")], 0, 2),
        ([node(state="retrying")], 9, 2),
        ([node(state="halted")], 0, 2),
        ([], 0, 0),
    ],
)
def test_the_exit_code_of_status(nodes: list[dict[str, Any]], tolerance: float, code: int) -> None:
    assert commands.verdict(nodes, tolerance) == code
