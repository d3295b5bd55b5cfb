"""The leases of a sender: what becomes of the nodes when they are renewed, lost, or given up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from inosync.changes import Change, Kind
from inosync.config.nodes import NodeSpec
from inosync.fleet import leases
from inosync.fleet.records import NodeRecord
from inosync.fleet.rounds import SenderOrder, SenderReport
from inosync.fleet.store import Seen
from inosync.master.held_nodes import HeldNodes

SEEN = Seen(None, None, "", {}, {}, {}, {})
ORDER = SenderOrder("eu", (), (), "copy", b"", "e", 0, take={"a": b"1", "b": b"2"})


class PlayedNode:
    """A node of the pool."""

    def __init__(self, name: str) -> None:
        self.name, self.trees, self.cursor = name, (1,), 0
        self.outstanding: object | None = None
        self.second: object | None = None
        self.untidy_since: float | None = None
        self.retries = Retries()
        self.is_killed = False

    def retry(self, change: Change, _now: float) -> None:
        self.retries.append(change)

    def skip_to(self, position: int) -> None:
        self.cursor = position

    def take_over(self, _retries: object, _problem: str, untidy_since: float | None, **_: object) -> None:
        self.untidy_since = untidy_since

    def take_over_times(self, *_times: object) -> None:
        pass

    @property
    def worker(self) -> PlayedNode:
        return self

    def kill(self) -> None:
        self.is_killed = True


class Retries(list[Change]):
    @property
    def count(self) -> int:  # type: ignore[override]
        return len(self)


class World:
    """The nodes a and b are held from time 0 on."""

    def __init__(self) -> None:
        self.nodes: dict[str, PlayedNode] = {}
        self.alive: list[PlayedNode] = []
        self.changes = 0
        self.pool = SimpleNamespace(
            nodes=self.nodes, alive=lambda: self.alive, remove=self.nodes.pop, is_stopping=False
        )
        self.held = HeldNodes(cast(Any, self.pool), cast(Any, self.add), self.note_change)
        self.take()

    def note_change(self) -> None:
        self.changes += 1

    def add(self, spec: NodeSpec, _epoch: str, restore: Any) -> PlayedNode:
        node = self.nodes[spec.name] = PlayedNode(spec.name)
        self.alive.append(node)
        restore(node)
        return node

    def take(self, record: NodeRecord | None = None, now: float = 0.0) -> None:
        taken = dict.fromkeys(ORDER.take, (7, record))
        self.held.note(SenderReport(SEEN, 0.0, taken=taken), ORDER, 0.0, now, has_changed=False)

    def serve(self, name: str = "a") -> PlayedNode:
        self.held.serve(NodeSpec(f"h:/{name}", name), "e", (5, 20), 0.0, lambda _node: None)
        return self.nodes[name]


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize(
    ("age", "is_renewed", "is_ended"),
    [
        (leases.RENEW_SECONDS - 0.1, False, False),
        (leases.RENEW_SECONDS, True, False),
        (leases.HOLD_SECONDS - leases.STOP_SECONDS - 0.1, True, False),
        (leases.HOLD_SECONDS - leases.STOP_SECONDS, False, True),
        (leases.HOLD_SECONDS, False, True),
    ],
)
def test_lease_is_renewed_and_what_runs_is_ended_in_time(
    world: World, age: float, is_renewed: bool, is_ended: bool
) -> None:
    node = world.serve()
    assert world.held.due(age) == ({"a": b"1", "b": b"2"} if is_renewed else {})
    world.held.end_late(age)
    assert (node.is_killed, "a" in world.nodes) == (is_ended, not is_ended)
    assert world.held.released() == {}, "another sender may have it: it is not ours to give up"


def test_grant_that_comes_too_late_or_at_the_end_is_given_back(world: World) -> None:
    world.held.drop_all()
    given_back = {"a": (b"1", False), "b": (b"2", False)}
    assert world.held.released() == given_back
    world.take(now=leases.HOLD_SECONDS)
    assert (world.held.held, world.held.released()) == ({}, given_back)
    world.pool.is_stopping = True
    world.take()
    assert (world.held.held, world.held.released()) == ({}, given_back)


def test_lease_that_was_not_renewed_ends_what_runs(world: World) -> None:
    node, order = world.serve(), SenderOrder("eu", (), (), "copy", b"", "e", 0, renew={"a": b"1", "b": b"x"})
    world.held.note(SenderReport(SEEN, 0.0, renewed=frozenset("b")), order, 5.0, 5.1, False)
    assert (node.is_killed, list(world.held.held)) == (True, ["b"])
    assert world.held.held["b"].lease.asked_at == 0.0, "the answer was about another lease of it"


@pytest.mark.parametrize(
    ("record", "is_full"),
    [
        (None, True),
        (NodeRecord("e", None, 9), True),
        (NodeRecord("other", 9, 9), True),
        (NodeRecord("e", 4, 9), True),
        (NodeRecord("e", 5, 9), False),
        (NodeRecord("e", 9, 9, tidy=False), False),
    ],
)
def test_node_goes_on_where_it_was_if_the_journal_has_that(
    world: World, record: NodeRecord | None, is_full: bool
) -> None:
    world.take(record)
    node = world.serve()
    if is_full:
        assert (node.cursor, list(node.retries)) == (20, [Change(1, b"", Kind.TREE)])
        assert "a" not in world.held.cursors("e"), "nothing is confirmed before it is through"
    else:
        assert record is not None
        assert (node.cursor, list(node.retries)) == (record.cursor, [])
        assert (node.untidy_since is None) is record.tidy
        assert "a" not in world.held.cursors("e"), "Redis knows it"
        node.cursor = 12
        assert world.held.cursors("e")["a"] == (b"1", 12)


def test_cursor_is_told_until_redis_has_confirmed_it(world: World) -> None:
    node = world.serve()
    node.cursor = 20
    node.retries.clear()
    order = SenderOrder("eu", (), (), "copy", b"", "e", 0, confirm=world.held.cursors("e"))
    assert order.confirm == {"a": (b"1", 20)}
    world.held.note(SenderReport(SEEN, 0.0), order, 0.0, 0.1, False)
    assert world.held.cursors("e") == order.confirm
    world.held.note(SenderReport(SEEN, 0.0, confirmed=frozenset("a")), order, 0.0, 0.1, False)
    assert world.held.cursors("e") == {}
    world.held.forget_confirmed()
    assert world.held.cursors("e") == order.confirm
    assert world.held.cursors("new") == {"a": (b"1", 20)}, "what the node has is true of the new positions"


@pytest.mark.parametrize(("is_untidy", "tidy"), [(False, True), (True, False)])
def test_node_is_handed_over_when_nothing_runs(world: World, is_untidy: bool, tidy: bool) -> None:
    world.take(NodeRecord("e", 9, 9, tidy=True))
    node = world.serve()
    world.held.hand_over(["a", "of another"])
    node.second = object()
    world.held.leave("e")
    assert "a" in world.nodes
    node.second, node.cursor = None, 15
    node.untidy_since = 1.0 if is_untidy else None
    world.held.leave("e")
    assert (world.nodes, world.held.released()) == ({}, {}), "its worker is alive still"
    assert world.held.cursors("e")["a"] == (b"1", 15)
    world.alive.clear()
    world.held.leave("e")
    assert world.held.released() == {"a": (b"1", tidy)}
    assert world.held.held.keys() == {"b"}
    assert not node.is_killed


def test_nodes_that_redis_does_not_let_be_sent_more_are_dropped(world: World) -> None:
    nodes = [world.serve("a"), world.serve("b")]
    changes = world.changes
    world.held.drop_others({"b"})
    assert [node.is_killed for node in nodes] == [True, False]
    assert (world.held.served(), world.changes) == ({"b": b"2"}, changes + 1)
