"""What a sender does of the orders: each once, until its effect is there, and a pause first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from inosync.master.fleet_orders import decode_found
from inosync.master.fleet_tasks import SenderTasks
from inosync.master.verification import Comparison


class World:
    """The node n, of whose lease the value is v."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.compared: list[tuple[bool, Callable[[Sequence[Comparison]], None]]] = []
        self.nodes: dict[str, Any] = {"n": self.node()}
        self.tasks = SenderTasks(cast(Any, self.nodes), lambda: cast(Any, self))

    @staticmethod
    def node() -> Any:
        node = SimpleNamespace(
            name="n", paused=False, retries=SimpleNamespace(count=0), outstanding=None, second=None
        )
        node.set_paused = lambda paused: setattr(node, "paused", paused)
        return node

    def resync(self, node: Any) -> None:
        self.calls.append(("resync", node.name))
        node.retries.count = 1

    def pause(self, node: Any) -> None:
        self.calls.append(("pause", node.name))
        node.paused = True

    def resume(self, node: Any) -> None:
        self.calls.append(("resume", node.name))
        node.paused = False

    def compare(self, _nodes: Any, may_repair: bool, _deadline: float, done: Any) -> None:
        self.compared.append((may_repair, done))

    def take(self, orders: bytes, done: bytes | None = None) -> dict[str, tuple[bytes, bytes, bytes]]:
        self.tasks.take(["n"], {"n": orders}, {} if done is None else {"n": done})
        return self.tasks.finished({"n": b"v"})


@pytest.fixture
def world() -> World:
    return World()


def test_resync_is_done_once_the_node_has_all(world: World) -> None:
    assert world.take(b"0 3 0 0") == {}
    assert world.take(b"0 3 0 0") == {}
    world.nodes["n"].retries.count = 0
    world.nodes["n"].outstanding = object()
    assert world.take(b"0 3 0 0") == {}
    world.nodes["n"].outstanding = None
    expected = {"n": (b"v", b"3 0 0", b"")}
    assert world.take(b"0 3 0 0") == expected
    assert world.take(b"0 3 0 0") == expected, "Redis has not confirmed it"
    assert world.calls == [("resync", "n")]
    world.tasks.written(expected)
    assert world.take(b"0 3 0 0", b"3 0 0") == {}
    world.take(b"0 4 0 0", b"3 0 0")
    assert world.calls == [("resync", "n")] * 2


def test_order_is_done_again_by_the_next_that_serves_the_node(world: World) -> None:
    world.take(b"0 3 0 0")
    assert world.tasks.finished({}) == {}, "it was handed over"
    world.nodes["n"] = World.node()
    world.take(b"0 3 0 0")
    assert world.calls == [("resync", "n")] * 2


def test_comparison_of_a_node_that_was_handed_over_does_not_count(world: World) -> None:
    world.take(b"0 0 0 5")
    world.nodes["n"] = World.node()
    world.take(b"0 0 0 5")
    [(_, first), (_, second)] = world.compared
    first([Comparison("n", "", 1.0, 9)])
    assert world.take(b"0 0 0 5") == {}
    second([Comparison("n", "", 1.0, 2)])
    [(_, done, found)] = world.take(b"0 0 0 5").values()
    assert (done, decode_found("n", found)) == (b"0 0 5", Comparison("n", "", 1.0, 2))


@pytest.mark.parametrize(
    ("orders", "may_repair", "done"), [(b"0 0 2 0", True, b"0 2 0"), (b"0 0 0 2", False, b"0 0 2")]
)
def test_comparison_is_begun_once_and_told(
    world: World, orders: bytes, may_repair: bool, done: bytes
) -> None:
    world.take(orders)
    world.take(orders)
    [(repairs, tell)] = world.compared
    assert repairs is may_repair
    tell([Comparison("n", "", 0.5, 1, (("/x", "missing"),))])
    [(value, numbers, found)] = world.take(orders).values()
    assert (value, numbers) == (b"v", done)
    assert decode_found("n", found).differences == (("/x", "missing"),)


def test_comparison_that_ends_because_the_node_leaves_does_not_count(world: World) -> None:
    world.take(b"0 0 2 0")
    del world.nodes["n"]
    world.compared[0][1]([Comparison("n", "is no node any more")])
    assert world.tasks.finished({"n": b"v"}) == {}


def test_several_orders_are_done_each_for_itself(world: World) -> None:
    world.take(b"0 1 2 3")
    for (_, tell), count in zip(world.compared, (7, 8), strict=True):
        tell([Comparison("n", "", 0.5, count)])
    [(_, numbers, found)] = world.take(b"0 1 2 3").values()
    assert (numbers, decode_found("n", found).count) == (b"0 2 3", 8)
    world.nodes["n"].retries.count = 0
    [(_, numbers, found)] = world.take(b"0 1 2 3").values()
    assert (numbers, decode_found("n", found).count) == (b"1 2 3", 8)


def test_paused_node_is_compared_when_it_is_resumed(world: World) -> None:
    world.take(b"1 0 2 3")
    assert (world.calls, world.compared) == ([("pause", "n")], [])
    world.take(b"0 0 2 3")
    assert world.calls == [("pause", "n"), ("resume", "n")]
    assert [repairs for repairs, _ in world.compared] == [True, False]


def test_node_is_paused_before_it_is_sent_anything(world: World) -> None:
    for orders, paused in ((None, False), (b"0 1 0 0", False), (b"nonsense", False), (b"1 0 0 0", True)):
        node = World.node()
        world.tasks.prepare(node, orders)
        assert node.paused is paused
    assert world.calls == [], "its worker has not begun"


def test_node_that_is_not_served_is_left_alone(world: World) -> None:
    world.nodes.clear()
    assert world.take(b"1 3 0 0") == {}
    assert world.calls == []
