"""What a sender takes, serves and gives up; Redis and the workers are stand-ins."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.recorder import Recorder
from unit.master.mirrors import mirror

from inosync.changes import Change, Kind
from inosync.config.fleet import Fleet, RedisAddress
from inosync.config.nodes import NodeSpec
from inosync.fleet import codec, copies, leases
from inosync.fleet.link import RedisFailure
from inosync.fleet.records import Arrived, Beat, JournalSpan, NodeRecord, OriginPosition
from inosync.fleet.rounds import SenderOrder, SenderReport
from inosync.fleet.store import Seen
from inosync.journal.journal import Journal
from inosync.master.fleet_sender import LEASES_SECONDS, POLL_SECONDS, FleetSender
from inosync.master.fleet_tasks import SenderTasks
from inosync.master.held_nodes import HeldNodes

SPAN = JournalSpan("e", 0, 9)


@dataclass
class FakeNode:
    """A node of the pool."""

    name: str
    trees: tuple[int, ...] = (1,)
    cursor: int = 0
    owed: list[Change] = field(default_factory=list)
    outstanding: object = None
    second: object = None
    untidy_since: float | None = None
    is_killed: bool = False
    paused: bool = False

    def set_paused(self, paused: bool) -> None:
        self.paused = paused

    @property
    def retries(self) -> Any:
        return RetriesOf(self.owed)

    def skip_to(self, position: int) -> None:
        self.cursor = position

    def retry(self, change: Change, _now: float) -> None:
        self.owed.append(change)

    def take_over(self, _retries: object, _problem: str, untidy_since: float | None, **_more: object) -> None:
        self.untidy_since = untidy_since

    def take_over_times(self, *_times: object) -> None:
        pass

    @property
    def worker(self) -> FakeNode:
        return self

    def kill(self) -> None:
        self.is_killed = True


class RetriesOf(list[Change]):
    @property
    def count(self) -> int:  # type: ignore[override]
        return len(self)


class World:
    """One sender, ``eu``, of two, and the nodes a and b."""

    def __init__(self, tmp_path: Path) -> None:
        (tmp_path / "relay").mkdir()
        root = str(tmp_path / "relay" / "www")
        copies.prepare(root)
        self.copy = copies.identity([root])
        self.time = 1000.0
        self.nodes: dict[str, FakeNode] = {}
        self.alive: list[FakeNode] = []
        self.orders: list[SenderOrder] = []
        self.done: Any = None
        self.events = b"{}"
        self.halted: dict[int, str] = {}
        self.calls: list[Any] = []
        self.changes: list[list[str]] = []
        fleet = Fleet(
            RedisAddress("redis://r/0"),
            "eu",
            ("eu", "us"),
            (NodeSpec("h:/a", "a"), NodeSpec("h:/b", "b")),
            {},
            "config",
        )
        guard = SimpleNamespace(halted=self.halted, reasons=lambda found: list(found.values()))
        link = SimpleNamespace(is_busy=False, ask=self.ask, wait=lambda _s: None, close=lambda: None)
        loop = SimpleNamespace(clock=lambda: self.time, call_at=lambda _when, _call: None)
        self.journal = Journal()
        self.pool = pool = SimpleNamespace(
            nodes=self.nodes,
            mirror=mirror(journal=self.journal, guard=guard, loop=loop),
            alive=lambda: self.alive,
            remove=self.remove,
            is_stopping=False,
        )
        self.sender = FleetSender(
            fleet,
            (root,),
            HeldNodes(cast(Any, pool), cast(Any, self.add), lambda: self.changes.append(sorted(self.nodes))),
            cast(Any, SimpleNamespace(of_nodes=lambda _nodes: b"status", of_events=lambda: self.events)),
            cast(Any, link),
            SenderTasks(cast(Any, self.nodes), lambda: cast(Any, Recorder(self.calls))),
            lambda: self.time,
        )
        self.seen = Seen(
            SPAN,
            OriginPosition(100, "e", 5),
            "config",
            {},
            {"eu": Arrived("e", 9, self.copy)},
            {},
            {"eu": codec.encode_beat(Beat(True, self.copy, "config"))},
        )

    def ask(self, order: SenderOrder, done: Any) -> None:
        self.orders.append(order)
        self.done = done

    def add(self, spec: NodeSpec, _epoch: str, restore: Any) -> FakeNode:
        node = self.nodes[spec.name] = FakeNode(spec.name)
        self.alive.append(node)
        restore(node)
        return node

    def remove(self, name: str) -> None:
        self.nodes.pop(name)

    def turn(self, **report: Any) -> SenderOrder:
        """Have a round begun, and answered with this; the next round is due then."""
        self.time += 1.0
        self.sender.turn()
        order = self.orders[-1]
        report = {
            "seen": self.seen,
            "settled_seconds": 1000.0,
            "renewed": frozenset(order.renew),
            **report,
        }
        self.done(SenderReport(**report))
        return order

    def fail(self, failure: RedisFailure) -> None:
        self.time += 1.0
        self.sender.turn()
        self.done(failure)

    def served(self, *names: str, record: NodeRecord | None = None) -> None:
        """Come to serve nodes."""
        self.turn()
        self.turn()
        order = self.turn()
        assert order.take.keys() == {"a", "b"}
        self.turn_taken(names, record)
        order = self.turn(begun=frozenset(names), upto=9)
        assert order.start.keys() == set(names)
        assert self.nodes.keys() == set(names)

    def turn_taken(self, names: tuple[str, ...], record: NodeRecord | None) -> None:
        self.time += 1.0
        self.sender.turn()
        taken = dict.fromkeys(names, (7, record))
        self.done(SenderReport(self.seen, 1000.0, taken=taken))
        held = {name: self.sender.holdings.held[name].lease.value for name in names}
        self.seen = replace(self.seen, leases=held)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_node_is_served_after_lease_answer_and_note(world: World) -> None:
    world.served("a")
    node = world.nodes["a"]
    assert (node.cursor, node.owed) == (9, [Change(1, b"", Kind.TREE)]), "nobody knows how far it is"
    assert world.journal.head == 9


def test_sender_with_shared_storage_proves_it_until_the_origin_knows(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It makes nothing there, and serves nothing before."""
    root = tmp_path / "shared"
    world.sender.wpaths = (str(root),)
    world.sender.fleet = replace(world.sender.fleet, shared=(NodeSpec("eu", "eu"),))

    def said() -> Beat:
        return codec.decode_beat(world.turn().beat)

    world.turn()
    assert (said().copy, said().is_ready) == ("-", False)
    assert "No such file" in world.sender.reason
    assert not root.exists()
    root.mkdir()
    storage, proof = copies.storage([str(root)]), copies.proof([str(root)])
    assert said().copy == f"{storage}.{proof}"
    assert "the same storage" in said().reason
    world.seen = replace(world.seen, arrived={"eu": Arrived("e", 9, storage)})
    world.turn()
    assert (said().copy, said().is_ready) == (storage, True)
    monkeypatch.setattr("inosync.system.mounts.shows_changes_late", lambda _path: True)
    assert (said().copy, said().is_ready) == ("-", False)
    assert "actimeo=0" in world.sender.reason
    assert list(root.parent.glob(".inosync")) == []


