"""When everything has been mirrored once, as far as it can be."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

from inosync.master.once import MAX_TRIES, Once
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
            SimpleNamespace(oldest=lambda _node: self.lacks_since),
            SimpleNamespace(begin=lambda _nodes, _deadline, done: self.done.append(done)),
            SimpleNamespace(state_of=lambda _node: self.verdict),
            SimpleNamespace(of_nodes=lambda _nodes: {"nodes": [self.verdict.value]}),
        ]
        return Once({"a": cast(Any, self.node)}, *cast(list[Any], parts))


def test_once_waits_until_all_is_walked_and_the_node_is_level() -> None:
    world = World(walking={1})
    once = world.once()
    assert not once.is_done()
    assert world.done == []
    world.walking.clear()
    assert not once.is_done()
    [done] = world.done
    done(["a"])
    assert not once.is_done()
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
