"""When everything has been mirrored once, as far as it can be."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

from inosync.master.once import TRIES, Once
from inosync.messages import NodeState
from inosync.nodes.lifecycle import WorkerState


@dataclass
class World:
    """What it looks at, as far as it does: one node and its state."""

    verdict: NodeState = NodeState.FULL
    node: SimpleNamespace = field(
        default_factory=lambda: SimpleNamespace(name="a", worker=SimpleNamespace(state=WorkerState()))
    )
    lacks_since: float | None = None
    walking: set[int] = field(default_factory=set)
    done: list[Any] = field(default_factory=list)

    def once(self) -> Once:
        parts = [
            SimpleNamespace(incomplete_trees=self.walking, is_walking=False),
            SimpleNamespace(backlog=SimpleNamespace(oldest=lambda _node: self.lacks_since)),
            SimpleNamespace(begin=lambda _nodes, _deadline, done: self.done.append(done)),
            SimpleNamespace(state_of=lambda _node: self.verdict),
            SimpleNamespace(of_nodes=lambda _nodes: {"nodes": [self.verdict.value]}),
        ]
        return Once({"a": cast(Any, self.node)}, *cast(list[Any], parts))


def test_it_waits_until_all_is_walked_and_the_node_has_everything() -> None:
    world = World(walking={1})
    once = world.once()
    assert not once.look()
    assert world.done == []
    world.walking.clear()
    assert not once.look()
    [done] = world.done
    done(["a"])
    assert not once.look()
    done([])
    assert once.look()
    assert once.outcome == {"nodes": ["full"]}


def test_a_node_is_given_up_after_some_tries() -> None:
    world = World(NodeState.RETRYING)
    world.node.worker.state = WorkerState(attempt=TRIES - 1)
    once = world.once()
    assert not once.look()
    world.node.worker.state = WorkerState(attempt=TRIES)
    assert once.look()


def test_what_was_complained_of_is_not_waited_for_but_what_was_not_tried_is() -> None:
    world = World(NodeState.DEGRADED, lacks_since=5.0)
    once = world.once()
    assert not once.look(), "another tree may not have had its turn"
    world.lacks_since = None
    assert once.look()