def test_node_is_not_served_once_a_tree_is_halted(world: World) -> None:
    """Not even if that happens while Redis is asked: what is halted would count as sent to it."""
    world.turn()
    world.turn()
    assert world.turn().take.keys() == {"a", "b"}
    world.turn_taken(("a",), NodeRecord("e", 4, 6, tidy=True))
    world.time += 1.0
    world.sender.turn()
    assert world.orders[-1].start.keys() == {"a"}
    world.halted[1] = "is another directory now"
    world.done(SenderReport(world.seen, 1000.0, begun=frozenset("a"), upto=9))
    assert world.nodes == {}
    assert not world.sender.holdings.held["a"].is_served


def test_node_with_a_known_cursor_goes_on_from_there(world: World) -> None:
    world.served("a", record=NodeRecord("e", 4, 6, tidy=True))
    node = world.nodes["a"]
    assert (node.cursor, node.owed, node.untidy_since) == (4, [], None)


def test_node_that_was_left_untidy_is_tidied(world: World) -> None:
    world.served("a", record=NodeRecord("e", 4, 6, tidy=False))
    assert world.nodes["a"].untidy_since is not None


def test_nothing_is_taken_from_a_redis_that_is_new(world: World) -> None:
    for _ in range(3):
        assert world.turn(settled_seconds=0.0).take == {}
    world.time += leases.QUARANTINE_SECONDS
    world.turn()
    assert world.turn().take.keys() == {"a", "b"}


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        ({"config": "other"}, "the configuration is not that of the origin"),
        ({"span": None}, "there is no origin yet"),
        ({"arrived": {}}, "its copy is not complete yet"),
        ({"arrived": {"eu": Arrived("e", 9, "another")}}, "its copy is not complete yet"),
        ({"arrived": {"eu": Arrived("old", 9, "copy")}}, "its copy is not complete yet"),
    ],
)
def test_sender_that_must_not_serve_says_why_and_takes_nothing(
    world: World, seen: dict[str, Any], reason: str
) -> None:
    world.seen = replace(world.seen, **seen)
    for _ in range(3):
        order = world.turn()
    beat = codec.decode_beat(order.beat)
    assert (beat.is_ready, beat.reason, order.take) == (False, reason, {})


