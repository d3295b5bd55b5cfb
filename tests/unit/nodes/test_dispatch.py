"""Who is sent what, and when: batches cut once for all, and slots for the heavy ones. Time is played."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.filters import excludes

from inosync.changes import Change, Kind, Lane, OwedNames, Part, Source
from inosync.filters.rules import Rules
from inosync.guard.guard import Guard
from inosync.journal.journal import Journal
from inosync.journal.subscription import Subscription
from inosync.nodes import lifecycle
from inosync.nodes.batches import HEAVY_CHANGES
from inosync.nodes.dispatch import NO_ROOM_SECONDS, REWRITE_SECONDS, Dispatcher
from inosync.nodes.lifecycle import Phase, WorkerState
from inosync.nodes.messages import (
    Batch,
    Done,
    Failed,
    Reachable,
    SlotGranted,
    SlotRequest,
    Started,
    Unreachable,
)
from inosync.nodes.node import Node
from inosync.nodes.pace import Cost, Pace
from inosync.nodes.retries import Retry, RetrySet
from inosync.nodes.slots import HOLD_SECONDS
from inosync.system import spool
from inosync.system.loop import Loop, Timer

PROCESSORS, LONGEST = 2, 10.0
IDLE = WorkerState(phase=Phase.IDLE)
EVERYTHING = Subscription({1: Rules(())}, frozenset(), everything=True)
WHOLE = Change(1, b"", Kind.TREE)


class FakeNode:
    """A node that does what the test says, with the state machine of a real one."""

    def __init__(self, world: World, name: str, cursor: int) -> None:
        self._world = world
        self.name = name
        self.cursor = cursor
        self.subscription = EVERYTHING
        self.worker = SimpleNamespace(state=IDLE)
        self.batch: Batch | None = None
        self.cost: Cost | None = None
        self.sent_at = 0.0
        self.untidy_since: float | None = None
        self.paused = self.is_resumed = False
        self.ready: list[Change] = []
        self.riding: list[Change] = []
        self.second: Batch | None = None
        self.owed: dict[Change, Retry] = {}
        """What is ready for the second lane."""
        self.sent: list[Batch] = []
        self.upto = 0
        self.held_since: float | None = None
        """Since when it has a slot."""

    def __repr__(self) -> str:
        return self.name

    @property
    def real(self) -> Node:
        return cast(Node, self)

    def retry(self, change: Change, _now: float) -> None:
        self.ready.append(change)

    def skip_to(self, position: int) -> None:
        self.cursor = position

    @property
    def trees(self) -> tuple[int, ...]:
        return self.subscription.trees

    @property
    def outstanding(self) -> Batch | None:
        return self.batch

    @property
    def retries(self) -> SimpleNamespace:
        return SimpleNamespace(
            count=0,
            oldest=None,
            oldest_untried=None,
            ready=self._ready,
            waiting=self.owed,
            owed=lambda _sent: {},
            riding=lambda _now: list(self.riding),
            items=lambda: (),
        )

    def _ready(self, _now: float, lane: Lane = Lane.FIRST) -> list[Change]:
        return list(self.ready) if lane is Lane.FIRST else list(self.owed)

    def send_batch(self, batch: Batch, upto: int, _since: float, trying: Iterable[Change]) -> None:
        if batch.lane is Lane.SECOND:
            assert self.second is None
            self.second = batch
            self.owed = {change: owed for change, owed in self.owed.items() if change not in list(trying)}
            return
        assert self.batch is None
        assert self.worker.state.phase is Phase.IDLE
        self.batch, self.upto, self.sent_at = batch, upto, self._world.now
        self.ready = [change for change in self.ready if change not in list(trying)]
        self.sent.append(batch)
        if batch.heavy:
            self.held_since = self._world.now
        self._world.granted.append(self.name)
        self.step(batch)

    def grant_slot(self) -> None:
        assert self.batch is not None
        assert self.batch.heavy
        assert self.worker.state.phase is Phase.WAITING
        self.held_since = self._world.now
        self._world.granted.append(self.name)
        self.step(SlotGranted(self.batch.id))

    def step(self, event: lifecycle.Event) -> None:
        self.worker.state, actions = lifecycle.step(self.worker.state, event, self._world.now)
        if lifecycle.Action.OFFER in actions:
            self._world.dispatch.offer_batch(self.real)

    # What the test says

    def done(self, cpu: float = 0.0) -> None:
        """Its batch is through, and has cost so much processor time."""
        assert self.batch is not None
        self.cost = None if self.batch.full else Cost(cpu, self.sent_at, self._world.now)
        done = Done(self.batch.id, 0.1)
        batch, self.batch, self.held_since = self.batch, None, None
        self.cursor = self.upto
        self._world.dispatch.finish_batch(self.real, batch, self.cost)
        self.step(done)

    def fails(self) -> None:
        """Its try has failed, and it waits for the next one."""
        assert self.batch is not None
        self.held_since = None
        self.step(Failed(self.batch.id, 1, 12, "no", 1.0))
        self._world.dispatch.release_slot(self.real)

    def tries_again(self) -> None:
        """The pause after the failure is over."""
        assert self.batch is not None
        if self.batch.heavy:
            self.step(SlotRequest(self.batch.id))
            self._world.dispatch.request_slot(self.real)
        else:
            self.worker.state, _ = lifecycle.step(self.worker.state, lifecycle.TimePassed(), math.inf)

    def dies(self) -> None:
        """Its worker ends."""
        self.step(lifecycle.Died("killed", 0.0))
        batch, self.batch, self.held_since = self.batch, None, None
        if batch is not None:
            self.untidy_since = 0.0
            self._world.dispatch.finish_batch(self.real, batch)

    def starts(self) -> None:
        """It has a worker again."""
        self.worker.state = WorkerState(phase=Phase.STARTING)
        self.step(Started(1))

    def goes_away(self) -> None:
        """It cannot be reached."""
        self.step(Unreachable(1, 12, "no", 1.0))

    def comes_back(self) -> None:
        """It can be reached again."""
        self.step(Reachable())


class FakeGuard:
    """A guard that does what the test says."""

    def __init__(self) -> None:
        self.halted: dict[int, str] = {}
        self.generation = 0
        self.lost: set[int] = set()
        """What the next look will find to be lost."""
        self.looks: list[int] = []

    def halt(self, tree: int) -> None:
        self.halted[tree] = "gone"
        self.generation += 1

    def go_on(self, tree: int) -> None:
        del self.halted[tree]
        self.generation += 1

    def check(self, tree: int) -> bool:
        self.looks.append(tree)
        if tree in self.lost:
            self.lost.discard(tree)
            self.halt(tree)
        return tree not in self.halted

    def allowance(self, _tree: int, _cursor: int) -> None:
        return None

    def source(self, tree: int, full: bool) -> Source | None:
        return Source((tree, self.generation), full)


class CountingLoop(Loop):
    """A loop that counts the timers."""

    timers_set = 0

    def call_at(self, when: float, call: Callable[[], object]) -> Timer:
        self.timers_set += 1
        return super().call_at(when, call)


@dataclass
class World:
    """The master: its clock, its timers, a journal and some nodes."""

    directory: Path
    slots: int = 2
    now: float = 1_000.0
    journal: Journal = field(default_factory=Journal)
    nodes: list[FakeNode] = field(default_factory=list)
    granted: list[str] = field(default_factory=list)
    """The nodes that were let go on, in order."""

    guard: FakeGuard = field(default_factory=lambda: FakeGuard())

    def __post_init__(self) -> None:
        self.loop = CountingLoop(lambda: self.now)
        self.pace = Pace(PROCESSORS, LONGEST)
        self.by_name: dict[str, Node] = {}
        """What the dispatcher sends what is released to."""
        self.dispatch = Dispatcher(
            self.by_name,
            self.journal,
            str(self.directory / "spool"),
            self.pace,
            self.loop,
            cast(Guard, self.guard),
        )
        self.dispatch.set_slots(self.slots)
        (self.directory / "spool").mkdir(exist_ok=True)

    def add(self, count: int, cursor: int = -1) -> list[FakeNode]:
        """So many nodes more; by default they have nothing yet, so that their first batch is FULL."""
        first = len(self.nodes)
        self.nodes += [FakeNode(self, f"n{number}", cursor) for number in range(first, first + count)]
        return self.nodes[first:]

    def change(self, count: int = 1, name: str = "f") -> None:
        """So many names of the tree change, and may be sent."""
        for number in range(count):
            self.journal.record(Change(1, f"{name}{number}".encode(), Kind.NAME), self.now)
        self.dispatch.release_changes()

    def complete(self, at: int) -> None:
        """The journal has all changes up to that time."""
        self.journal.set_complete(at)
        self.dispatch.journal_complete()

    def offer(self) -> None:
        for node in self.nodes:
            self.dispatch.offer_batch(node.real)

    def wait(self, seconds: float = 0.0) -> None:
        """Let time pass, and what is due in it happen."""
        end = self.now + seconds
        turns = 0
        while self.loop.next_timer <= end:
            self.now = max(self.now, self.loop.next_timer)
            self.loop.turn(0)
            turns += 1
            assert turns < 10_000, "timers that set timers"
        self.now = end

    @property
    def busy(self) -> list[str]:
        return [node.name for node in self.nodes if node.worker.state.phase is Phase.BUSY]

    @property
    def holding(self) -> list[str]:
        """Those that have a slot, and count."""
        return [
            node.name
            for node in self.nodes
            if node.held_since is not None and self.now < node.held_since + HOLD_SECONDS
        ]

    def spooled(self) -> list[str]:
        return sorted(os.listdir(self.directory / "spool"))


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Two slots."""
    made = World(tmp_path)
    made.journal.record(Change(1, b"old", Kind.NAME), made.now)
    made.journal.drop_confirmed(1)
    made.dispatch.release_changes()
    made.journal.floor = made.journal.head  # nothing before this is known
    return made


