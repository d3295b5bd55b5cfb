"""Which worker starts when, and when the pool has ended; nodes and processes are made up."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support import configs
from support.recorder import Recorder
from unit.master.mirrors import mirror

from inosync.master.trees import TreeTable
from inosync.master.worker_pool import KILL_SECONDS, KILLED_SECONDS, WorkerPool, make_job
from inosync.nodes.node import Node
from inosync.system.loop import Loop


class FakeNode:
    """A node and its worker, which has a process from ``start`` until the test ends it."""

    def __init__(self, name: str, world: World, address: str = "") -> None:
        self.name, self.world = name, world
        self.spec = SimpleNamespace(node=address or f"{name}:")
        self.address = self.spec.node
        self.process: str | None = None
        self.queue = None
        self.killed_at: float | None = None
        self.orders: list[str] = []
        world.nodes[name] = self

    @property
    def real(self) -> Node:
        return cast(Node, self)

    @property
    def worker(self) -> FakeNode:
        return self

    def allow_restart(self) -> None:
        pass

    def start(self) -> None:
        self.orders.append("start")
        self.process, self.address = f"process of {self.name}", self.spec.node

    def stop(self, grace: float) -> None:
        self.orders.append(f"stop {grace:g}")

    def kill(self) -> None:
        self.orders.append("kill")
        self.killed_at = self.killed_at or self.world.now

    def end(self) -> None:
        """The worker has ended, as it was told to."""
        self.process = None
        self.world.pool.worker_stopped(self.real)
        self.world.loop.turn(0)


class World:
    def __init__(self) -> None:
        self.now = 100.0
        self.loop = Loop(lambda: self.now)
        self.nodes: dict[str, FakeNode] = {}
        self.calls: list[tuple[Any, ...]] = []
        part: Any = Recorder(self.calls)
        self.pool = WorkerPool(
            mirror(nodes=self.nodes, dispatch=part, guard=part, loop=self.loop),
            part,
            part,
            part,
            list,
            "/spool",
        )

    def started(self, name: str, address: str = "") -> FakeNode:
        node = FakeNode(name, self, address)
        node.start()
        return node

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.loop.turn(0)


@pytest.fixture
def world() -> World:
    return World()


def test_replaced_worker_is_followed_by_another_when_it_has_ended(world: World) -> None:
    a = world.started("a")
    world.pool.replace_worker(a.real)
    assert a.orders == ["start", "stop 5"]
    a.end()
    assert a.orders == ["start", "stop 5", "start"]


def test_node_without_a_worker_to_replace_is_started_at_once(world: World) -> None:
    a = FakeNode("a", world)
    world.pool.replace_worker(a.real)
    world.loop.turn(0)
    assert a.orders == ["stop 5", "start"]


def test_removed_node_is_not_started_again(world: World) -> None:
    a = world.started("a")
    world.pool.remove("a")
    assert world.pool.alive() == [a.real]
    a.end()
    assert a.orders == ["start", "stop 5"]
    assert world.pool.alive() == []


def test_worker_is_not_started_while_another_may_write_to_the_same_place(world: World) -> None:
    old = world.started("old", "host:/www")
    world.pool.remove("old")
    new = FakeNode("new", world, "host:/www")
    world.pool.start(new.real)
    assert new.orders == []
    old.end()
    assert new.orders == ["start"]


def test_replaced_worker_that_is_removed_meanwhile_has_no_successor(world: World) -> None:
    a = FakeNode("a", world)
    world.pool.replace_worker(a.real)
    world.pool.remove("a")
    world.loop.turn(0)
    assert "start" not in a.orders


def test_pool_has_ended_when_it_stops_and_all_workers_have_ended(world: World) -> None:
    a, b = world.started("a"), world.started("b")
    world.pool.remove("b")
    assert not world.pool.has_ended
    world.pool.stop(2.0)
    assert (a.orders[-1], b.orders[-1]) == ("stop 2", "stop 2")
    a.end()
    assert not world.pool.has_ended
    b.end()
    assert world.pool.has_ended
    assert "start" not in a.orders[1:]


def test_node_that_waits_for_its_next_worker_gets_none_when_the_pool_stops(world: World) -> None:
    a = FakeNode("a", world)
    world.pool.stop(2.0)
    assert a.orders == ["stop 2"]
    assert world.pool.has_ended


def test_workers_that_do_not_end_are_killed_and_not_waited_for_for_ever(world: World) -> None:
    a = world.started("a")
    world.pool.stop(2.0)
    world.wait(2.0 + KILL_SECONDS - 0.1)
    assert "kill" not in a.orders
    world.wait(0.2)
    assert a.orders[-1] == "kill"
    assert not world.pool.has_ended
    world.wait(KILLED_SECONDS + 0.1)
    assert world.pool.has_ended, "it hangs in the kernel"


@pytest.mark.parametrize(("paused", "warm"), [(False, 4), (True, 0)])
def test_job_has_the_trees_of_the_node_by_number(here: Path, paused: bool, warm: int) -> None:
    nodes = f"[{{'node': 'h:', 'wpaths': ['{here}/b']}}]"
    config = configs.config(wpaths=f"['{here}/a/', '{here}/b/']", rpaths="['/www', '/b']", rnodes=nodes)
    excluded = {1: lambda _path, _is_directory: False, 2: lambda _path, _is_directory: True}
    table = TreeTable({f"{here}/a": 1, f"{here}/b": 2}, dict(excluded))
    node = SimpleNamespace(
        spec=config.nodes[0],
        subscription=SimpleNamespace(rules={2: "rules"}),
        paused=paused,
        worker=SimpleNamespace(hooks_lost=True),
    )
    job = make_job(cast(Node, node), config, table, "/spool")
    assert list(job.trees) == list(job.places) == [2]
    assert job.trees[2].target == "h:/b"
    assert job.excluded == {2: excluded[2]}
    assert (job.warm, job.hooks_lost, job.spool) == (warm, True, "/spool")