def test_sender_with_a_lost_copy_says_so(world: World) -> None:
    world.halted[1] = "/srv/relay/www: No such file"
    for _ in range(3):
        order = world.turn()
    assert codec.decode_beat(order.beat).reason == "/srv/relay/www: No such file"


@pytest.mark.parametrize(
    ("position", "arrived", "record"),
    [
        (OriginPosition(6, "e", 5), 9, None),
        (None, 9, None),
        (OriginPosition(7, "e", 9), 8, None),
        (OriginPosition(7, "old", 5), 9, None),
        (OriginPosition(7, "e", 5), 8, NodeRecord("e", 4, 9)),
    ],
)
def test_node_waits_for_what_it_may_have_got_already(
    world: World, position: OriginPosition | None, arrived: int, record: NodeRecord | None
) -> None:
    world.seen = replace(world.seen, position=position, arrived={"eu": Arrived("e", arrived, world.copy)})
    for _ in range(2):
        world.turn()
    world.turn_taken(("a",), record)
    order = world.turn()
    assert order.start == {}
    assert world.nodes == {}


def test_node_that_redis_refuses_is_dropped_before_the_journal_goes_on(world: World) -> None:
    world.served("a", "b")
    node = world.nodes["b"]
    world.turn(upto=12, changes=((11, Change(1, b"x", Kind.NAME)),), begun=frozenset({"a"}))
    assert node.is_killed
    assert list(world.nodes) == list(world.sender.holdings.held) == ["a"]
    assert world.journal.since(9) == [Change(1, b"x", Kind.NAME)]


def test_lease_that_is_not_renewed_ends_what_runs(world: World) -> None:
    world.served("a", "b")
    node = world.nodes["b"]
    world.time += leases.RENEW_SECONDS
    order = world.turn(renewed=frozenset({"a"}))
    assert order.renew.keys() == {"a", "b"}
    assert node.is_killed
    assert world.nodes.keys() == {"a"}


def test_lease_that_is_about_to_end_ends_what_runs_without_redis(world: World) -> None:
    world.served("a")
    node = world.nodes["a"]
    for _ in range(int(leases.HOLD_SECONDS - leases.STOP_SECONDS) + 1):
        world.fail(RedisFailure("connection refused"))
    assert node.is_killed
    assert world.sender.holdings.held == {}


def test_restarted_redis_is_told_the_cursors_again_and_left_alone(world: World) -> None:
    world.served("a", record=NodeRecord("e", 9, 9, tidy=True))
    assert world.turn().confirm == {}
    world.fail(RedisFailure("restarted", has_changed=True))
    order = world.turn(settled_seconds=0.0)
    assert order.confirm.keys() == {"a"}
    world.seen = replace(world.seen, leases={})
    assert world.turn(settled_seconds=0.0).take == {}


def test_cursor_is_written_when_nothing_is_owed(world: World) -> None:
    world.served("a")
    node = world.nodes["a"]
    assert world.turn().confirm == {}
    node.owed.clear()
    value = world.sender.holdings.held["a"].lease.value
    assert world.turn().confirm == {"a": (value, 9)}
    assert world.turn(confirmed=frozenset({"a"})).confirm == {"a": (value, 9)}
    assert world.turn().confirm == {}
    node.cursor = 12
    assert world.turn().confirm == {"a": (value, 12)}


