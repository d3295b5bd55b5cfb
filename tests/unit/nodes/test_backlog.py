"""How far nodes are behind, and that it is counted once for all that are alike."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from support.filters import excludes

from inosync.changes import Change, Kind
from inosync.filters.rules import Rules
from inosync.journal.journal import Journal
from inosync.journal.subscription import Subscription
from inosync.nodes.backlog import Backlog

EVERYTHING = Subscription({1: Rules(())}, frozenset(), everything=True)
NOW = 100.0


def leaving_out(*patterns: str) -> Subscription:
    return Subscription({1: Rules(excludes(patterns))}, frozenset({1}), everything=False)


def node(cursor: int = 0, subscription: Subscription = EVERYTHING, **facts: Any) -> Any:
    facts = {"outstanding": None, **facts}
    retries = SimpleNamespace(
        count=facts.pop("retry_count", 0),
        oldest=facts.pop("oldest_retry", None),
        oldest_untried=facts.pop("oldest_untried", None),
    )
    return SimpleNamespace(cursor=cursor, subscription=subscription, retries=retries, **facts)


@pytest.fixture
def backlog() -> Backlog:
    journal = Journal()
    for number, path in enumerate((b"cache/f", b"x.tmp", b"y")):
        journal.record(Change(1, path, Kind.NAME), 50.0 + number)
    return Backlog(journal, lambda: NOW)


def test_backlog_counts_changes_after_the_cursor(backlog: Backlog) -> None:
    assert [backlog.pending(node(cursor)) for cursor in range(4)] == [3, 2, 1, 0]
    assert [backlog.oldest(node(cursor)) for cursor in range(4)] == [50.0, 51.0, 52.0, None]
    assert [backlog.lag(node(cursor)) for cursor in range(4)] == [50.0, 49.0, 48.0, 0.0]


def test_backlog_leaves_out_what_does_not_concern_the_node(backlog: Backlog) -> None:
    other = node(0, leaving_out("/cache/", "*.tmp"))
    assert (backlog.pending(other), backlog.oldest(other)) == (1, 52.0)
    other = node(0, leaving_out("/cache/", "*.tmp", "y"))
    assert (backlog.pending(other), backlog.oldest(other), backlog.lag(other)) == (0, None, 0.0)


def test_backlog_adds_retries_and_a_batch_without_names(backlog: Backlog) -> None:
    assert backlog.pending(node(2, retry_count=4)) == 5
    assert backlog.pending(node(3, outstanding="full mirror")) == 1
    assert backlog.pending(node(2, outstanding="one name")) == 1


def test_lag_is_never_negative(backlog: Backlog) -> None:
    assert backlog.lag(node(3, oldest_untried=NOW + 1)) == 0.0


def test_lag_is_that_of_the_oldest_missing_change_failed_or_not(backlog: Backlog) -> None:
    assert backlog.lag(node(3, oldest_retry=40.0)) == NOW - 40
    assert backlog.lag(node(0, oldest_retry=40.0)) == NOW - 40
    assert backlog.lag(node(0, oldest_retry=60.0)) == NOW - 50
    assert backlog.oldest(node(3, oldest_retry=40.0)) is None, "that degrades the node"
    assert backlog.oldest(node(3, oldest_untried=40.0)) == 40.0
    assert [backlog.oldest(node(0, oldest_untried=at)) for at in (40.0, 60.0)] == [40.0, 50.0]


def test_nodes_that_are_alike_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    journal, looks = Journal(), 0
    backlog = Backlog(journal, lambda: NOW)
    hides = Rules.hides

    def look(rules: Rules, path: bytes) -> bool:
        nonlocal looks
        looks += 1
        return hides(rules, path)

    monkeypatch.setattr(Rules, "hides", look)
    shared = leaving_out("*.tmp")
    nodes = [node(0, shared) for _ in range(20)]
    for number in range(100):
        journal.record(Change(1, b"f%d" % number, Kind.NAME), NOW)
    for number in range(3):
        journal.record(Change(1, b"%d.tmp" % number, Kind.NAME), NOW)
    for _ in range(2):
        assert {backlog.pending(each) for each in nodes} == {100}
        assert all(backlog.oldest(each) == NOW for each in nodes)
    assert looks == 103
    journal.record(Change(1, b"g", Kind.NAME), NOW)
    assert backlog.pending(nodes[0]) == 101
    nodes[0].cursor, nodes[1].subscription = journal.head, leaving_out("g*")
    assert [backlog.pending(each) for each in nodes[:3]] == [0, 103, 101]