def test_node_waits_after_a_restart_until_all_changes_are_known(world: World) -> None:
    resumed, other = world.add(2, world.journal.head)
    world.by_name |= {node.name: node.real for node in (resumed, other)}
    resumed.is_resumed = True
    world.change()
    assert world.busy == [other.name]
    world.journal.set_complete(1)
    world.dispatch.offer_batch(resumed.real)
    assert world.busy == [resumed.name, other.name]


# The pace ------------------------------------------------------------------------------------------------


def test_node_whose_batch_was_dear_is_held_back_under_load(world: World) -> None:
    nodes = world.add(10, world.journal.head)
    world.by_name |= {node.name: node.real for node in nodes}
    world.change()
    world.wait(1)
    for number, node in enumerate(nodes):
        node.done(cpu=0.0 if number else 5.0)
    world.change()
    assert world.busy == [node.name for node in nodes[1:]]
    reason = "batches take more than their share of the processors"
    assert [world.dispatch.waits_for(node.real) for node in nodes[:2]] == [reason, ""]
    world.wait(5)
    assert nodes[0].name in world.busy
    assert world.dispatch.waits_for(nodes[0].real) == ""
    assert world.loop.next_timer == math.inf


def held_back(world: World) -> FakeNode:
    """A node that the pace holds back, because its last batch was expensive."""
    [node] = world.add(1, world.journal.head)
    world.by_name[node.name] = node.real
    world.change()
    node.done(cpu=100.0)
    world.change()
    assert world.busy == []
    return node