def test_sender_whose_copy_stays_behind_leaves_its_nodes_to_another(world: World) -> None:
    """It says so, and serves them again once it has what the other has."""
    world.served("a", "b", record=NodeRecord("e", 9, 9, tidy=True))
    us = codec.encode_beat(Beat(True, "copy", "config"))
    world.seen = replace(
        world.seen,
        beats={**world.seen.beats, "us": us},
        arrived={**world.seen.arrived, "us": Arrived("e", 10, "copy")},
        leases={**world.seen.leases, "c": b"us 1"},
    )
    world.sender.fleet = replace(
        world.sender.fleet,
        nodes=(NodeSpec("h:/a", "a", senders=("eu",)), NodeSpec("h:/b", "b"), NodeSpec("h:/c", "c")),
    )
    world.turn()
    since = world.time
    while world.time < since + leases.LATE_SECONDS:
        assert not codec.decode_beat(world.turn().beat).is_late
        assert world.nodes.keys() == {"a", "b"}
    world.turn()
    beat = codec.decode_beat(world.turn().beat)
    assert (beat.is_ready, beat.is_late) == (True, True)
    assert "stays behind" in beat.reason
    assert world.nodes.keys() == {"a"}, "only this sender may serve it"
    world.seen = replace(world.seen, arrived={**world.seen.arrived, "eu": Arrived("e", 10, world.copy)})
    world.turn(upto=10, begun=frozenset("a"))
    assert not codec.decode_beat(world.turn().beat).is_late


def test_node_is_handed_over_between_batches(world: World) -> None:
    world.served("a", "b", record=NodeRecord("e", 9, 9, tidy=True))
    us = codec.encode_beat(Beat(True, "copy", "config"))
    world.seen = replace(world.seen, beats={**world.seen.beats, "us": us})
    for node in world.nodes.values():
        node.outstanding = object()
    world.turn()
    world.turn()
    assert world.nodes.keys() == {"a", "b"}, "a batch runs"
    for node in world.nodes.values():
        node.outstanding = None
    world.turn()
    [left] = world.nodes
    [gone] = {"a", "b"} - {left}
    assert world.turn().release == {}, "its worker has not ended"
    value = world.sender.holdings.held[gone].lease.value
    world.alive = [node for node in world.alive if node.name != gone]
    assert world.turn().release == {gone: (value, True)}
    assert world.sender.holdings.held.keys() == {left}


def test_new_epoch_drops_all_and_begins_anew(world: World) -> None:
    world.served("a", record=NodeRecord("e", 9, 9, tidy=True))
    node, value = world.nodes["a"], world.sender.holdings.held["a"].lease.value
    world.seen = replace(world.seen, span=JournalSpan("f", 2, 3), arrived={"eu": Arrived("f", 3, world.copy)})
    world.turn()
    assert node.is_killed
    assert (world.journal.head, world.journal.floor, len(world.journal)) == (2, 2, 0)
    order = world.turn()
    assert (order.release, order.epoch, order.confirm) == ({"a": (value, False)}, "f", {})


def test_end_hands_over_everything(world: World) -> None:
    world.served("a", "b", record=NodeRecord("e", 9, 9, tidy=True))
    world.pool.is_stopping = True
    world.nodes["b"].untidy_since = 1.0
    world.nodes["a"].cursor = 11
    values = {name: one.lease.value for name, one in world.sender.holdings.held.items()}
    world.sender.finish()
    order = world.orders[-1]
    assert order.release == {"a": (values["a"], True), "b": (values["b"], False)}
    assert order.confirm["a"] == (values["a"], 11)
    assert order.take == {}
    assert not codec.decode_beat(order.beat).is_ready


def test_order_of_the_origin_is_done_and_written(world: World) -> None:
    world.served("a")
    orders = {"a": b"0 2 0 0"}
    world.nodes["a"].owed.clear()
    world.turn(looked=("a",), orders=orders)
    assert world.calls == [("resync", world.nodes["a"])]
    world.turn(looked=("a",), orders=orders)
    order = world.turn()
    assert {name: what[1] for name, what in order.finish.items()} == {"a": b"2 0 0"}
    world.turn(finished=frozenset({"a"}), looked=("a",), orders=orders, done={"a": b"2 0 0"})
    assert world.turn().finish == {}


def test_node_is_paused_before_its_worker_starts(world: World) -> None:
    world.turn()
    world.turn()
    world.turn()
    world.turn_taken(("a",), None)
    world.turn(begun=frozenset({"a"}), upto=9, looked=("a",), orders={"a": b"1 0 0 0"})
    assert world.nodes["a"].paused
    assert world.calls == []


