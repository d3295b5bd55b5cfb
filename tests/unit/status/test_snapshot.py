"""The snapshot of the daemon that ``status --json`` prints."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from inosync.nodes.counters import Counters
from inosync.nodes.lifecycle import Phase, WorkerState
from inosync.nodes.node import Node
from inosync.status.far_node import FarNode
from inosync.status.snapshot import MAX_AGE_SECONDS, Reloads, SnapshotBuilder
from inosync.text import NodeState


class World:
    """A daemon whose nodes are in these states."""

    def __init__(self, **states: NodeState) -> None:
        self.now = 1_000.0
        self.states, self.lags = states, dict.fromkeys(states, 0.0)
        self.nodes = {name: cast(Node, self.node(name)) for name in states}
        self.asked = 0
        node_states = SimpleNamespace(
            held_until=None,
            nodes=self.nodes,
            state_of=self.state_of,
            reason_for=lambda _node, state: f"it is {state}",
            lag_of=lambda node: self.lags[node.name],
            dispatch=SimpleNamespace(backlog=SimpleNamespace(pending=lambda _node: 7, journal=[1])),
            watcher=Watcher(),
            guard=SimpleNamespace(halted={}, reasons=list),
        )
        self.builder = SnapshotBuilder(cast(Any, node_states), Reloads("/etc/a.py"), lambda: self.now)

    def node(self, name: str) -> Any:
        return SimpleNamespace(
            name=name,
            spec=SimpleNamespace(node=f"user:secret@{name}:/srv"),
            worker=SimpleNamespace(
                state=WorkerState(Phase.WAITING, wake_at=1_060.0, attempt=3, percent=40), pid=None
            ),
            counters=Counters(),
            second=None,
            paused=False,
            last_ok=None,
            verified_at=None,
            differences=0,
        )

    def state_of(self, node: Node) -> NodeState:
        self.asked += 1
        return self.states[node.name]


class Watcher:
    events = overflows = 0
    directories = 5

    @property
    def coverage(self) -> Watcher:
        return self

    def unwatched(self) -> tuple[int, str]:
        return 0, "a reason of the past"


def test_nodes_stand_worst_first_then_by_lag_and_name() -> None:
    world = World(
        a=NodeState.OK, b=NodeState.LAGGING, c=NodeState.LAGGING, d=NodeState.HALTED, e=NodeState.OK
    )
    world.lags["c"] = 5.0
    snapshot = world.builder.of_all()
    assert [node["name"] for node in snapshot["nodes"]] == ["d", "c", "b", "a", "e"]
    assert snapshot["master"]["states"] == {"halted": 1, "lagging": 2, "ok": 2}
    assert snapshot["master"]["summary"] == "5 nodes: 2 ok, 2 lagging, 1 halted"
    assert snapshot["master"]["unwatched_reason"] == ""
    assert "secret" not in json.dumps(snapshot)


def test_snapshot_of_all_nodes_is_given_again_while_it_is_fresh() -> None:
    world = World(a=NodeState.OK)
    first = world.builder.of_all()
    world.states["a"] = NodeState.PAUSED
    world.now += MAX_AGE_SECONDS / 2
    assert world.builder.of_all() is first
    world.now += MAX_AGE_SECONDS
    assert world.builder.of_all()["nodes"][0]["state"] == "paused"
    assert world.builder.of_nodes(())["nodes"] == []


@pytest.mark.parametrize(
    ("state", "attempts", "percent"),
    [(NodeState.RETRYING, 3, None), (NodeState.FULL, 0, 40), (NodeState.PAUSED, 0, None)],
)
def test_details_belong_to_their_state(state: NodeState, attempts: int, percent: int | None) -> None:
    world = World(a=state)
    node = world.builder.of_all()["nodes"][0]
    assert (node["attempts"], node["percent"]) == (attempts, percent)
    assert (node["retry_at"] is None) == (state is not NodeState.RETRYING)
    if node["retry_at"] is not None:
        assert abs(node["retry_at"] - time.time() - 60) < 30


def test_lag_of_a_node_is_what_flush_tells() -> None:
    world = World(a=NodeState.PAUSED)
    world.lags["a"] = 1.23456
    assert world.builder.lag_of(world.nodes["a"]) == {
        "name": "a",
        "state": "paused",
        "lag": 1.235,
        "pending": 7,
        "reason": "it is paused",
    }


def test_summary_counts_the_nodes_of_senders() -> None:
    world = World(a=NodeState.OK)
    far = [
        FarNode(name, 3, {"name": name, "state": state, "lag": 0.0})
        for name, state in (("f", "ok"), ("g", "lagging"))
    ]
    fleet = {"redis": "", "unserved": 0, "senders": []}
    parts = cast(Any, SimpleNamespace(all=lambda: far, fleet=lambda: fleet))
    world.builder._far = parts
    for snapshot in (world.builder.of_all(), world.builder.of_nodes(())):
        assert snapshot["master"]["states"] == {"lagging": 1, "ok": 2}
        assert snapshot["master"]["summary"] == "3 nodes: 2 ok, 1 lagging"
        assert snapshot["master"]["fleet"] == fleet
    assert "fleet" not in World(a=NodeState.OK).builder.of_all()["master"]