def test_node_held_back_that_is_forgotten_is_offered_nothing(world: World) -> None:
    node = held_back(world)
    world.dispatch.forget_node(node.real)
    world.wait(60)
    assert world.busy == []


def test_released_at_once_goes_whatever_earlier_batches_have_cost(world: World) -> None:
    node = held_back(world)
    world.dispatch.release_changes(at_once=True)
    assert world.busy == [node.name]


# What is sent --------------------------------------------------------------------------------------------


def parts(batch: Batch) -> tuple[Part, ...]:
    """What is in a batch, whatever its sources have to be."""
    return tuple(replace(part, source=None) for part in raw_parts(batch))


def raw_parts(batch: Batch) -> tuple[Part, ...]:
    return cast(tuple[Part, ...], spool.unpack(batch.payload, batch.file))


def test_node_may_have_what_was_changed_before_its_full_mirror_ended(world: World) -> None:
    (node,) = world.add(1, cursor=0)
    world.journal.set_complete(1)
    world.offer()
    node.done()
    world.change(1)
    world.offer()
    node.done()
    world.change(1)
    world.complete(2)
    for _ in range(2):
        world.offer()
        node.done()
        world.change(1)
    assert [batch.is_ahead for batch in node.sent] == [False, True, True, False]


@pytest.mark.parametrize("is_there", [False, True], ids=["later", "during the full mirror"])
def test_change_after_a_full_mirror_is_not_on_the_node_yet(world: World, is_there: bool) -> None:
    (node,) = world.add(1, cursor=0)
    world.complete(1)
    world.offer()
    if is_there:
        world.change(1)
    node.done()
    world.complete(1)
    world.complete(2)
    world.change(1)
    world.offer()
    assert node.sent[1].is_ahead is is_there


def test_node_may_have_more_than_its_cursor_says_though_its_worker_died(world: World) -> None:
    (node,) = world.add(1, cursor=0)
    world.complete(1)
    world.offer()
    node.done()
    world.dispatch.worker_died(node.real)
    world.change(1)
    world.offer()
    assert [batch.is_ahead for batch in node.sent] == [False, True]


def test_node_that_has_nothing_is_sent_all_and_then_what_changed(world: World) -> None:
    (node,) = world.add(1, cursor=0)
    world.offer()
    assert (node.sent[0].full, node.sent[0].heavy) == (True, True)
    assert parts(node.sent[0]) == (Part(1, True),)
    node.done()
    world.change(2)
    world.offer()
    assert (node.sent[1].full, node.sent[1].heavy, node.sent[1].count) == (False, False, 2)
    assert parts(node.sent[1]) == (Part(1, False, (b"f0", b"f1")),)
    node.done()
    world.offer()
    assert len(node.sent) == 2


def test_changes_that_pile_up_while_a_node_is_busy_become_its_next_batch(world: World) -> None:
    (node,) = world.add(1, cursor=1)
    world.change(1, "a")
    world.offer()
    for name in "bcd":
        world.change(1, name)
        world.offer()
    assert len(node.sent) == 1
    node.done()
    assert parts(node.sent[1]) == (Part(1, False, (b"b0", b"c0", b"d0")),)


def test_changes_not_released_yet_are_not_sent_alone(world: World) -> None:
    (node,) = world.add(1, cursor=1)
    world.journal.record(Change(1, b"f", Kind.NAME), world.now)
    world.offer()
    assert node.sent == []
    world.dispatch.release_changes()
    world.offer()
    assert len(node.sent) == 1


def test_batch_says_whether_it_is_heavy(world: World) -> None:
    (node,) = world.add(1, cursor=1)
    for count, heavy in ((HEAVY_CHANGES - 1, False), (HEAVY_CHANGES, True)):
        world.change(count)
        world.offer()
        assert (node.sent[-1].count, node.sent[-1].heavy) == (count, heavy)
        node.done()


def leaving_out(*patterns: str) -> Subscription:
    return Subscription({1: Rules(excludes(patterns))}, frozenset({1}), everything=False)


def test_changes_that_do_not_concern_a_node_are_not_sent_nor_counted(world: World) -> None:
    one, other = world.add(2, cursor=1)
    other.subscription = leaving_out("/cache/", "*.tmp")
    for path in (b"cache/f", b"x.tmp"):
        world.journal.record(Change(1, path, Kind.NAME), world.now)
    world.dispatch.release_changes()
    world.offer()
    assert parts(one.sent[0]) == (Part(1, False, (b"cache/f", b"x.tmp")),)
    assert other.sent == []
    assert other.cursor == world.journal.head
    world.change()
    world.offer()
    assert parts(other.sent[0]) == (Part(1, False, (b"f0",)),)


def test_ten_thousand_changes_that_do_not_concern_a_node_are_no_batch(world: World) -> None:
    (node,) = world.add(1, cursor=1)
    node.subscription = leaving_out("/cache/")
    for number in range(10_000):
        world.journal.record(Change(1, b"cache/%d" % number, Kind.NAME), world.now)
        world.dispatch.release_changes()
        world.offer()
    assert node.sent == []


