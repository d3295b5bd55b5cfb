"""When everything has been mirrored once, as far as it can be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from unit.master.mirrors import mirror

from inosync.master.once import MAX_TRIES, Once
from inosync.nodes.lifecycle import WorkerState
from inosync.nodes.roll_out import RollOut
from inosync.nodes.stages import Plan
from inosync.text import NodeState


@dataclass
class World:
    """What it looks at, as far as it does: a node and its state, and others in stages."""

    verdict: NodeState = NodeState.FULL
    node: SimpleNamespace = field(
        default_factory=lambda: SimpleNamespace(
            name="a", paused=False, worker=SimpleNamespace(state=WorkerState())
        )
    )
    others: dict[str, SimpleNamespace] = field(default_factory=dict)
    verdicts: dict[str, NodeState] = field(default_factory=dict)
    """By node, if it is not ``verdict``."""
    roll_out: RollOut = field(default_factory=RollOut)
    lacks_since: float | None = None
    walking: set[int] = field(default_factory=set)
    done: list[Any] = field(default_factory=list)

    def once(self) -> Once:
        parts = [
            SimpleNamespace(incomplete_trees=self.walking, is_walking=False),
            SimpleNamespace(begin=lambda _nodes, _deadline, done: self.done.append(done)),
            SimpleNamespace(state_of=lambda node: self.verdicts.get(node.name, self.verdict)),
            SimpleNamespace(of_nodes=lambda _nodes: {"nodes": [self.verdict.value]}),
        ]
        backlog = SimpleNamespace(oldest=lambda _node: self.lacks_since)
        dispatch = SimpleNamespace(backlog=backlog, roll_out=self.roll_out)
        nodes = {"a": self.node} | self.others
        return Once(mirror(nodes=nodes, dispatch=dispatch), *cast(list[Any], parts))

    def flushed(self, number: int, behind: Sequence[str] = ()) -> None:
        """The flush of a node has ended."""
        self.done[number](behind)


def test_once_waits_until_all_is_walked_and_the_node_is_level() -> None:
    world = World(walking={1})
    once = world.once()
    assert not once.is_done()
    assert world.done == []
    world.walking.clear()
    assert not once.is_done()
    [done] = world.done
    done([])
    assert once.is_done()
    once.conclude()
    assert once.outcome == {"nodes": ["full"]}


def test_node_is_given_up_after_some_tries() -> None:
    world = World(NodeState.RETRYING)
    world.node.worker.state = WorkerState(attempt=MAX_TRIES - 1)
    once = world.once()
    assert not once.is_done()
    world.node.worker.state = WorkerState(attempt=MAX_TRIES)
    assert once.is_done()


def test_once_waits_for_the_untried_but_not_for_what_has_failed() -> None:
    world = World(NodeState.DEGRADED, lacks_since=5.0)
    once = world.once()
    assert not once.is_done(), "another tree may not have had its turn"
    world.lacks_since = None
    assert once.is_done()


def test_hopeless_node_is_given_up_after_one_try() -> None:
    world = World(NodeState.RETRYING)
    world.node.worker.state = WorkerState(attempt=1, is_hopeless=True)
    assert world.once().is_done()


def test_node_whose_flush_has_ended_without_all_is_given_up() -> None:
    world = World(NodeState.HELD)
    once = world.once()
    assert not once.is_done(), "a later change may pass"
    world.flushed(0, ["a"])
    assert once.is_done()


# The second stage waits for nodes of the first, which has a dead one.
@pytest.mark.parametrize(
    ("patience", "level", "is_done"),
    [
        (math.inf, (0,), True),
        (9.0, (0,), False),  # it is given up, then the other is enough
        (9.0, (), False),
        (9.0, (0, 2), True),
    ],
)
def test_node_that_waits_for_a_dead_one_is_given_up(
    patience: float, level: tuple[int, ...], is_done: bool
) -> None:
    world = World(NodeState.STARTING)
    dead = SimpleNamespace(state=WorkerState(attempt=MAX_TRIES))
    world.others = {name: SimpleNamespace(name=name, paused=False, worker=dead) for name in ("dead", "late")}
    world.verdicts["dead"] = NodeState.RETRYING
    world.roll_out.follow(Plan((("a", "dead"), ("late",)), patience=patience))
    once = world.once()
    assert not once.is_done()
    for number in level:
        world.flushed(number)
    assert once.is_done() is is_done


def test_node_that_waits_for_dead_ones_alone_is_given_up_at_once() -> None:
    world = World(NodeState.RETRYING)
    world.node.worker.state = WorkerState(attempt=MAX_TRIES)
    world.others = {"late": SimpleNamespace(name="late", paused=False)}
    world.verdicts["late"] = NodeState.STARTING
    world.roll_out.follow(Plan((("a",), ("late",)), patience=9.0))
    assert world.once().is_done()
