"""The screen of top."""

from __future__ import annotations

import pytest
from support.descriptions import NOW, master, node

from inosync.console.top import Top


def test_frame_fits_the_screen_and_shows_earlier_lags() -> None:
    top = Top()
    snapshot = {"master": master(), "nodes": [node(name=f"n{number}") for number in range(200)]}
    lines = top.frame(snapshot, 80, 24, NOW)
    assert len(lines) == 24
    assert all(len(line) <= 80 for line in lines)
    assert lines[-1].startswith("q")
    assert "more nodes" in lines[-2]
    snapshot["nodes"] = [node(name="n7", lag=8.0), node(name="n8", state="full", percent=40)]
    lines = top.frame(snapshot, 200, 24, NOW)
    assert "▁█" in next(line for line in lines if "n7" in line)
    assert "█" * 8 + "░" * 12 + "  40%" in next(line for line in lines if "n8" in line)


@pytest.mark.parametrize("height", [1, 2, 3, 5])
@pytest.mark.parametrize("width", [1, 20])
def test_frame_fits_a_tiny_screen(width: int, height: int) -> None:
    assert Top().frame({"master": master(), "nodes": [node()]}, width, height, NOW)


def test_frame_escapes_names_and_reasons() -> None:
    evil = "\x1b[2J\n\r\u202e"
    nodes = [node(name=f"n{evil}", reason=f"why{evil}")]
    text = "\n".join(Top().frame({"master": master(halted=[evil]), "nodes": nodes}, 200, 50, NOW))
    assert not any(bad in text for bad in ("\x1b", "\r", "\u202e"))


def test_frame_forgets_the_lags_of_removed_nodes() -> None:
    top = Top()
    for name in ("a", "b", "a"):
        lines = top.frame({"master": master(), "nodes": [node(name=name, lag=1.0)]}, 200, 24, NOW)
    assert lines[3].startswith("█ ")
