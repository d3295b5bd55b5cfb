"""What the origin appends, says and hears; Redis and the nodes are stand-ins."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from unit.master.mirrors import mirror

from inosync.changes import Change, Kind
from inosync.config.fleet import Fleet, RedisAddress
from inosync.config.nodes import NodeSpec
from inosync.fleet import codec
from inosync.fleet.link import RedisFailure
from inosync.fleet.node_reports import encode_events
from inosync.fleet.records import Arrived, Beat, JournalSpan, NodeRecord
from inosync.fleet.rounds import OriginOrder, OriginReport
from inosync.fleet.store import Seen
from inosync.journal.journal import Journal
from inosync.master.fleet_orders import FleetOrders, NotReached
from inosync.master.fleet_origin import FleetOrigin, OtherOrigin
from inosync.master.sender_copies import SenderCopies


class World:
    """An origin with the sender ``eu`` and the far node ``n``."""

    def __init__(self, shared: tuple[NodeSpec, ...] = ()) -> None:
        self.time = 100.0
        self.orders: list[OriginOrder] = []
        self.done: Any = None
        self.stopped: list[str] = []
        self.offered: list[Any] = []
        self.journal = Journal()
        self.owed: list[Change] = []
        retries = SimpleNamespace(count=0)
        self.node = SimpleNamespace(
            name="eu", trees=(1,), arrived=0, retries=retries, retry=lambda change, _now: self.owe(change)
        )
        self.watcher = SimpleNamespace(
            incomplete_trees=set(), is_walking=False, caught_up_at=0, unclosed=frozenset
        )
        self.guard = SimpleNamespace(halted={})
        link = SimpleNamespace(is_busy=False, ask=self.ask, wait=lambda _s: None, close=lambda: None)
        loop = SimpleNamespace(clock=lambda: self.time, call_at=lambda _when, _call: None)
        fleet = Fleet(
            RedisAddress("redis://r/0"), "", ("eu",), (NodeSpec("h:/n", "n"),), {}, "config", shared
        )
        self.copies = SenderCopies(
            mirror(
                nodes={} if shared else {"eu": self.node},
                journal=self.journal,
                guard=self.guard,
                dispatch=SimpleNamespace(offer_batch=self.offered.append),
                loop=loop,
            ),
            tuple(node.name for node in shared),
            cast(Any, self.watcher),
            lambda: "proof",
        )
        self.origin = FleetOrigin(
            fleet,
            "/etc/inosync/default.py",
            self.copies,
            self.stopped.append,
            cast(Any, link),
            FleetOrders(("n",), cast(Any, loop)),
        )
        self.seen = Seen(None, None, "", {}, {}, {}, {})

    def owe(self, change: Change) -> None:
        self.owed.append(change)
        self.node.retries.count = 1

    def mirrored(self, cursor: int) -> None:
        self.node.arrived, self.node.retries.count = cursor, 0

    def record(self, *names: bytes) -> None:
        for name in names:
            self.journal.record(Change(1, name, Kind.NAME), self.time)

    def ask(self, order: OriginOrder, done: Any) -> None:
        self.orders.append(order)
        self.done = done

    def turn(self, report: OriginReport | RedisFailure | None = None, **more: Any) -> OriginOrder:
        self.time += 1.0
        self.origin.turn()
        order = self.orders[-1]
        self.done(report or OriginReport(True, self.seen, **more))
        return order

    def met(self) -> None:
        assert self.turn().is_new
        order = self.turn()
        assert order.recovery is not None
        assert order.recovery.reset

    def met_again(self) -> None:
        assert self.turn().is_new
        assert self.turn().recovery is not None

    def beat(self, copy: str) -> None:
        self.seen = replace(self.seen, beats={"eu": codec.encode_beat(Beat(True, copy, "config"))})


@pytest.fixture
def world() -> World:
    return World()


def test_what_was_recorded_before_redis_was_met_is_appended(world: World) -> None:
    world.record(b"a", b"b")
    world.turn(RedisFailure("connection refused"))
    assert world.origin.problem == "connection refused"
    assert world.origin.keeps_after() == 0
    world.turn()
    order = world.turn()
    assert [(at, change.path) for at, change in order.changes] == [(1, b"a"), (2, b"b")]
    assert world.origin.problem == ""
    assert world.origin.keeps_after() == 2


def test_origin_knows_what_senders_say_that_happened(world: World) -> None:
    world.met()
    text = encode_events({"n": [(1.0, "state", "is ok", 1)]})
    assert world.turn(events={"eu": (b"5", text)}).events_known == {}
    assert (world.origin.events, world.origin.recorded) == ({"eu": {"n": [(1.0, "state", "is ok", 1)]}}, 1)
    assert world.turn().events_known == {"eu": b"5"}
    assert (len(world.origin.events), world.origin.recorded) == (1, 1)


def test_change_is_appended_once_and_again_after_a_failure(world: World) -> None:
    world.met()
    world.record(b"a")
    order = world.turn()
    assert [at for at, _ in order.changes] == [1]
    assert order.span is not None
    assert order.span.appended == 1
    assert world.turn().changes == []
    world.record(b"b")
    world.turn(RedisFailure("timed out"))
    span = JournalSpan(world.origin.epoch, 0, 1)
    world.seen = replace(world.seen, span=span)
    world.turn()
    order = world.turn()
    assert order.recovery is not None
    assert not order.recovery.reset
    assert [at for at, _ in order.changes] == [2]


def test_copy_has_arrived_after_a_full_mirror_of_it(world: World) -> None:
    world.met()
    world.record(b"a")
    world.mirrored(1)
    assert world.turn().arrived == {}, "nothing is known of a copy"
    world.beat("one")
    world.turn()
    assert world.owed == [Change(1, b"", Kind.TREE)]
    assert world.offered == [world.node]
    assert world.turn().arrived == {}
    world.mirrored(1)
    expected = Arrived(world.origin.epoch, 1, "one")
    assert world.turn().arrived == {"eu": expected}
    world.beat("another")
    world.turn()
    assert len(world.owed) == 2
    assert world.turn().arrived == {}


def test_copy_that_has_arrived_before_its_worker_died_has_still_arrived(world: World) -> None:
    world.met()
    world.beat("one")
    world.turn()
    world.record(b"a", b"b")
    world.mirrored(2)
    expected = Arrived(world.origin.epoch, 2, "one")
    assert world.turn().arrived == {"eu": expected}
    world.mirrored(1)
    world.turn()
    assert world.origin.arrived == {"eu": expected}
    world.mirrored(3)
    assert world.turn().arrived == {"eu": replace(expected, position=3)}


@pytest.mark.parametrize("what", ["walked", "halted", "owed"])
def test_copy_has_not_arrived_while_anything_is_missing(world: World, what: str) -> None:
    world.met()
    world.beat("one")
    world.turn()
    world.mirrored(1)
    match what:
        case "walked":
            world.watcher.incomplete_trees = {1}
        case "halted":
            world.guard.halted = {1: "gone"}
        case "owed":
            world.node.retries.count = 1
    world.turn()
    assert world.origin.arrived == {}


@pytest.fixture
def shared() -> World:
    """The sender ``eu`` sees the same storage, which "proof" proves."""
    world = World((NodeSpec("eu", "eu"),))
    world.met()
    return world


def test_shared_storage_has_what_is_recorded_once_it_is_proved(shared: World) -> None:
    shared.record(b"a", b"b")
    shared.beat("disk.other")
    shared.turn()
    shared.turn()
    assert shared.origin.arrived["eu"].copy == "-"
    shared.beat("-.proof")
    shared.turn()
    shared.turn()
    assert shared.origin.arrived["eu"].copy == "-"
    shared.beat("disk.proof")
    shared.turn()
    epoch = shared.origin.epoch
    assert shared.turn().arrived == {"eu": Arrived(epoch, 2, "disk")}
    assert shared.owed == shared.offered == [], "nothing is sent there"
    shared.beat("disk")  # it was proved before, and other files may be there by now
    shared.record(b"c")
    order = shared.turn()
    assert order.span is not None
    assert (order.span.appended, order.arrived) == (3, {"eu": Arrived(epoch, 3, "disk")})
    assert shared.turn().arrived == {}, "Redis knows it"
    shared.beat("mountpoint.other")
    shared.turn()
    assert shared.turn().arrived["eu"].copy == "-"


@pytest.mark.parametrize(
    ("what", "expected"), [("walked", (1, "disk")), ("halted", (2, "-")), ("known again", (2, "disk"))]
)
def test_shared_storage_is_as_good_as_what_is_known_of_it(
    shared: World, what: str, expected: tuple[int, str]
) -> None:
    shared.record(b"a")
    shared.beat("disk.proof")
    shared.turn()
    shared.turn()
    match what:
        case "walked":
            shared.watcher.incomplete_trees = {1}
        case "halted":
            shared.guard.halted[1] = "empty"
    shared.record(b"b")
    shared.turn()
    assert shared.origin.arrived == {"eu": Arrived(shared.origin.epoch, *expected)}


def test_question_is_answered_after_all_events_before_it(world: World) -> None:
    world.met()
    world.turn(asked=3)
    order = world.turn(asked=3)
    assert order.answer is not None
    assert order.answer.question == 0
    world.record(b"late")
    world.watcher.caught_up_at = time.time_ns() + 10**9
    world.watcher.is_walking = True
    order = world.turn(asked=3)
    assert order.answer is not None
    assert order.answer.question == 0
    world.watcher.is_walking = False
    order = world.turn(asked=3)
    assert order.answer is not None
    assert (order.answer.question, order.answer.head) == (3, 1)


def test_journal_keeps_what_a_node_lacks(world: World) -> None:
    world.met()
    world.record(b"a", b"b", b"c")
    epoch = world.origin.epoch
    world.seen = replace(world.seen, nodes={"n": NodeRecord(epoch, 2, 3)})
    world.turn()
    assert world.origin.keeps_after() == 2
    world.seen = replace(world.seen, nodes={"n": NodeRecord("other", 1, 1)})
    world.turn()
    assert world.origin.keeps_after() == 2, "what was true of another epoch says nothing"


def test_too_many_changes_raise_the_floor(world: World) -> None:
    world.met()
    world.record(b"a", b"b", b"c")
    world.turn(crowded=2)
    order = world.turn()
    assert order.span is not None
    assert order.span.floor == 2


def test_second_origin_ends(world: World) -> None:
    world.turn(OriginReport(False))
    assert "another machine is its origin" in world.stopped[0]
    with pytest.raises(OtherOrigin):
        world.origin.meet()


def test_origin_whose_lease_was_lost_takes_it_again(world: World) -> None:
    world.met()
    world.record(b"a")
    world.turn(OriginReport(False))
    assert world.stopped == []
    assert world.turn().is_new


def go_on(world: World, cursor: int = 4) -> None:
    """Have the origin go on with an epoch of which it knows the node ``n`` and the copy of ``eu``."""
    world.journal.go_on(1_000, 9)
    world.origin.go_on("old", {"n": NodeRecord("old", cursor, 9)}, {"eu": "one"})
    world.node.cursor = 1_000


def test_restart_goes_on_beyond_all_positions_of_before(world: World) -> None:
    go_on(world)
    world.record(b"a")
    world.seen = replace(world.seen, span=JournalSpan("old", 2, 9), nodes={"n": NodeRecord("old", 8, 9)})
    assert world.turn().is_new
    order = world.turn()
    assert order.recovery is not None
    assert (order.recovery.reset, order.recovery.span) == (False, JournalSpan("old", 2, 1_001))
    assert [at for at, _ in order.changes] == [1_001]
    assert order.recovery.restore == {}, "Redis knows more"
    world.beat("one")
    world.mirrored(1_001)
    order = world.turn()
    assert (world.origin.epoch, world.owed) == ("old", []), "nothing is compared in full"
    assert order.span is not None
    assert order.span.floor == 8, "what only Redis holds stays there, for the node that lacks it"


def test_restart_restores_what_redis_has_lost(world: World) -> None:
    go_on(world)
    world.turn()
    order = world.turn()
    assert order.recovery is not None
    assert (order.recovery.reset, order.recovery.span) == (True, JournalSpan("old", 9, 1_000))
    assert order.recovery.restore == {"n": NodeRecord("old", 4, 9)}


def test_records_that_redis_has_lost_a_part_of_are_restored(world: World) -> None:
    go_on(world)
    world.seen = replace(world.seen, span=JournalSpan("old", 0, 9), nodes={"n": NodeRecord("old", 2, 2)})
    world.turn()
    order = world.turn()
    assert order.recovery is not None
    assert order.recovery.restore == {"n": NodeRecord("old", 4, 9)}


@pytest.mark.parametrize("span", [JournalSpan("other", 0, 5), JournalSpan("old", 0, 1_001)])
def test_restart_begins_anew_if_another_origin_was_there(world: World, span: JournalSpan) -> None:
    go_on(world)
    world.seen = replace(world.seen, span=span)
    world.turn()
    order = world.turn()
    assert order.recovery is not None
    assert order.recovery.reset
    assert order.recovery.span.epoch not in ("old", "other")
    assert (world.stopped, world.origin.records) == ([], {})
    world.beat("one")
    world.turn()
    assert world.owed == [Change(1, b"", Kind.TREE)], "its copy may have come from the other origin"


def test_copy_has_not_arrived_before_it_has_all_of_before_the_restart(world: World) -> None:
    go_on(world)
    world.beat("one")
    world.seen = replace(world.seen, span=JournalSpan("old", 2, 9))
    world.watcher.incomplete_trees = {1}
    world.met_again()
    assert world.origin.arrived == {}
    world.record(b"a")
    world.watcher.incomplete_trees = set()
    world.watcher.unclosed = lambda: None
    world.turn()
    world.record(b"b")
    world.watcher.unclosed = frozenset
    for cursor in (1_000, 1_001):
        world.mirrored(cursor)
        assert world.turn().arrived == {}, "what it lacks had an older position before the restart"
    world.mirrored(1_002)
    assert world.turn().arrived == {"eu": Arrived("old", 1_002, "one")}


def test_question_waits_for_what_has_changed_before_the_restart(world: World) -> None:
    go_on(world)
    world.seen = replace(world.seen, span=JournalSpan("old", 2, 9))
    world.watcher.incomplete_trees = {1}
    world.watcher.caught_up_at = time.time_ns() + 10**12
    world.met_again()
    world.turn(asked=3)
    order = world.turn(asked=3)
    assert order.answer is not None
    assert order.answer.question == 0
    world.watcher.incomplete_trees = set()
    order = world.turn(asked=3)
    assert order.answer is not None
    assert order.answer.question == 3


def test_order_is_written_at_once_and_read_back(world: World) -> None:
    world.met()
    world.turn()
    world.origin.orders.give(["n"], "pause")
    assert (world.origin.paused, world.origin.owed) == (["n"], [])
    order = world.turn()
    assert order.give == {"n": b"1 0 0 0"}
    world.turn(orders={"n": b"1 0 0 0"})
    assert world.turn(orders={"n": b"1 0 0 0"}).give == {}
    assert world.turn().give == {}
    assert world.turn().give == {"n": b"1 0 0 0"}, "Redis has lost it"
    world.turn(RedisFailure("gone"))
    with pytest.raises(NotReached):
        world.origin.orders.check()
