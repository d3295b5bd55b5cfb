"""Whose turn it is, and what becomes of what was found. Nodes and their workers do what the test says."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import cast

import pytest
from unit.master.mirrors import mirror

from inosync.changes import Change, Kind, Source
from inosync.journal.journal import Journal
from inosync.master.trees import TreeTable
from inosync.master.verification import SETTLE_SECONDS, Comparison, Verification, Waiter
from inosync.nodes.messages import CancelCompare, Compare, Compared
from inosync.nodes.node import Node
from inosync.rsync.itemize import MAX_DIFFERENCES
from inosync.system.loop import Loop

EVERY = 1_000.0
SOURCE = Source((1, 2), True)


class FakeNode:
    def __init__(self, name: str, trees: tuple[int, ...] = (1,)) -> None:
        self.name, self.trees = name, trees
        self.spec = SimpleNamespace(rverify=EVERY, rchecksum=False)
        self.cursor = 0
        self.due: dict[Change, object] = {}
        self.orders: list[Compare | CancelCompare] = []
        self.verified_at: float | None = None
        self.is_resumed = False
        self.differences = 0
        self.ok = True

    @property
    def retries(self) -> SimpleNamespace:
        return SimpleNamespace(waiting=self.due)

    @property
    def worker(self) -> FakeNode:
        return self

    def put(self, order: Compare | CancelCompare) -> None:
        self.orders.append(order)

    def set_verified(self, now: float, differences: int) -> None:
        self.verified_at, self.differences = now, differences

    def retry(self, change: Change, _now: float) -> None:
        self.due[change] = None

    @property
    def last(self) -> Compare:
        order = self.orders[-1]
        assert isinstance(order, Compare)
        return order


@dataclass
class World:
    now: float = 0.0
    journal: Journal = field(default_factory=Journal)
    has_free_slot: bool = True
    halted: set[int] = field(default_factory=set)
    repaired: list[str] = field(default_factory=list)
    stirs: set[int] = field(default_factory=set)
    """Trees that the guard halts as soon as it looks at them."""

    def __post_init__(self) -> None:
        self.nodes: dict[str, FakeNode] = {}
        self.loop = Loop(lambda: self.now)
        self.verification = Verification(
            mirror(
                nodes=self.nodes,
                table=TreeTable(numbers={f"/tree{tree}": tree for tree in range(9)}),
                journal=self.journal,
                guard=self,
                dispatch=self,
                loop=self.loop,
            ),
            lambda node: cast(FakeNode, node).ok,
            lambda: 0.5,
        )

    def offer_batch(self, node: Node) -> None:
        self.repaired.append(node.name)
        for tree in node.trees:
            self.check(tree)  # as the dispatcher does before it hands out a batch

    def check(self, tree: int) -> bool:
        if tree in self.stirs - self.halted:
            self.halted.add(tree)
            self.verification.disturbed(tree)
        return tree not in self.halted

    def source(self, _tree: int, full: bool) -> Source:
        assert full
        return SOURCE

    def add(self, *nodes: FakeNode) -> None:
        self.nodes.update({node.name: node for node in nodes})
        self.verification.configure(True)

    def compared(self, node: FakeNode, lines: Iterable[bytes] = (), **report: object) -> None:
        said = tuple(lines)
        answer = Compared(node.last.id, payload=pickle.dumps(said), **{"count": len(said), **report})  # type: ignore[arg-type]
        self.verification.compared(cast(Node, node), answer)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.loop.turn(0)
        self.verification.start_if_due()


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records]


def missing(*names: bytes) -> list[bytes]:
    return [b"inosync:<f+++++++++ " + name for name in names]


@pytest.mark.parametrize(("interval", "is_verified"), [(86_400.0, True), (0.0, False)])
def test_node_that_was_taken_over_is_verified_early(interval: float, is_verified: bool, world: World) -> None:
    old, new = FakeNode("old"), FakeNode("new")
    old.is_resumed = True
    for node in (old, new):
        node.spec.rverify = interval
    world.add(old, new)
    world.wait(3_600.0)
    assert (len(old.orders), len(new.orders)) == (int(is_verified), 0)


def test_verification_compares_one_ok_node_at_a_time_beside_free_slots(world: World) -> None:
    a, b = FakeNode("a"), FakeNode("b")
    world.add(a, b)
    world.wait(EVERY / 5)
    assert not a.orders
    a.ok, world.has_free_slot = False, False
    world.wait(EVERY)
    assert not a.orders + b.orders
    world.has_free_slot = True
    world.wait(1)
    assert not a.orders
    assert b.last == Compare(b.last.id, 1, SOURCE, False)
    a.ok = True
    world.wait(1)
    assert not a.orders
    world.compared(b)
    assert (b.verified_at, b.differences, b.due) == (world.now, 0, {})
    world.wait(1)
    assert a.last.tree == 1
    world.compared(a)
    world.wait(EVERY / 2)
    assert (len(a.orders), len(b.orders)) == (1, 1)
    world.wait(EVERY)
    assert len(a.orders) + len(b.orders) == 3


def test_findings_are_sent_again_and_changes_on_their_way_not_counted(
    world: World, warnings: Callable[[], list[str]]
) -> None:
    a = FakeNode("a", (1, 2, 3))
    world.add(a)
    world.halted = {2}
    world.wait(EVERY)
    world.compared(a, [*missing(b"lost", b"busy"), b"inosync:.d..t...... d/"])
    assert a.last.tree == 3
    assert world.verification.cursor == 0
    world.compared(a, missing(b"busy"))
    assert not a.due
    world.journal.record(Change(1, b"busy", Kind.NAME), world.now)
    world.wait(SETTLE_SECONDS)
    assert list(a.due) == [
        Change(1, b"lost", Kind.NAME),
        Change(1, b"busy", Kind.NAME),
        Change(1, b"d", Kind.NAME),
        Change(3, b"busy", Kind.NAME),
    ]
    assert a.differences == 2
    assert world.repaired == ["a"]
    assert warnings() == [
        "a: verified in 0.0 s, 2 differences, sent again: /tree1/lost (missing), /tree3/busy (missing)"
    ]
    assert world.verification.cursor == float("inf")


def test_truncated_differences_are_sent_as_the_tree_and_by_content(
    world: World, warnings: Callable[[], list[str]]
) -> None:
    a = FakeNode("a")
    world.add(a)
    world.wait(EVERY)
    lines = [*missing(*(b"%d" % number for number in range(10))), b"inosync:<fc........ content"]
    world.compared(a, lines, count=MAX_DIFFERENCES + 11)
    world.wait(SETTLE_SECONDS)
    assert list(a.due) == [Change(1, b"", Kind.TREE), Change(1, b"content", Kind.NAME, ignore_times=True)]
    assert a.differences == MAX_DIFFERENCES + 11
    assert warnings()[0].endswith(f"/tree1/4 (missing), {MAX_DIFFERENCES + 6} more")


def test_differences_below_a_symlink_are_repaired_by_a_full_mirror(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os.path, "islink", lambda path: path == b"/tree1/link")
    for found, repaired in (
        (b"link/deep/page", [Change(1, b"", Kind.TREE)]),
        (b"link", [Change(1, b"link", Kind.NAME)]),
        (b"other/page", [Change(1, b"other/page", Kind.NAME)]),
    ):
        a = FakeNode("a")
        world.add(a)
        world.wait(EVERY * 2)
        world.compared(a, missing(found))
        world.wait(SETTLE_SECONDS)
        assert list(a.due) == repaired


def test_differences_are_sent_though_the_journal_has_overflowed(
    warnings: Callable[[], list[str]],
) -> None:
    world = World(journal=Journal(limit=2))
    a = FakeNode("a")
    world.add(a)
    world.wait(EVERY)
    for number in range(5):
        world.journal.record(Change(1, b"%d" % number, Kind.NAME), world.now)
    world.compared(a, missing(b"lost"))
    world.wait(SETTLE_SECONDS)
    assert list(a.due) == [Change(1, b"lost", Kind.NAME)]
    assert a.verified_at is None
    assert "too much has changed" in warnings()[0]


@pytest.mark.parametrize("why", ["fails", "dies", "is halted", "is not wanted", "is away", "has gone"])
def test_round_that_comes_to_nothing_is_tried_again(
    world: World, why: str, warnings: Callable[[], list[str]]
) -> None:
    a, b = FakeNode("a"), FakeNode("b")
    world.add(a)
    world.wait(EVERY)
    first = a.last
    match why:
        case "fails":
            world.compared(a, reason="no luck")
            assert warnings() == ["a: could not be verified: no luck; next try in 52 s"]
        case "dies":
            world.verification.worker_died(cast(Node, a))
            assert a.orders == [first]
        case "is halted":
            world.verification.disturbed(2)
            assert a.orders == [first]
            world.verification.disturbed(1)
            assert a.orders[1:] == [CancelCompare()]
        case "is not wanted":
            a.spec.rverify = 0
            world.verification.configure(True)
            assert a.orders[1:] == [CancelCompare()]
            a.spec.rverify = EVERY
            world.verification.configure(True)
        case "is away":
            world.compared(a, held=True)
        case "has gone":
            del world.nodes["a"]
            world.verification.configure(True)
            assert a.orders[1:] == [CancelCompare()]
            world.add(b)
    # What is still said about it is nobody's any more.
    world.verification.compared(cast(Node, a), Compared(first.id))
    assert a.verified_at is None
    world.wait(EVERY)
    node = b if why == "has gone" else a
    assert node.last.id != first.id
    world.compared(node)
    assert node.verified_at == world.now


@pytest.mark.parametrize("overflow", [False, True])
def test_tree_halted_as_it_is_repaired_ends_the_round(world: World, overflow: bool) -> None:
    world.journal = Journal(limit=2)
    world.verification.mirror = replace(world.verification.mirror, journal=world.journal)
    a = FakeNode("a")
    world.add(a)
    world.wait(EVERY)
    world.compared(a, missing(b"lost"))
    for number in range(10 if overflow else 1):
        world.journal.record(Change(1, b"%d" % number, Kind.NAME), world.now)
    world.stirs = {1}
    world.wait(SETTLE_SECONDS)
    assert (world.repaired, a.verified_at) == (["a"], None)
    assert set(a.due) == {Change(1, b"lost", Kind.NAME)}
    world.stirs, world.halted, a.cursor = set(), set(), world.journal.head
    world.wait(EVERY)
    world.compared(a)
    assert a.verified_at == world.now


def test_tree_halted_as_it_is_checked_ends_the_round(world: World) -> None:
    a = FakeNode("a", (1, 2))
    world.add(a)
    world.stirs = {1}
    world.wait(EVERY)
    assert not a.orders, "a comparison that nobody waits for, or ends"
    world.wait(EVERY)
    assert a.last.tree == 2


# Clients that wait ---------------------------------------------------------------------------------------

MISSING = b"inosync:<f+++++++++ a"


def test_look_repairs_nothing_and_leaves_the_schedule_alone(world: World) -> None:
    node, found = FakeNode("a"), list[Comparison]()
    world.add(node)
    world.wait(0)
    assert node.orders == []
    world.verification.wait(Waiter("a", False, found.append))
    world.wait(1)
    world.compared(node, [MISSING])
    assert found == []
    world.wait(SETTLE_SECONDS)
    assert found == [Comparison("a", "", 0.0, 1, (("/tree1/a", "missing"),))]
    assert (node.due, world.repaired, node.verified_at) == ({}, [], None)
    world.wait(EVERY)
    assert len(node.orders) == 2, "the verification of its schedule comes all the same"


def test_look_waits_until_its_node_is_ok(world: World) -> None:
    node, found = FakeNode("a"), list[Comparison]()
    world.add(node)
    node.ok = False
    world.verification.wait(Waiter("a", False, found.append))
    world.wait(1)
    assert node.orders == []
    node.ok = True
    world.wait(1)
    world.compared(node)
    assert found == [Comparison("a")]


def test_look_does_not_join_a_round_that_repairs(world: World) -> None:
    node, looked, verified = FakeNode("a"), list[Comparison](), list[Comparison]()
    world.add(node)
    world.verification.wait(Waiter("a", True, verified.append))
    world.verification.request("a")
    world.verification.wait(Waiter("a", False, looked.append))
    world.wait(1)
    world.compared(node, [MISSING])
    world.wait(SETTLE_SECONDS)
    assert ([one.count for one in verified], looked) == ([1], [])
    assert list(node.due) == [Change(1, b"a", Kind.NAME)]
    world.wait(1)
    world.compared(node)
    assert [one.count for one in looked] == [0]


def test_waiter_outlasts_a_round_that_is_cut_short(world: World) -> None:
    node, found = FakeNode("a"), list[Comparison]()
    world.add(node)
    world.verification.wait(Waiter("a", False, found.append))
    world.wait(1)
    world.verification.disturbed(1)
    assert isinstance(node.orders[-1], CancelCompare)
    world.wait(1)
    world.compared(node)
    assert found == [Comparison("a")]


def test_waiter_is_told_why_its_node_is_not_compared(world: World) -> None:
    node, found = FakeNode("a"), list[Comparison]()
    world.add(node)
    world.verification.wait(Waiter("a", False, found.append))
    world.wait(1)
    world.compared(node, reason="Connection refused (111)")
    world.halted.add(1)
    world.verification.wait(Waiter("a", False, found.append))
    world.wait(1)
    world.verification.wait(Waiter("a", False, found.append))
    world.nodes.clear()
    world.verification.configure(True)
    assert [one.reason for one in found] == [
        "Connection refused (111)",
        "none of its trees can be compared now",
        "is no node any more",
    ]


def test_cancelled_waiter_is_told_nothing(world: World) -> None:
    node, found = FakeNode("a"), list[Comparison]()
    world.add(node)
    early, late = Waiter("a", False, found.append), Waiter("a", False, found.append)
    for waiter in (early, late):
        world.verification.wait(waiter)
    world.verification.cancel(early)
    world.wait(1)
    world.verification.cancel(late)
    world.compared(node)
    assert found == []
