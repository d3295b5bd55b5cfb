"""What is kept: the time of the newest mark that a node has confirmed; nothing new during a walk."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support import configs
from unit.master.mirrors import mirror

from inosync.changes import Change, Kind
from inosync.filters.rule import from_pattern
from inosync.fleet.records import NodeRecord
from inosync.guard.loss import Memory
from inosync.journal.journal import Journal
from inosync.master import state_keeper
from inosync.master.fleet_state import FleetState
from inosync.master.resume import Resume
from inosync.master.state_keeper import StateKeeper
from inosync.master.trees import TreeTable
from inosync.nodes.retries import RetrySet
from inosync.state.document import Owed, SavedNode, State, decode
from inosync.status.events import NodeEvents
from inosync.system import entries


class World:
    def __init__(self) -> None:
        self.now, self.wall = 1000.0, 50_000.0
        self.config = configs.config()
        (self.tree,) = self.config.trees
        (self.spec,) = self.config.nodes
        self.journal = Journal()
        self.written: list[State] = []
        self.reads = 0
        self.unreadable = 0
        self.watcher = SimpleNamespace(
            read=self._read,
            incomplete_trees=set(),
            unclosed=lambda: self.unclosed,
            coverage=SimpleNamespace(polled_since=None, unreadable=lambda _trees: self.unreadable),
            mounts=SimpleNamespace(known=frozenset()),
            roots=SimpleNamespace(identity=lambda _tree: entries.identity(self.tree.wpath)),
        )
        self.unclosed: frozenset[tuple[int, bytes]] | None = frozenset()
        self.writer = SimpleNamespace(is_busy=False, write=self._write, finish=self._finish)
        self.node = SimpleNamespace(
            name=self.spec.name,
            spec=self.spec,
            trees=(1,),
            cursor=0,
            retries=RetrySet((1, 300)),
            outstanding=None,
            second=None,
            is_resumed=False,
            paused=False,
            untidy_since=None,
            worker=SimpleNamespace(hooks_lost=False),
            problem="",
            last_ok=None,
            verified_at=None,
            differences=0,
        )
        self.events = NodeEvents({})
        resume = Resume(None, "", self.config, lambda: self.now, lambda: self.wall)
        self.dispatch: Any = SimpleNamespace(held_until=None)
        self.keeper = StateKeeper(
            mirror(
                nodes={self.spec.name: self.node},
                journal=self.journal,
                guard=SimpleNamespace(halted={}, memory_of=lambda _tree: Memory(entries=2)),
                table=TreeTable(
                    numbers={self.tree.wpath: 1}, excluded={1: lambda path, _: path == b"excluded"}
                ),
                dispatch=self.dispatch,
                loop=SimpleNamespace(clock=lambda: self.now),
            ),
            cast(Any, self.watcher),
            resume,
            self.events,
            lambda: self.config,
            cast(Any, self.writer),
        )

    def _read(self) -> int:
        self.reads = max(self.reads - 1, 0)
        self.now += 0.02 * bool(self.reads)
        return self.reads

    def _write(self, data: bytes) -> bool:
        self.written.append(decode(data))
        return True

    def _finish(self, data: bytes | None, _seconds: float) -> None:
        if data is not None:
            self._write(data)

    def change(self, path: bytes) -> None:
        self.journal.record(Change(1, path, Kind.NAME), self.now)

    def keep(self) -> None:
        """Let so much time pass that the state may be written, and look."""
        self.now += 10
        self.wall += 10
        self.keeper.keep()

    def saved(self) -> SavedNode:
        return self.written[-1].nodes[self.spec.name]


@pytest.fixture
def world(here: Path) -> World:  # noqa: ARG001 - configurations are written there
    return World()


def test_events_are_kept_and_are_reason_enough_to_write(world: World) -> None:
    world.keep()
    writes = len(world.written)
    world.keep()
    assert len(world.written) == writes
    record = logging.makeLogRecord({"msg": "is ok", "facts": {"node": world.spec.name, "event": "state"}})
    world.events.emit(record)
    world.keep()
    assert [event.text for event in world.saved().events] == ["is ok"]


def test_node_has_what_was_recorded_up_to_its_cursor(world: World) -> None:
    world.keep()
    before = world.wall
    assert world.saved().time == before
    world.change(b"x")
    world.keep()
    assert world.saved().time == before, "it has not confirmed the change"
    world.node.cursor = world.journal.head
    world.keep()
    assert world.saved().time == world.wall


def test_nothing_is_written_while_nothing_is_different(world: World) -> None:
    world.keep()
    world.keep()
    assert len(world.written) == 1
    world.node.problem = "full disk"
    world.keeper.keep()
    world.keeper.keep()
    assert len(world.written) == 2


def test_two_writes_are_apart_and_one_at_a_time(world: World) -> None:
    world.keep()
    world.change(b"x")
    world.node.cursor = 1
    world.now += state_keeper.MIN_PAUSE_SECONDS / 2
    world.keeper.keep()
    assert len(world.written) == 1
    world.writer.is_busy = True
    world.keep()
    assert len(world.written) == 1
    world.writer.is_busy = False
    world.keep()
    assert len(world.written) == 2


@pytest.mark.parametrize("is_walking", [False, True])
def test_orders_are_written_at_once(is_walking: bool, world: World) -> None:
    world.keep()
    world.change(b"x")
    world.node.cursor = 1
    world.watcher.incomplete_trees = {1} if is_walking else set()
    for paused in (True, False):
        world.node.paused = paused
        world.keeper.keep()
        world.keeper.keep()
        assert world.saved().paused is paused
        assert not world.written[-1].clean
    assert len(world.written) == 3
    assert (world.written[-1].written == world.written[0].written) is is_walking


def test_order_that_is_taken_back_as_the_walk_ends_is_written(world: World) -> None:
    world.keep()
    world.watcher.incomplete_trees = {1}
    world.node.paused = True
    world.keeper.keep()
    assert world.saved().paused
    world.watcher.incomplete_trees, world.node.paused = set(), False
    world.keeper.keep()
    assert not world.saved().paused, "all else is as in the state before the walk"


def test_request_without_an_order_reads_and_writes_nothing(world: World) -> None:
    world.keep()
    world.reads, world.node.problem = 5, "full disk"
    world.now += 10
    world.keeper.keep_orders()
    assert (world.reads, len(world.written)) == (5, 1)
    world.node.paused = True
    world.keeper.keep_orders()
    assert world.saved().paused


def test_order_is_written_once_the_last_state_is(world: World) -> None:
    world.keep()
    world.node.paused, world.writer.is_busy = True, True
    world.keeper.keep()
    assert not world.saved().paused
    world.writer.is_busy = False
    world.keeper.keep()
    assert world.saved().paused


def test_unfinished_walk_keeps_the_last_state(world: World) -> None:
    world.keep()
    world.watcher.incomplete_trees = {1}
    world.node.problem = "other"
    world.keep()
    assert len(world.written) == 1
    world.node.paused = True
    world.keeper.finish()
    assert world.saved().paused
    assert world.written[-1].written == world.written[0].written
    assert not world.written[-1].clean


def test_end_is_kept_as_an_orderly_one(world: World) -> None:
    world.keeper.finish()
    assert world.written[-1].clean
    assert world.written[-1].trees[world.tree.wpath].memory == Memory(entries=2)


@pytest.mark.parametrize("how", ["walking", "flood", "never polled"])
def test_time_is_not_known_while_changes_may_be_unrecorded(how: str, world: World) -> None:
    match how:
        case "walking":
            world.unclosed = None
        case "flood":
            world.reads = 1_000
        case _:
            world.watcher.coverage.polled_since = -math.inf
    world.keep()
    assert world.saved().time is None


def set_rules(world: World) -> None:
    tree = replace(world.tree, rules=from_pattern("*.tmp", False))
    world.config = replace(world.config, trees=(tree,))


def set_speed(world: World) -> None:
    world.config = replace(world.config, nodes=(replace(world.spec, rverify=9.0, rwarm=0),))


def mount(world: World, path: str) -> None:
    os.makedirs(path, exist_ok=True)
    world.watcher.mounts.known = frozenset({os.fsencode(path)})


OLD_FILES: dict[str, tuple[Callable[[World], object], bool]] = {
    "other rules": (set_rules, True),
    "a mount in the tree": (lambda world: mount(world, f"{world.tree.wpath}/mounted"), True),
    "a mount where it is excluded": (lambda world: mount(world, f"{world.tree.wpath}/excluded/m"), False),
    "a directory that can be read again": (lambda world: setattr(world, "unreadable", 1), True),
    "one that cannot be read any more": (lambda world: setattr(world, "unreadable", 3), False),
    "a mount elsewhere": (lambda world: mount(world, f"{world.tree.wpath}.other"), False),
    "other settings": (set_speed, False),
}


def test_other_rules_may_have_another_mount_kept(world: World) -> None:
    mount(world, f"{world.tree.wpath}/excluded/m")
    world.keep()
    assert world.written[-1].trees[world.tree.wpath].mounts == {}
    world.keeper.mirror.table.excluded[1] = lambda _path, _is_directory: False
    set_rules(world)
    world.keep()
    assert world.written[-1].trees[world.tree.wpath].mounts.keys() == {"excluded/m"}


@pytest.mark.parametrize("is_resumed", [False, True])
@pytest.mark.parametrize("case", OLD_FILES)
def test_node_that_may_lack_old_files_has_no_time(case: str, is_resumed: bool, world: World) -> None:
    come, are_old = OLD_FILES[case]
    world.unreadable, world.node.is_resumed = 2, is_resumed
    world.keeper.resume.state = cast(Any, SimpleNamespace(nodes={world.spec.name: SavedNode(time=7.0)}))
    if is_resumed:  # it has not confirmed anything yet
        world.unclosed = None
    world.keep()
    before = 7.0 if is_resumed else world.wall
    assert world.saved().time == before
    come(world)
    world.change(b"old")
    world.unclosed, world.node.problem = None, "away"  # what came is still walked
    world.keep()
    assert world.saved().time == (None if are_old else before)
    world.unclosed, world.node.problem = frozenset(), "still away"
    world.keep()
    assert world.saved().time == (None if are_old else before)
    world.node.cursor = world.journal.head
    world.keep()
    assert world.saved().time == world.wall


def test_unwatched_directories_count_since_they_were_polled(world: World) -> None:
    world.watcher.coverage.polled_since = world.now - 30
    world.keep()
    assert world.saved().time == world.wall - 40


def test_file_that_is_still_written_is_owed(world: World) -> None:
    world.unclosed = frozenset({(1, b"open")})
    world.keep()
    assert world.saved().owed == (Owed(world.tree.wpath, b"open"),)


def test_what_is_owed_and_what_is_on_its_way_is_kept(world: World) -> None:
    change = Change(1, b"x", Kind.LIST)
    world.node.retries.add(change, world.now - 5)
    world.node.retries.carry([change])
    world.node.outstanding = object()
    world.keep()
    assert world.saved().owed == (Owed(world.tree.wpath, b"x", Kind.LIST, since=world.wall - 15),)
    assert world.saved().untidy


def test_node_that_fell_off_the_journal_has_no_time(world: World) -> None:
    world.keep()
    world.journal.floor = 3
    world.node.problem = "other"
    world.keep()
    assert world.saved().time is None


def test_hold_is_kept_as_a_time_of_the_day(world: World) -> None:
    world.keep()
    count = len(world.written)
    world.dispatch.held_until = world.now + 60
    world.keep()
    assert len(world.written) == count + 1
    assert world.written[-1].held_until == world.wall + 50, "ten seconds later"
    world.dispatch.held_until = None
    world.keep()
    assert world.written[-1].held_until is None


def fleet_of(world: World) -> Any:
    """Make it the origin of a fleet whose node is known up to position 1."""
    origin = SimpleNamespace(
        journal=world.journal,
        epoch="e",
        appended=2,
        records={"far": NodeRecord("e", 1, 1)},
        copies={},
        fleet=SimpleNamespace(fingerprint="c"),
        orders=SimpleNamespace(texts={"far": "1 0 0 0"}),
    )
    world.keeper.fleet = FleetState(cast(Any, origin), None)
    return origin


def test_fleet_is_kept_with_the_time_of_what_its_slowest_node_has(world: World) -> None:
    origin = fleet_of(world)
    world.change(b"a")
    world.node.cursor = 1
    world.keep()
    known = world.wall
    for name in (b"b", b"c"):
        world.change(name)
        world.node.cursor += 1
        world.keep()
    fleet = world.written[-1].fleet
    assert fleet is not None
    assert (fleet.floor, fleet.time) == (1, known), "the mark is kept although the sender needs it no more"
    writes = len(world.written)
    origin.records["far"] = NodeRecord("e", 2, 2)
    world.keep()
    fleet = world.written[-1].fleet
    assert fleet is not None
    assert (len(world.written), fleet.floor) == (writes + 1, 2)


def test_position_is_kept_at_once_even_during_a_walk(world: World) -> None:
    fleet_of(world)
    world.change(b"a")
    world.keep()
    world.watcher.incomplete_trees = {1}
    world.journal.head = 900_000
    world.keeper.keep()
    fleet = world.written[-1].fleet
    assert fleet is not None
    assert fleet.reserved > 1_500_000


def test_order_for_a_far_node_is_kept_at_once(world: World) -> None:
    origin = fleet_of(world)
    world.keep()
    assert world.written[-1].far_orders == {"far": "1 0 0 0"}
    origin.orders.texts = {}
    world.keeper.keep_orders()
    assert world.written[-1].far_orders == {}
    world.watcher.incomplete_trees = {1}
    origin.orders.texts = {"other": "0 7 0 0"}
    world.keeper.keep_orders()
    assert world.written[-1].far_orders == {"other": "0 7 0 0"}
