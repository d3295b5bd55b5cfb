"""The history of lags, and how often the daemon is asked."""

from __future__ import annotations

import math

import pytest
from support import statuses

from inosync.console.client import NotRunning
from inosync.console.history import MAX_POINTS, History, Snapshot, StatusSource


def test_history_is_an_hour_of_the_greatest_lags() -> None:
    history = History()
    for number in range(MAX_POINTS + 40):
        history.note_lags(Snapshot(0, {}, [statuses.node("a", lag=float(number) + 0.5)]))
        history.add_points(Snapshot(0, {}, [statuses.node("a", lag=0.0)]))
    assert list(history.points("a")) == [number + 0.5 for number in range(40, MAX_POINTS + 40)]


def test_history_forgets_removed_nodes_and_has_gaps_without_answers() -> None:
    history = History()
    history.add_points(Snapshot(0, {}, [statuses.node("a"), statuses.node("b")]))
    history.add_points(Snapshot(0, why="down"))
    assert [math.isnan(point) for point in history.points("a")] == [False, True]
    history.add_points(Snapshot(0, {}, [statuses.node("b", lag=2)]))
    assert list(history.points("a")) == []
    assert history.points("b")[-1] == 2


def test_daemon_is_asked_once_a_second_at_most() -> None:
    now, asked = [0.0], []

    def ask() -> dict[str, object]:
        asked.append(now[0])
        if now[0] > 2:
            raise NotRunning("not running")
        return statuses.status([statuses.node("a")])

    source = StatusSource(ask, lambda: now[0], lambda: statuses.NOW)
    for tenth in range(40):
        now[0] = tenth / 10
        snapshot = source.snapshot()
        assert snapshot.up is (now[0] < 3)
    assert asked == [0.0, 1.0, 2.0, 3.0]
    assert snapshot.why == "not running"


@pytest.mark.parametrize("reply", [{}, {"master": {}}, {"error": "x"}])
def test_reply_of_another_version_is_no_snapshot(reply: dict[str, object]) -> None:
    assert (
        StatusSource(lambda: reply, lambda: 0.0, lambda: 0.0).snapshot().why
        == "the daemon is of another version"
    )
