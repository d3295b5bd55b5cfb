"""How the origin shows nodes that senders serve."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from inosync.changes import Change, Kind
from inosync.config.nodes import NodeSpec
from inosync.console import table
from inosync.fleet.node_reports import Event, ReportedNode
from inosync.fleet.records import Arrived, Beat, NodeRecord
from inosync.journal.journal import Journal
from inosync.status.far_node import UNKNOWN
from inosync.status.far_nodes import FarNodes
from inosync.text import NodeState

NOW = 100.0
OK = ReportedNode(NodeState.OK, batches=3, last_ok=1.0)
REFUSED = ReportedNode(NodeState.RETRYING, "refused", attempts=4)
READY = Beat(True, "copy", "config")


@dataclass
class Facts:
    problem: str = ""
    records: dict[str, NodeRecord] = field(default_factory=lambda: {"n": NodeRecord("e", 3)})
    holders: dict[str, str] = field(default_factory=lambda: {"n": "eu"})
    reported: dict[str, ReportedNode] = field(default_factory=lambda: {"n": OK})
    beats: dict[str, Beat] = field(default_factory=lambda: {"eu": READY})
    arrived: dict[str, Arrived] = field(default_factory=lambda: {"eu": Arrived("e", 2, "copy")})
    ages: dict[str, float] = field(default_factory=lambda: {"eu": 1.5})
    paused: tuple[str, ...] = ()
    owed: tuple[str, ...] = ()
    events: dict[str, dict[str, list[Event]]] = field(default_factory=dict)
    recorded: int = 0


def nodes(facts: Facts, head: int = 3) -> FarNodes:
    journal = Journal()
    for number in range(head):
        journal.record(Change(1, b"%d" % number, Kind.NAME), NOW - 50 + number)
    loop: Any = SimpleNamespace(clock=lambda: NOW)
    return FarNodes(("eu", "us"), (NodeSpec("h:/x", "n"),), facts, journal, 10.0, loop)


@pytest.mark.parametrize(
    ("facts", "head", "state", "reason", "lag", "pending"),
    [
        (Facts(), 3, "ok", "", 0.0, 0),
        (Facts(), 5, "lagging", "", 47.0, 2),
        (
            Facts(reported={"n": ReportedNode(NodeState.RETRYING, "refused", attempts=4)}),
            5,
            "retrying",
            "refused",
            47,
            2,
        ),
        (Facts(reported={}), 3, "starting", "", 0.0, 0),
        (Facts(holders={}), 3, "lagging", "no sender serves it: its lease is free", 0.0, 0),
        (Facts(holders={}, beats={}), 3, "lagging", "no sender serves it: no sender is ready", 0.0, 0),
        (Facts(problem="gone"), 3, "lagging", "Redis cannot be used: what senders do is not known", 0.0, 0),
        (Facts(records={}), 3, "syncing", "", 50.0, 1),
    ],
)
def test_state_of_a_node_of_a_sender(
    facts: Facts, head: int, state: str, reason: str, lag: float, pending: int
) -> None:
    far = nodes(facts, head)
    far.max_lag = 10.0 if facts.records else 60.0
    [node] = far.all()
    shown = node.description
    found = (shown["state"], shown["reason"], shown["lag"], shown["pending"])
    if not facts.records:  # the far floor is 0, and nothing is known of the node
        pending = 3 if node.cursor >= 0 else 1
    assert found == (state, reason, lag, pending)
    assert node.cursor == (3 if facts.records else UNKNOWN)


def test_node_is_found_by_its_name_and_as_it_is_written() -> None:
    far = nodes(Facts())
    assert [node.name for node in far.find("n")] == ["n"]
    assert [node.name for node in far.find("h:/x")] == ["n"]
    assert far.find("other") == []


def test_senders_are_told_with_what_they_serve() -> None:
    eu, us = nodes(Facts()).senders()
    assert (eu["name"], eu["ready"], eu["nodes"], eu["arrived"], eu["lag"]) == ("eu", True, ["n"], 2, 48.0)
    assert (us["name"], us["ready"], us["nodes"], us["arrived"]) == ("us", False, [], None)
    assert us["reason"] == "it has not been heard of for a while"
    assert [one["ready"] for one in nodes(Facts(problem="gone")).senders()] == [False, False]
    late = replace(READY, reason="it stays behind", is_late=True)
    lines = table.sender_lines(nodes(Facts(beats={"eu": late})).senders())
    assert lines[1].split()[:2] == ["eu", "late"]
    assert lines[1].endswith("it stays behind")
    lines = table.sender_lines([eu, us])
    assert lines[0].split() == ["SENDER", "STATE", "NODES", "ARRIVED", "BEHIND", "HEARD", "REASON"]
    assert lines[1].split() == ["eu", "ready", "1", "2", "48.0", "s", "1.5", "s", "ago"]


def test_table_has_a_column_for_the_sender_only_in_a_fleet() -> None:
    [node] = nodes(Facts()).all()
    own = {key: value for key, value in node.description.items() if key != "via"} | {"name": "own"}
    head, first, second = table.lines([node.description, own], 0.0)
    assert head.split()[:3] == ["NODE", "VIA", "STATE"]
    assert (first.split()[:3], second.split()[:3]) == (["n", "eu", "ok"], ["own", "-", "ok"])
    assert "VIA" not in table.lines([own], 0.0)[0]


def test_paused_node_is_paused_whatever_its_sender_says() -> None:
    (node,) = nodes(Facts(paused=("n", "m"), owed=("n",)), 5).all()
    assert (node.paused, node.is_owed) == (True, True)
    assert (node.description["state"], node.description["paused"]) == ("paused", True)
    assert node.description["lag"] > 0, "it falls behind meanwhile"
    (node,) = nodes(Facts(), 5).find("n")
    assert (node.paused, node.is_owed, node.description["paused"]) == (False, False, False)


def test_fleet_says_what_is_wrong_with_it_as_a_whole() -> None:
    fleet = nodes(Facts()).fleet()
    assert (fleet["redis"], fleet["unserved"]) == ("", 0)
    assert [(one["name"], one["heard"]) for one in fleet["senders"]] == [("eu", 1.5), ("us", None)]
    assert nodes(Facts(holders={})).fleet()["unserved"] == 1
    away = nodes(Facts(problem="refused")).fleet()
    assert (away["redis"], away["unserved"]) == ("refused", None), "leases are not known then"
    assert [one["heard"] for one in away["senders"]] == [None, None]


def test_events_of_a_node_are_those_of_all_senders_in_order() -> None:
    served, other = [(2.0, "state", "is ok", 1)], [(1.0, "state", "is ok", 1), (3.0, "failed", "refused", 2)]
    found = nodes(Facts(events={"us": {"n": served}, "eu": {"n": other, "m": served}})).events("n")
    assert found == [other[0], served[0], other[1]]