def test_verification_knows_the_nodes_that_come_and_go(world: World) -> None:
    world.served("a", "b")
    assert [len(names) for names in world.changes] == [1, 2]
    world.turn(renewed=frozenset(), seen=replace(world.seen, span=JournalSpan("new", 0, 9)))
    assert world.changes[-1] == []


def quick_turn(world: World) -> SenderOrder:
    """Have a round begun that ends at once if it may."""
    world.time += 0.05
    world.sender.turn()
    order = world.orders[-1]
    report = SenderReport(world.seen, 1000.0, renewed=frozenset(order.renew), mark=(b"m",))
    world.done(None if order.mark else report)
    return order


def test_sender_only_looks_for_changes_between_its_looks_at_all(world: World) -> None:
    world.served("a")
    world.turn(mark=(b"m",))
    found = [bool(quick_turn(world).mark) for _ in range(40)]
    assert found.count(True) > found.count(False) > 1, "leases are looked at, too"
    world.nodes["a"].owed.clear()
    order = quick_turn(world)
    assert not order.mark
    assert order.confirm.keys() == {"a"}


def test_round_waits_for_what_arrives_if_nothing_is_to_be_done(world: World) -> None:
    world.served("a")
    world.nodes["a"].owed.clear()
    world.turn(mark=(b"m",))
    confirmed = frozenset({"a"})
    world.turn(mark=(b"m",), confirmed=confirmed)
    world.nodes["a"].cursor = 10
    world.time += 0.01
    world.sender.turn()
    order = world.orders[-1]
    assert order.mark, "it only looks for changes"
    assert (set(order.confirm), set(order.serve)) == (set(), {"a"})
    assert order.wait_seconds == pytest.approx(POLL_SECONDS - 0.01)
    world.time += POLL_SECONDS
    world.done(None)
    world.sender.turn()
    order = world.orders[-1]
    assert (order.wait_seconds, set(order.confirm)) == (0.0, {"a"})
    assert not order.mark
    world.done(SenderReport(world.seen, 1000.0, confirmed=confirmed, mark=(b"m",)))
    world.nodes["a"].owed.append(Change(1, b"x", Kind.NAME))
    world.time += POLL_SECONDS + 0.01
    world.sender.turn()
    order = world.orders[-1]
    assert (order.mark, order.wait_seconds) == ((b"m",), POLL_SECONDS), "a node may confirm something soon"
    change = ((11, Change(1, b"x", Kind.NAME)),)
    world.done(SenderReport(world.seen, 1000.0, upto=12, changes=change, begun=confirmed, mark=(b"n",)))
    assert world.journal.head == 12
    world.sender.turn()
    assert (world.orders[-1].mark, world.orders[-1].wait_seconds) == ((), 0.0), "there may be more"


def test_sender_whose_nodes_are_level_waits_until_it_looks_at_leases(world: World) -> None:
    world.served("a", "b", record=NodeRecord("e", 9, 9, tidy=True))
    world.turn(mark=(b"m",))
    world.time += POLL_SECONDS + 0.01
    world.sender.turn()
    order = world.orders[-1]
    assert order.mark
    assert order.wait_seconds == pytest.approx(LEASES_SECONDS - POLL_SECONDS - 0.01)
    world.done(None)
    world.nodes["a"].owed.append(Change(1, b"x", Kind.NAME))
    world.time += POLL_SECONDS
    world.sender.turn()
    assert world.orders[-1].wait_seconds == POLL_SECONDS


def test_events_are_told_when_there_are_new_ones_and_to_a_new_redis(world: World) -> None:
    world.fail(RedisFailure("connection refused"))
    first = world.turn().events
    assert first is not None
    assert first[1] == b"{}"
    assert world.turn().events is None
    world.events = b"new"
    world.fail(RedisFailure("connection refused"))
    second = world.turn().events
    assert second is not None
    assert second[1] == b"new"
    assert second[0] != first[0]
    assert world.turn().events is None
    world.fail(RedisFailure("restarted", has_changed=True))
    assert world.turn().events is not None


def test_sender_that_has_more_to_read_reads_on(world: World) -> None:
    world.served("a")
    world.turn(mark=(b"m",), upto=10)
    assert quick_turn(world).mark == ()
    world.fail(RedisFailure("gone"))
    assert quick_turn(world).mark == ()