def count_packing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    packed: list[str] = []
    real = spool.pack

    def pack(thing: object, path: str) -> tuple[bytes, str]:
        packed.append(path)
        return real(thing, path)

    monkeypatch.setattr(spool, "pack", pack)
    return packed


def test_batch_that_waits_for_a_slot_is_cut_and_written_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = world.add(20, cursor=1)
    world.change(HEAVY_CHANGES)
    world.offer()
    assert len(world.busy) == world.slots
    packed = count_packing(monkeypatch)
    for number in range(5):
        world.change(1, f"more{number}")
        world.offer()
    # Once for each release at the most, and not for each of the 18 that wait.
    assert len(packed) <= 5
    assert [node.name for node in nodes[:2]] == world.busy


def test_files_of_batches_that_nobody_takes_do_not_stay(world: World) -> None:
    nodes = world.add(5, cursor=1)
    world.change(HEAVY_CHANGES)
    world.offer()
    world.change(HEAVY_CHANGES, "g")
    world.offer()
    for _ in range(6):
        for node in nodes:
            if node.worker.state.phase is Phase.BUSY:
                node.done()
        world.wait()
        assert len(world.spooled()) <= world.slots + 1
    assert [node.cursor for node in nodes] == [world.journal.head] * 5
    assert world.spooled() == []


# Slots ---------------------------------------------------------------------------------------------------


def test_light_batches_go_to_all_at_once_even_while_heavy_ones_wait(world: World) -> None:
    world.add(5)
    world.offer()
    assert len(world.busy) == 2
    light = world.add(50, cursor=1)
    world.change(3)
    world.offer()
    assert {len(node.sent) for node in light} == {1}
    assert world.dispatch.waits_for(light[0].real) == ""


def test_nodes_that_start_together_wait_for_slots(world: World) -> None:
    nodes = world.add(100)
    world.offer()
    most = 0
    for _ in range(100):
        most = max(most, len(world.busy))
        for node in nodes:
            if node.worker.state.phase is Phase.BUSY:
                node.done()
                break
        world.wait(0.1)
    assert most == world.slots == 2
    assert {len(node.sent) for node in nodes} == {1}
    assert world.granted == [node.name for node in nodes]


def test_slot_goes_to_the_node_that_has_waited_longest(world: World) -> None:
    nodes = world.add(6)
    for number in (3, 1, 5, 0, 2, 4):
        world.dispatch.offer_batch(nodes[number].real)
    assert world.granted == ["n3", "n1"]
    for number in (1, 3, 5, 0, 2):
        world.offer()  # which does not change the order
        nodes[number].done()
        world.wait()
    assert world.granted == ["n3", "n1", "n5", "n0", "n2", "n4"]


def test_node_that_comes_later_does_not_get_a_slot_just_freed(world: World) -> None:
    nodes = world.add(4)
    for node in nodes[:3]:
        world.dispatch.offer_batch(node.real)
    nodes[0].done()
    world.dispatch.offer_batch(nodes[3].real)
    assert world.granted == ["n0", "n1"]
    world.wait()
    assert world.granted == ["n0", "n1", "n2"]
    nodes[1].done()
    world.wait()
    assert world.granted == ["n0", "n1", "n2", "n3"]


def test_node_that_cannot_use_its_turn_does_not_stop_the_others(world: World) -> None:
    nodes = world.add(7)
    world.offer()
    nodes[2].goes_away()
    nodes[3].dies()
    world.dispatch.forget_node(nodes[4].real)
    nodes[4].dies()
    nodes[0].done()
    nodes[1].done()
    world.wait()
    assert world.busy == ["n5", "n6"]
    nodes[2].comes_back()
    nodes[3].starts()
    assert world.dispatch.waits_for(nodes[2].real) == "waiting for a slot"
    nodes[5].done()
    nodes[6].done()
    world.wait()
    assert world.busy == ["n2", "n3"]


def test_tree_lost_while_a_batch_is_cut_is_left_out_of_it(world: World) -> None:
    (node,) = world.add(1, cursor=world.journal.head)
    node.subscription = Subscription({1: Rules(()), 2: Rules(())}, frozenset(), everything=True)
    node.ready = [Change(1, b"x", Kind.NAME), Change(2, b"y", Kind.NAME)]
    world.guard.lost = {1}
    world.dispatch.offer_batch(node.real)
    assert parts(node.sent[0]) == (Part(2, False, (b"y",)),)
    assert node.ready == [Change(1, b"x", Kind.NAME)]  # it is due as before


def test_node_that_needs_no_slot_any_more_leaves_it_to_the_next(world: World) -> None:
    nodes = world.add(4)
    world.offer()
    world.guard.halt(1)  # all that it waited for
    world.dispatch.offer_batch(nodes[2].real)
    nodes[0].done()
    nodes[1].done()
    world.wait()
    assert world.busy == []
    world.guard.go_on(1)
    for node in nodes[2:]:
        node.cursor = -1
        world.dispatch.offer_batch(node.real)
    assert world.busy == ["n2", "n3"]


def test_dispatcher_says_what_a_node_waits_for(world: World) -> None:
    nodes = world.add(3)
    world.offer()
    assert [world.dispatch.waits_for(node.real) for node in nodes] == ["", "", "waiting for a slot"]
    nodes[0].done()
    world.wait()
    assert world.dispatch.waits_for(nodes[2].real) == ""


