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

    def ask(_seen: int) -> dict[str, object]:
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
        StatusSource(lambda _seen: reply, lambda: 0.0, lambda: 0.0).snapshot().why
        == "the daemon is of another version"
    )


def test_transferred_bytes_are_those_of_the_time_asked_for() -> None:
    history = History()
    assert history.transferred("a", 60) == 0
    for number in range(MAX_POINTS + 5):
        history.add_points(Snapshot(0, {}, [statuses.node("a", bytes=number * 1000)]))
    assert history.transferred("a", 60) == 6_000
    assert history.transferred("a", 3600) == (MAX_POINTS - 1) * 1000
    assert history.transferred("a", 0) == 0
    history.add_points(Snapshot(0, {}, [statuses.node("a", bytes=0)]))
    assert history.transferred("a", 60) == 0, "the node has been removed and added again"


def test_events_are_kept_until_others_are_recorded() -> None:
    now, seen, recorded = [0.0], [], [3]

    def ask(known: int) -> dict[str, object]:
        seen.append(known)
        reply = statuses.status([statuses.node("a")])
        if known != recorded[0]:
            reply |= {"recorded": recorded[0], "events": {"a": [[1.0, "state", f"is {recorded[0]}", 1]]}}
        return reply

    source = StatusSource(ask, lambda: now[0], lambda: 0.0)
    texts = []
    for second in range(4):
        now[0], recorded[0] = float(second), 3 if second < 2 else 4
        texts.append(source.snapshot().events["a"][0][2])
    assert texts == ["is 3", "is 3", "is 4", "is 4"]
    assert seen == [-1, 3, 3, 4]


def test_missing_answer_comes_with_the_last_one() -> None:
    now = [0.0]

    def ask(_seen: int) -> dict[str, object]:
        if now[0] > 0:
            raise NotRunning("gone")
        return statuses.status([statuses.node("a")])

    source = StatusSource(ask, lambda: now[0], lambda: 100 + now[0])
    for second in (0.0, 5.0, 10.0):
        now[0] = second
        snapshot = source.snapshot()
    assert not snapshot.up
    assert snapshot.before is not None
    assert (snapshot.at, snapshot.before.at, snapshot.before.before) == (110, 100, None)
    assert snapshot.nodes == (), "the metrics tell nothing that is not so now"
