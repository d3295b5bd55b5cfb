"""The state of a node and the reason for it, from what master and worker know."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from inosync.changes import Lane
from inosync.nodes.lifecycle import Phase, WorkerState
from inosync.nodes.messages import Batch
from inosync.nodes.node import Node
from inosync.nodes.outstanding import Outstanding
from inosync.nodes.retries import RetrySet
from inosync.status.state import MAX_TROUBLES, NodeStates
from inosync.text import NodeState

NOW, MAX_LAG = 1_000.0, 10.0
IDLE = WorkerState(phase=Phase.IDLE)
WAITING = WorkerState(phase=Phase.WAITING, reason="refused")
SECOND = Outstanding(Batch(1, 1, False, lane=Lane.SECOND), 0, NOW, NOW, percent=5)
CRASHED = WorkerState(phase=Phase.DOWN, deaths=2, reason="worker ended with exit code 1")


def made(**facts: Any) -> tuple[NodeStates, Node]:
    """The states of a node that is ok but for these facts, and the node."""

    def fact(name: str, default: Any) -> Any:
        return facts.get(name, default)

    node = SimpleNamespace(
        name="n",
        trees=(1,),
        worker=SimpleNamespace(state=fact("worker", IDLE)),
        paused=fact("paused", False),
        last_ok=fact("last_ok", NOW),
        is_resumed=fact("is_resumed", False),
        counters=SimpleNamespace(batches=fact("batches", 0)),
        problem=fact("problem", ""),
        retries=RetrySet((1.0, 2.0)),
        second=fact("second", None),
    )
    backlog = SimpleNamespace(oldest=lambda _node: fact("oldest", None), lag=lambda _node: fact("lag", 0.0))
    dispatch = SimpleNamespace(
        roll_out=SimpleNamespace(hold_before=lambda _name: fact("hold", ""), limits={}),
        backlog=backlog,
        waits_for=lambda _node: fact("waits_for", ""),
        held_until=fact("held_until", None),
    )
    watcher = SimpleNamespace(
        searching_since=fact("searching_since", None),
        incomplete_trees=fact("incomplete_trees", set()),
        coverage=SimpleNamespace(
            unwatched=lambda _trees=None: fact("unwatched", (0, "")),
            unseen_since=lambda trees: fact("unseen_since", {}).get(trees),
        ),
    )
    halted = fact("halted", {})
    guard = SimpleNamespace(
        halted=halted, reasons=lambda trees: [halted[tree] for tree in trees if tree in halted]
    )
    parts = cast(Any, dispatch), cast(Any, watcher), cast(Any, guard)
    nodes = {"n": cast(Node, node)}
    return NodeStates(nodes, *parts, MAX_LAG, lambda: NOW), nodes["n"]


@pytest.mark.parametrize(
    ("facts", "state", "reason"),
    [
        ({}, NodeState.OK, ""),
        ({"last_ok": None}, NodeState.STARTING, ""),
        ({"last_ok": None, "held_until": NOW, "waits_for": "held"}, NodeState.STARTING, "held"),
        ({"second": SECOND}, NodeState.SYNCING, "1 big file, 5%"),
        ({"paused": True}, NodeState.PAUSED, "by the operator"),
        ({"halted": {1: "it is empty", 2: "of others"}}, NodeState.HALTED, "it is empty"),
        ({"halted": {2: "of others"}}, NodeState.OK, ""),
        ({"worker": WAITING}, NodeState.RETRYING, "refused"),
        ({"worker": CRASHED}, NodeState.RETRYING, "worker ended with exit code 1"),
        ({"oldest": NOW - MAX_LAG}, NodeState.OK, ""),
        ({"oldest": NOW - MAX_LAG - 1}, NodeState.LAGGING, "waiting for the tree to be quiet"),
        ({"oldest": 0.0, "waits_for": "waiting for a slot"}, NodeState.LAGGING, "waiting for a slot"),
        ({"incomplete_trees": {1}}, NodeState.LAGGING, "directories are being walked"),
        ({"incomplete_trees": {2}}, NodeState.OK, ""),
        ({"searching_since": NOW - 1}, NodeState.OK, ""),
        (
            {"searching_since": 0.0},
            NodeState.LAGGING,
            "other names of files that have changed are searched for",
        ),
        ({"oldest": NOW, "hold": "stage 1 was not let pass"}, NodeState.HELD, "stage 1 was not let pass"),
        ({"hold": "stage 1 was not let pass", "searching_since": NOW}, NodeState.OK, ""),
        ({"problem": "denied"}, NodeState.DEGRADED, "denied"),
        (
            {"unwatched": (1, "no watches left")},
            NodeState.DEGRADED,
            "1 directory not watched: no watches left",
        ),
        ({"unwatched": (2, "lost")}, NodeState.DEGRADED, "2 directories not watched: lost"),
    ],
)
def test_state_and_reason_follow_from_the_facts(facts: dict[str, Any], state: NodeState, reason: str) -> None:
    states, node = made(**facts)
    assert states.state_of(node) is state
    assert states.reason_for(node, state) == reason


def test_new_max_lag_is_in_force_at_once() -> None:
    states, node = made(oldest=NOW - 20)
    assert states.state_of(node) is NodeState.LAGGING
    states.set_max_lag(30.0)
    assert states.state_of(node) is NodeState.OK


def test_troubles_name_halted_trees_and_some_nodes_without_a_worker() -> None:
    states, node = made(worker=CRASHED, halted={1: "it is empty"})
    crash = "n: worker ended with exit code 1, 2 times in a row"
    assert states.troubles() == ["it is empty", crash]
    cast(dict[str, Node], states.nodes).update({f"{number}": node for number in range(MAX_TROUBLES + 1)})
    assert states.troubles() == ["it is empty", *[crash] * MAX_TROUBLES, "2 more"]


@pytest.mark.parametrize(
    ("facts", "lag"),
    [
        ({}, 0.0),
        ({"lag": 7.0}, 7.0),
        ({"lag": 7.0, "unseen_since": {(1,): NOW - 5}}, 7.0),
        ({"lag": 7.0, "unseen_since": {(1,): NOW - 9}}, 9.0),
        ({"unseen_since": {(2,): NOW - 9}}, 0.0),
    ],
)
def test_lag_is_the_age_of_what_may_be_missing(facts: dict[str, Any], lag: float) -> None:
    states, node = made(**facts)
    assert states.lag_of(node) == lag