@pytest.mark.parametrize("ending", [FakeNode.done, FakeNode.fails, FakeNode.dies])
def test_slot_is_free_when_its_transfer_ends_however_it_does(
    world: World, ending: Callable[[FakeNode], None]
) -> None:
    nodes = world.add(3)
    world.offer()
    ending(nodes[0])
    assert world.busy == ["n1"], "not in the middle of what the node does"
    world.wait()
    assert world.busy == ["n1", "n2"]


def test_node_in_backoff_holds_no_slot_and_asks_for_one_again(world: World) -> None:
    nodes = world.add(3)
    world.offer()
    nodes[0].fails()
    world.wait()
    assert world.busy == ["n1", "n2"]
    nodes[0].tries_again()
    assert nodes[0].worker.state.phase is Phase.WAITING
    assert world.dispatch.waits_for(nodes[0].real) == "waiting for a slot"
    nodes[1].done()
    world.wait()
    assert world.busy == ["n0", "n2"]
    assert nodes[0].sent == nodes[0].sent[:1], "it is the same batch"


def test_next_try_goes_at_once_if_there_is_a_slot(world: World) -> None:
    (node,) = world.add(1)
    world.offer()
    node.fails()
    node.tries_again()
    assert world.busy == ["n0"]


def test_those_that_try_again_wait_in_line_with_the_others(world: World) -> None:
    nodes = world.add(5)
    world.dispatch.offer_batch(nodes[0].real)
    world.dispatch.offer_batch(nodes[1].real)
    nodes[0].fails()
    world.dispatch.offer_batch(nodes[2].real)
    world.dispatch.offer_batch(nodes[3].real)
    nodes[0].tries_again()
    world.dispatch.offer_batch(nodes[4].real)
    world.wait()
    for name in ("n1", "n2", "n3", "n0"):
        node = world.nodes[int(name[1:])]
        assert node.worker.state.phase is Phase.BUSY, name
        node.done()
        world.wait()
    assert world.granted == ["n0", "n1", "n2", "n3", "n0", "n4"]


def test_node_whose_worker_dies_in_backoff_loses_its_turn(world: World) -> None:
    nodes = world.add(4)
    world.offer()
    nodes[0].fails()
    world.wait()
    nodes[0].tries_again()
    nodes[0].dies()
    nodes[1].done()
    nodes[2].done()
    world.wait()
    assert world.busy == ["n3"]
    nodes[0].starts()
    assert world.busy == ["n0", "n3"]
    assert len(nodes[0].sent) == 2


def test_light_batch_that_fails_needs_no_slot(world: World) -> None:
    (node,) = world.add(1, cursor=1)
    world.change()
    world.offer()
    world.add(2)
    world.offer()
    node.fails()
    node.tries_again()
    assert node.worker.state.phase is Phase.BUSY


# A slot does not count for ever --------------------------------------------------------------------------


def test_transfer_that_takes_long_does_not_hold_up_others(world: World) -> None:
    world.add(5)
    world.offer()
    world.wait(HOLD_SECONDS - 0.1)
    assert world.busy == ["n0", "n1"]
    world.wait(0.2)
    assert world.busy == ["n0", "n1", "n2", "n3"]
    world.wait(HOLD_SECONDS)
    assert world.busy == ["n0", "n1", "n2", "n3", "n4"]


def test_slots_are_counted_from_their_own_beginnings(world: World) -> None:
    nodes = world.add(6)
    world.dispatch.offer_batch(nodes[0].real)
    world.wait(HOLD_SECONDS / 2)
    world.offer()
    assert world.busy == ["n0", "n1"]
    world.wait(HOLD_SECONDS / 2 + 0.1)
    assert world.busy == ["n0", "n1", "n2"]
    world.wait(HOLD_SECONDS / 2)
    assert world.busy == ["n0", "n1", "n2", "n3"]
    world.wait(HOLD_SECONDS / 2)
    assert world.busy == ["n0", "n1", "n2", "n3", "n4"]


def test_slot_that_did_not_count_any_more_frees_nothing(world: World) -> None:
    nodes = world.add(7)
    world.offer()
    world.wait(HOLD_SECONDS)
    assert world.busy == ["n0", "n1", "n2", "n3"]
    nodes[0].done()
    nodes[1].fails()
    world.wait()
    assert len(world.holding) == 2
    assert world.busy == ["n2", "n3"]


def test_slots_follow_a_new_number(world: World) -> None:
    nodes = world.add(9)
    world.offer()
    world.dispatch.set_slots(4)
    nodes[0].done()
    world.wait()
    assert world.busy == ["n1", "n2", "n3", "n4"]
    world.dispatch.set_slots(1)
    for node in nodes[1:4]:
        node.done()
    world.wait()
    assert world.busy == ["n4"]
    nodes[4].done()
    world.wait()
    assert world.busy == ["n5"]


def test_few_timers_are_set_however_many_wait(world: World) -> None:
    world.add(200)
    world.offer()
    for _ in range(20):
        world.offer()
    assert world.loop.timers_set < 10


# The run directory ---------------------------------------------------------------------------------------


def test_batch_that_cannot_be_written_waits_and_takes_no_slot(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = world.add(2, cursor=1)
    full = world.add(2)
    world.change(HEAVY_CHANGES)

    def no_room(_thing: object, _path: str) -> tuple[bytes, str]:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(spool, "pack", no_room)
        world.offer()
        assert world.dispatch.waits_for(nodes[0].real).startswith("no room in ")
        world.wait(REWRITE_SECONDS - 0.1)
        world.offer()
    assert world.busy == []
    world.wait(0.2)
    assert sorted(world.granted) == sorted([nodes[0].name, nodes[1].name])
    assert world.dispatch.waits_for(full[0].real) == "waiting for a slot"


def refuse_names(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let no batch of names be written."""
    real = spool.pack

    def pack(thing: tuple[Part, ...], path: str) -> tuple[bytes, str]:
        if any(part.names for part in thing):
            raise OSError(number, os.strerror(number))
        return real(thing, path)

    monkeypatch.setattr(spool, "pack", pack)


def test_batch_larger_than_the_run_directory_becomes_a_full_mirror(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (node,) = world.add(1, cursor=1)
    world.change(3)
    refuse_names(monkeypatch, errno.EFBIG)
    world.offer()
    assert parts(node.sent[0]) == (Part(1, True),)
    assert world.dispatch.waits_for(node.real) == ""
    node.done()
    assert node.cursor == world.journal.head


def test_batch_that_finds_no_room_for_long_becomes_a_full_mirror(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (node,) = world.add(1, cursor=1)
    world.change(3)
    refuse_names(monkeypatch, errno.ENOSPC)
    world.offer()
    world.wait(NO_ROOM_SECONDS - 1)
    assert node.sent == []
    world.wait(REWRITE_SECONDS + 1)
    assert parts(node.sent[0]) == (Part(1, True),)


def test_full_mirror_that_cannot_be_written_waits(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    (node,) = world.add(1)

    def no_room(_thing: object, _path: str) -> tuple[bytes, str]:
        raise OSError(errno.EFBIG, "larger than the file system")

    with monkeypatch.context() as patch:
        patch.setattr(spool, "pack", no_room)
        world.offer()
        world.wait(2 * NO_ROOM_SECONDS)
    assert node.sent == []
    world.wait(REWRITE_SECONDS)
    assert parts(node.sent[0]) == (Part(1, True),)


# Whatever happens ----------------------------------------------------------------------------------------

NODES = 6
EVENTS = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([0, 1, 2, 14, 15, 16, 30, 31])),
    st.tuples(st.sampled_from(["light", "heavy"]), st.just(0)),
    st.tuples(
        st.sampled_from(["done", "fails", "again", "dies", "starts", "away", "back", "forget", "offer"]),
        st.integers(0, NODES - 1),
    ),
)


def happens(world: World, event: str, number: int) -> None:
    """Let it happen if it can in this state, as the worker and the master would."""
    node = world.nodes[number % NODES]
    phase = node.worker.state.phase
    match event:
        case "wait":
            world.wait(float(number))
        case "light":
            world.change(1, f"light{world.journal.head}-")
            world.offer()
        case "heavy":
            world.change(HEAVY_CHANGES, f"heavy{world.journal.head}-")
            world.offer()
        case "done" if phase is Phase.BUSY:
            node.done()
        case "fails" if phase is Phase.BUSY:
            node.fails()
        case "again" if phase is Phase.WAITING and node.worker.state.wake_at < math.inf:
            node.tries_again()
        case "dies" if phase is not Phase.DOWN:
            node.dies()
        case "starts" if phase is Phase.DOWN:
            node.starts()
        case "away" if phase is Phase.IDLE:
            node.goes_away()
        case "back" if phase is Phase.AWAY:
            node.comes_back()
        case "forget" if phase is Phase.DOWN:
            world.dispatch.forget_node(node.real)
        case "offer":
            world.dispatch.offer_batch(node.real)


@pytest.mark.slow
@settings(
    max_examples=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    slots=st.integers(1, 4),
    cursors=st.lists(st.sampled_from([-1, 1]), min_size=NODES, max_size=NODES),
    events=st.lists(EVENTS, max_size=60),
)
def test_slots_are_never_exceeded_and_no_node_starves(
    world: World, slots: int, cursors: list[int], events: list[tuple[str, int]]
) -> None:
    world = World(world.directory, slots, journal=Journal())
    world.journal.record(Change(1, b"old", Kind.NAME), world.now)
    world.journal.floor = world.journal.head
    world.dispatch.release_changes()
    for cursor in cursors:
        world.add(1, cursor)
    for event, number in events:
        happens(world, event, number)
        assert len(world.holding) <= slots
        for node in world.nodes:
            changes = world.journal.backlog(node.cursor)[0]
            if node.worker.state.phase is Phase.IDLE and node.batch is None and node.cursor >= 0:
                # Nothing light waits for anything but its release.
                assert not 0 < changes < HEAVY_CHANGES or node.cursor < world.journal.floor
    # From now on nothing ends, and all are offered what there is: only time passes.
    for node in world.nodes:
        if node.worker.state.phase is Phase.AWAY:
            node.comes_back()
        elif node.worker.state.phase is Phase.DOWN:
            node.starts()
        elif node.worker.state.phase is Phase.WAITING and node.worker.state.wake_at < math.inf:
            node.tries_again()
    world.offer()
    for _ in range(NODES + 1):
        world.wait(HOLD_SECONDS)
        assert len(world.holding) <= slots
    waiting = [
        node.name
        for node in world.nodes
        if node.worker.state.phase is Phase.WAITING
        or (node.worker.state.phase is Phase.IDLE and node.cursor < world.dispatch.released)
    ]
    assert waiting == []
    # And when all is through, nothing is left in the run directory.
    for _ in range(3):
        for node in world.nodes:
            if node.worker.state.phase is Phase.BUSY:
                node.done()
        for _ in range(NODES + 1):
            world.wait(HOLD_SECONDS)
    for node in world.nodes:
        assert (node.worker.state.phase, node.cursor) == (Phase.IDLE, world.journal.head)
    assert world.spooled() == []


# The second lane -----------------------------------------------------------------------------------------

BIG = Change(1, b"big", Kind.NAME)


@pytest.mark.parametrize(
    ("phase", "is_sent"),
    [(phase, phase in (Phase.IDLE, Phase.BUSY)) for phase in Phase],
)
def test_big_file_is_sent_beside_the_first_lane(world: World, phase: Phase, is_sent: bool) -> None:
    node = world.add(1, cursor=1)[0]
    node.owed = {BIG: Retry(0, 0.0, world.now - 7, Lane.SECOND)}
    node.worker.state = WorkerState(phase=phase)
    world.dispatch.offer_batch(node.real)
    assert (node.second is not None) is is_sent
    if node.second is not None:
        assert (parts(node.second)[0].names, node.second.lane, node.second.heavy) == (
            (b"big",),
            Lane.SECOND,
            False,
        )
        assert node.batch is None


def test_big_file_waits_while_it_may_not_be_sent(world: World) -> None:
    node = world.add(1, cursor=1)[0]
    node.owed = {BIG: Retry(0, 0.0, world.now, Lane.SECOND)}
    node.paused = True
    world.dispatch.offer_batch(node.real)
    assert node.second is None
    node.paused = False
    world.dispatch.offer_batch(node.real)
    first = node.second
    assert first is not None
    node.owed = {Change(1, b"next", Kind.NAME): Retry(0, 0.0, world.now, Lane.SECOND)}
    world.dispatch.offer_batch(node.real)
    assert node.second is first, "one after another"


def test_end_of_a_big_file_gives_no_slot_back(world: World) -> None:
    (node,) = world.add(1)
    world.dispatch.offer_batch(node.real)
    assert node.batch is not None
    assert node.batch.heavy
    node.owed = {BIG: Retry(0, 0.0, world.now, Lane.SECOND)}
    world.dispatch.offer_batch(node.real)
    assert node.second is not None
    free = world.dispatch.has_free_slot
    world.dispatch.finish_batch(node.real, node.second)
    assert world.dispatch.has_free_slot is free


# Held by the operator ------------------------------------------------------------------------------------


def test_nothing_is_sent_in_either_lane_while_it_is_held(world: World) -> None:
    node = world.add(1, cursor=1)[0]
    node.owed = {BIG: Retry(0, 0.0, world.now, Lane.SECOND)}
    world.dispatch.hold(world.now + 5)
    world.dispatch.offer_batch(node.real)
    assert (node.batch, node.second) == (None, None)
    assert world.dispatch.waits_for(node.real) == "held by the operator until release"
    world.dispatch.hold(None)
    world.dispatch.offer_batch(node.real)
    assert node.second is not None
    assert world.dispatch.waits_for(node.real) == ""


def test_what_waits_for_others_goes_along_with_a_batch(world: World) -> None:
    node = world.add(1, cursor=world.journal.head)[0]
    node.riding = [BIG]
    world.dispatch.offer_batch(node.real)
    assert node.batch is None, "it is no reason for a batch"
    node.ready = [Change(1, b"failed", Kind.NAME)]
    world.dispatch.offer_batch(node.real)
    assert node.batch is not None
    assert set(parts(node.batch)[0].names) == {b"failed", b"big"}


# Stages ------------------------------------------------------------------------------------------------


class StagedNode(FakeNode):
    """A node of a later stage, with the books of a real one."""

    def __init__(self, world: World, name: str, cursor: int) -> None:
        super().__init__(world, name, cursor)
        self.books = RetrySet((1.0, 300.0))

    @property
    def retries(self) -> Any:
        return self.books

    def retry(self, change: Change, now: float) -> None:
        self.books.add(change, now)

    def send_batch(self, batch: Batch, upto: int, since: float, trying: Iterable[Change]) -> None:
        trying = list(trying)
        self.books.carry(trying, batch.lane)
        super().send_batch(batch, upto, since, ())

    def done_but(self, behind: Iterable[Change] = ()) -> None:
        """Its batch is through, but for what has to wait for what the node lacks."""
        self.books.settle((), (), self._world.now, self._world.now, 0.0)
        self.books.add_behind(behind, self._world.now, self._world.now)
        self.done()

    def names(self) -> list[bytes]:
        """Return what the batch on its way has."""
        assert self.batch is not None
        return [name for part in self.parts() for name in (part.names or (b"ALL",))]

    def parts(self) -> tuple[Part, ...]:
        assert self.batch is not None
        return cast(tuple[Part, ...], spool.unpack(self.batch.payload, self.batch.file))


@dataclass
class Stage:
    """A world with one node, which may be sent up to a position."""

    world: World
    node: StagedNode

    def limit(self, position: int) -> None:
        """Let the node have what was recorded up to this position."""
        self.world.dispatch.roll_out.limits = {self.node.name: position}
        self.world.offer()

    def record(self, *paths: bytes, kind: Kind = Kind.NAME) -> int:
        for path in paths:
            self.world.journal.record(Change(1, path, kind), self.world.now)
        self.world.dispatch.release_changes()
        return self.world.journal.head


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    world = World(tmp_path)
    node = StagedNode(world, "late", 0)
    world.nodes, world.by_name["late"] = [node], node.real
    made = Stage(world, node)
    made.limit(-1)
    return made


def test_node_of_a_later_stage_gets_nothing_before_its_limit(stage: Stage) -> None:
    stage.node.retry(Change(1, b"owed", Kind.NAME), stage.world.now)
    stage.record(b"a", b"b")
    assert stage.node.batch is None, "nothing has passed, not even what is owed to it"
    stage.limit(0)
    assert stage.node.names() == [b"owed"]
    stage.node.done_but()
    stage.limit(1)
    assert (stage.node.names(), stage.node.upto) == ([b"a"], 1)
    stage.node.done_but()
    assert stage.node.batch is None
    stage.limit(2)
    assert stage.node.names() == [b"b"]


def test_node_of_a_later_stage_gets_nothing_that_has_changed_again(stage: Stage) -> None:
    upto = stage.record(b"a", b"b")
    stage.node.retry(Change(1, b"c", Kind.NAME), stage.world.now)
    head = stage.record(b"a", b"c")
    stage.limit(upto)
    assert stage.node.names() == [b"b"]
    stage.node.done_but()
    assert (stage.node.batch, stage.node.cursor) == (None, upto)
    stage.limit(head)
    assert sorted(stage.node.names()) == [b"a", b"c"]


def test_listing_is_owed_until_what_is_newer_in_it_has_passed(stage: Stage) -> None:
    upto = stage.record(b"d", kind=Kind.LIST)
    head = stage.record(b"d/new")
    stage.limit(upto)
    assert (stage.node.batch, stage.node.cursor) == (None, upto)
    assert list(stage.node.books.waiting) == [Change(1, b"d", Kind.LIST)]
    assert stage.node.books.count == 1, "the node lacks it"
    stage.world.wait(100.0)
    assert stage.node.batch is None
    stage.limit(head)
    assert stage.node.names() == [b"d/"], "that has the new name in it as well"


def until_all_has_passed(stage: Stage, upto: int, head: int, before: bytes) -> None:
    """Raise the limit twice: the node gets one name, and its full mirror only when all has passed."""
    stage.limit(upto)
    assert stage.node.names() == [before]
    stage.node.done_but()
    assert stage.node.batch is None
    stage.limit(head)
    assert stage.node.names() == [b"ALL"]


def test_full_mirror_waits_until_all_of_the_tree_has_passed(stage: Stage) -> None:
    stage.node.retry(WHOLE, stage.world.now)
    upto = stage.record(b"a")
    head = stage.record(b"b")
    until_all_has_passed(stage, upto, head, b"a")


def test_staged_node_that_has_fallen_off_the_journal_is_owed_its_trees(stage: Stage) -> None:
    upto = stage.record(b"a", b"b")
    stage.world.journal.floor = 1  # the first of them was dropped
    head = stage.record(b"c")
    until_all_has_passed(stage, upto, head, b"b")


def test_node_that_has_fallen_off_the_journal_lacks_its_trees_since_then(stage: Stage) -> None:
    began = stage.world.now
    stage.record(b"a")
    stage.world.now += 100.0
    upto = stage.record(b"b")
    stage.world.journal.floor = 1
    stage.record(b"c")
    stage.limit(upto)
    assert stage.node.books.oldest == began


def test_journal_is_not_searched_for_a_node_that_has_all_it_may_be_sent(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    upto = stage.record(b"a")
    stage.limit(upto)
    stage.node.done_but()
    searches: list[tuple[object, ...]] = []
    for name in ("since", "unsettled", "overtaken"):
        monkeypatch.setattr(stage.world.journal, name, lambda *asked: searches.append(asked))
    for number in range(10):
        stage.record(b"%d" % number)
    assert searches == [], "each search goes through all that it lacks"


def test_batch_up_to_a_limit_says_what_the_node_lacks(stage: Stage) -> None:
    stage.record(b"r2/f", b"r2/g")
    upto = stage.record(b"current")
    stage.record(b"r2/f", b"other")
    stage.limit(upto)
    first = stage.node.parts()[0]
    assert first.owed == OwedNames(failed=(b"r2/f",)), "a link to it waits; what is only newer is not lacking"


def test_what_waits_for_something_newer_is_not_tried_again_and_again(stage: Stage) -> None:
    upto = stage.record(b"f", b"link")
    head = stage.record(b"f")
    stage.limit(upto)
    assert stage.node.names() == [b"link"]
    stage.node.done_but(behind=[Change(1, b"link", Kind.NAME)])
    stage.world.wait(1.0)
    stage.world.offer()
    assert stage.node.batch is None, "nothing has passed since"
    stage.limit(head)
    assert set(stage.node.names()) == {b"link", b"f"}


def test_big_file_that_has_changed_again_waits_for_its_stage(stage: Stage) -> None:
    big = Change(1, b"big", Kind.NAME)
    upto = stage.record(b"big")
    stage.node.books.add_big([big], stage.world.now, stage.world.now)
    head = stage.record(b"big")
    stage.limit(upto)
    assert stage.node.second is None
    stage.limit(head)
    assert stage.node.second is not None


def test_batches_of_nodes_with_other_limits_are_not_shared(stage: Stage) -> None:
    upto = stage.record(b"a")
    other = stage.world.add(1, 0)[0]
    stage.record(b"b")
    stage.limit(upto)
    assert stage.node.names() == [b"a"]
    assert other.batch is not None
    assert other.batch.count == 2
