"""When changes go to the nodes: journal, dispatcher and pace are real, the nodes and the time are played."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import median
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.recorder import Recorder

from inosync.changes import Change, Kind
from inosync.filters.rules import Rules
from inosync.journal.debounce import Debounce
from inosync.journal.journal import Journal
from inosync.journal.subscription import Subscription
from inosync.master.pacing import WALK_SECONDS, Pacing
from inosync.nodes.dispatch import Dispatcher
from inosync.nodes.lifecycle import Phase
from inosync.nodes.messages import Batch
from inosync.nodes.node import Node
from inosync.nodes.pace import SHARE, Cost, Pace
from inosync.system.loop import Loop


class World:
    """A dispatcher that only notes what it is told."""

    def __init__(self) -> None:
        self.now = 100.0
        self.calls: list[tuple[Any, ...]] = []
        self.watcher = SimpleNamespace(is_walking=False)
        self.journal = Journal()
        self.pacing = Pacing(
            self.journal,
            cast(Any, Recorder(self.calls)),
            cast(Any, self.watcher),
            Debounce(0.1, 10.0),
            lambda: self.now,
        )

    def change(self, name: bytes) -> None:
        self.journal.record(Change(1, name, Kind.NAME), self.now)
        self.pacing.release_if_due()

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.pacing.release_if_due()


@pytest.fixture
def world() -> World:
    return World()


RELEASED = [("release_changes", False)]


def test_changes_are_released_after_a_quiet_moment(world: World) -> None:
    assert world.pacing.due == math.inf
    world.change(b"x")
    assert world.pacing.due == pytest.approx(100.1)
    world.wait(0.09)
    assert world.calls == []
    world.wait(0.02)
    assert world.calls == RELEASED
    assert world.pacing.due == math.inf


@pytest.mark.parametrize(("delay", "longest"), [(10.0, WALK_SECONDS), (0.5, 0.5)])
def test_changes_wait_for_a_walk_within_bounds(world: World, delay: float, longest: float) -> None:
    world.pacing.configure(0.1, delay)
    world.watcher.is_walking = True
    world.change(b"x")
    world.wait(longest - 0.01)
    assert world.calls == []
    world.wait(0.02)
    assert world.calls == RELEASED


def test_release_leaves_nothing_to_wait_for(world: World) -> None:
    world.change(b"x")
    world.pacing.release()
    assert world.calls == [("release_changes", True)]
    world.wait(10)
    assert world.calls == [("release_changes", True)]


def test_other_settings_are_followed_at_once(world: World) -> None:
    world.change(b"x")
    world.pacing.configure(5.0, 20.0)
    assert world.pacing.due == 105.0


# Rhythms -------------------------------------------------------------------------------------------------

PROCESSORS, QUIET, DELAY = 2, 0.01, 10.0
ALLOWED = PROCESSORS * SHARE
EVERYTHING = Subscription({1: Rules(())}, frozenset(), everything=True)
ELSEWHERE = Subscription({2: Rules(())}, frozenset(), everything=False)


class PlayedNode:
    """A node that confirms each batch after a while."""

    def __init__(self, rhythm: Rhythm, name: str, seconds: float, cpu: float, cpu_for_name: float) -> None:
        self._rhythm, self.name = rhythm, name
        self.seconds, self.cpu, self.cpu_for_name = seconds, cpu, cpu_for_name
        self.subscription = EVERYTHING
        self.cursor, self.paused, self.untidy_since, self.is_resumed = 0, False, None, False
        self.worker = SimpleNamespace(state=SimpleNamespace(phase=Phase.IDLE))
        self.retries = SimpleNamespace(
            ready=lambda _now, _lane=None: [],
            count=0,
            oldest_untried=None,
            owed=lambda _sent: {},
            riding=lambda _now: [],
            items=lambda: (),
        )
        self.second = None
        self.outstanding: Batch | None = None
        self.cost: Cost | None = None
        self.batches: list[tuple[float, float, int]] = []
        """When each was sent and confirmed, and the position that it brought the node to."""
        self.sizes: list[int] = []

    @property
    def trees(self) -> tuple[int, ...]:
        return self.subscription.trees

    def skip_to(self, position: int) -> None:
        self.cursor = position

    def send_batch(self, batch: Batch, upto: int, _since: float, _retries: Iterable[Change]) -> None:
        assert self.outstanding is None
        self.outstanding, began = batch, self._rhythm.now
        cpu = self.cpu + self.cpu_for_name * batch.count
        self._rhythm.at(began + self.seconds, lambda: self._confirm(batch, began, upto, cpu))

    def _confirm(self, batch: Batch, began: float, upto: int, cpu: float) -> None:
        self.outstanding, self.cursor = None, upto
        self.cost = Cost(cpu, began, self._rhythm.now)
        self.batches.append((began, self._rhythm.now, upto))
        self.sizes.append(batch.count)
        self._rhythm.dispatch.finish_batch(cast(Node, self), batch, self.cost)
        self._rhythm.dispatch.offer_batch(cast(Node, self))


@dataclass
class Rhythm:
    """The master's part of the way of a change, by a clock that is set."""

    now: float = 1000.0
    delay: float = DELAY
    nodes: dict[str, PlayedNode] = field(default_factory=dict)
    changes: list[tuple[float, int]] = field(default_factory=list)
    """When each was made, and its position in the journal."""

    def __post_init__(self) -> None:
        self.journal, self.loop = Journal(), Loop(lambda: self.now)
        self.pace = Pace(PROCESSORS, self.delay)
        guard = SimpleNamespace(
            halted={},
            generation=0,
            check=lambda _: True,
            source=lambda *_: None,
            allowance=lambda *_: None,
        )
        nodes = cast(dict[str, Node], self.nodes)
        self.dispatch = Dispatcher(
            nodes, self.journal, "/nonexistent", self.pace, self.loop, cast(Any, guard)
        )
        self.dispatch.set_slots(4)
        watcher = SimpleNamespace(is_walking=False)
        debounce = Debounce(QUIET, self.delay)
        self.pacing = Pacing(self.journal, self.dispatch, cast(Any, watcher), debounce, self.loop.clock)
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()

    def add(self, count: int, seconds: float = 0.02, cpu: float = 0.01, cpu_for_name: float = 0.0) -> None:
        """Add nodes that need so long for a batch, and processor time for it and for each name in it."""
        for number in range(len(self.nodes), len(self.nodes) + count):
            name = f"n{number}"
            self.nodes[name] = PlayedNode(self, name, seconds, cpu, cpu_for_name)

    def at(self, when: float, call: Callable[[], object]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), call))

    def change_every(self, every: float, seconds: float, names: int = 1_000_000_000) -> None:
        """From now on change one of so many files again and again."""
        for number in range(round(seconds / every)):
            self.at(self.now + number * every, lambda name=f"{number % names}": self._change(name))  # type: ignore[misc]

    def burst(self, count: int) -> None:
        """Change many files now."""
        for number in range(count):
            self._change(f"burst {number}")

    def _change(self, name: str) -> None:
        self.journal.record(Change(1, name.encode(), Kind.NAME), self.now)
        self.changes.append((self.now, self.journal.head))

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        end = self.now + seconds
        while True:
            self.pacing.release_if_due()
            due = min(self.pacing.due, self.loop.next_timer, self._events[0][0] if self._events else math.inf)
            if due > end:
                break
            self.now = max(self.now, due)
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()
            self.loop.turn(0)
            self.journal.drop_confirmed(min(node.cursor for node in self.nodes.values()))
        self.now = end

    def waits(self, name: str = "n0") -> list[float]:
        """Return how long each change took until a node had confirmed it."""
        batches, number, found = self.nodes[name].batches, 0, []
        for at, position in self.changes:
            while number < len(batches) and batches[number][2] < position:
                number += 1
            found.append(batches[number][1] - at if number < len(batches) else math.inf)
        return found

    def cpu(self, since: float, until: float) -> float:
        """Return the processor time of all batches in an interval, per second."""
        nodes = self.nodes.values()
        used = sum(node.cpu for node in nodes for _, ended, _ in node.batches if since < ended <= until)
        return used / (until - since)


ISOLATED = QUIET + 0.02
"""How long one change takes to arrive, all alone."""


@pytest.mark.parametrize("every", [0.05, 0.3, 1.0, 5.0, 30.0])
def test_trickle_arrives_as_if_each_change_were_alone(every: float) -> None:
    rhythm = Rhythm()
    rhythm.add(3)
    rhythm.change_every(every, 600 * every)
    rhythm.run(601 * every)
    for name in rhythm.nodes:
        assert max(rhythm.waits(name)) == pytest.approx(ISOLATED)


def test_burst_goes_in_one_batch_and_leaves_no_pause() -> None:
    rhythm = Rhythm()
    rhythm.add(10, cpu=0.02)
    rhythm.burst(900)
    rhythm.run(1)
    assert [node.sizes for node in rhythm.nodes.values()] == [[900]] * 10
    rhythm.burst(1)
    rhythm.run(1)
    assert rhythm.waits()[-1] == pytest.approx(ISOLATED)


def test_burst_that_lasts_goes_in_batches_as_fast_as_the_node_takes_them() -> None:
    rhythm = Rhythm()
    rhythm.add(1, seconds=0.2)
    rhythm.change_every(0.001, 2.0)
    rhythm.run(3)
    batches = rhythm.nodes["n0"].batches
    # While one is on its way the next one gathers, and goes when it is confirmed: nothing else is waited for.
    assert all(later[0] == pytest.approx(earlier[1]) for earlier, later in itertools.pairwise(batches))
    assert max(rhythm.waits()) <= 2 * 0.2 + 0.06


def test_trickle_after_a_flood_arrives_as_if_nothing_had_been() -> None:
    rhythm = Rhythm()
    rhythm.add(50, seconds=0.1, cpu=0.02)
    rhythm.change_every(0.005, 60)
    rhythm.run(60)
    assert rhythm.pace.load(rhythm.now) > 1
    rhythm.run(2.0)
    rhythm.changes.clear()
    rhythm.change_every(3.0, 60)
    rhythm.run(62)
    for name in rhythm.nodes:
        assert max(rhythm.waits(name)) == pytest.approx(QUIET + 0.1)


@pytest.mark.slow
def test_flood_to_many_nodes_takes_its_share_of_the_processors() -> None:
    rhythm = Rhythm()
    rhythm.add(50, seconds=0.1, cpu=0.02)
    rhythm.change_every(0.005, 120)
    rhythm.run(120)
    assert 0.9 * ALLOWED <= rhythm.cpu(rhythm.now - 100, rhythm.now) <= 1.25 * ALLOWED
    # What 50 batches of 20 ms cost is paid in a second, and that is how long a change waits at most.
    fair = 50 * 0.02 / ALLOWED
    for name in rhythm.nodes:
        waits = rhythm.waits(name)[:-1000]
        assert max(waits) <= 1.5 * fair
        assert median(waits) <= fair
    counts = {len(node.batches) for node in rhythm.nodes.values()}
    assert max(counts) - min(counts) <= 2


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [2, 10, 200])
def test_flood_takes_the_same_share_with_any_number_of_nodes(nodes: int) -> None:
    rhythm = Rhythm()
    rhythm.add(nodes, seconds=0.03, cpu=0.05)
    rhythm.change_every(0.02, 60)
    rhythm.run(60)
    assert rhythm.cpu(rhythm.now - 40, rhythm.now) == pytest.approx(ALLOWED, rel=0.25)


def test_flood_is_cut_once_for_nodes_that_go_together() -> None:
    rhythm = Rhythm()
    rhythm.add(50, seconds=0.1, cpu=0.02)
    for number, node in enumerate(rhythm.nodes.values()):
        node.seconds *= 1 + number / 50  # they finish at different times
        node.cpu *= 1 + number % 5 / 20
    rhythm.change_every(0.005, 60)
    rhythm.run(60)
    sent = sum(len(node.batches) for node in rhythm.nodes.values())
    cuts = {
        (before[2], after[2])
        for node in rhythm.nodes.values()
        for before, after in itertools.pairwise(node.batches)
    }
    assert len(cuts) <= sent / 5


@pytest.mark.slow
def test_longest_delay_is_only_reached_under_overload() -> None:
    rhythm = Rhythm()
    rhythm.add(20, seconds=0.1, cpu=0.02)
    rhythm.change_every(0.006, 60)  # 167 a second
    rhythm.run(70)
    assert max(max(rhythm.waits(name)) for name in rhythm.nodes) < DELAY / 10
    overloaded = Rhythm()
    overloaded.add(500, seconds=0.1, cpu=0.1)
    overloaded.change_every(0.1, 60)
    overloaded.run(90)
    longest = max(max(overloaded.waits(name)) for name in overloaded.nodes)
    assert DELAY <= longest <= DELAY + 0.5


def test_slow_node_does_not_slow_the_others() -> None:
    def waits(slow: bool) -> list[list[float]]:
        rhythm = Rhythm()
        rhythm.add(49)
        if slow:
            rhythm.add(1, seconds=30.0, cpu=0.5)  # 3 MB at 100 KB/s
        rhythm.change_every(0.7, 300)
        rhythm.run(400)
        return [rhythm.waits(f"n{number}") for number in range(49)]

    assert waits(slow=True) == waits(slow=False)


def test_slow_node_gets_all_that_has_gathered_with_its_next_batch() -> None:
    rhythm = Rhythm()
    rhythm.add(1, seconds=5.0)
    rhythm.add(2)
    rhythm.change_every(0.3, 60)
    rhythm.run(75)
    batches = rhythm.nodes["n0"].batches
    assert all(later[0] == pytest.approx(earlier[1]) for earlier, later in itertools.pairwise(batches))
    assert max(rhythm.waits("n0")) <= 2 * 5.0 + 0.1
    assert sum(rhythm.nodes["n0"].sizes) == 200
    for name in ("n1", "n2"):
        assert max(rhythm.waits(name)) == pytest.approx(ISOLATED)


def test_dear_node_does_not_hold_up_cheap_ones() -> None:
    rhythm = Rhythm()
    rhythm.add(1, seconds=1.0, cpu=2.0)
    rhythm.add(9, seconds=0.02, cpu=0.002)
    rhythm.change_every(0.1, 120)
    rhythm.run(130)
    # It takes all processors when it may, and pauses for what it has taken.
    assert 45 <= len(rhythm.nodes["n0"].batches) <= 60
    for number in range(1, 10):
        assert max(rhythm.waits(f"n{number}")) <= ISOLATED + 0.05


@pytest.mark.slow
def test_writes_each_10_ms_keep_all_level_and_leave_nothing() -> None:
    """For 15 minutes; the longest time that anything here remembers is ``DELAY``, 10 s."""
    rhythm = Rhythm()
    rhythm.add(3, seconds=0.05)
    rhythm.nodes["n2"].subscription = ELSEWHERE
    rhythm.change_every(0.01, 900, names=50)
    rhythm.run(901)
    for name in ("n0", "n1"):
        assert max(rhythm.waits(name)) <= 0.05 + QUIET * 5 + 0.05 + 0.1
        assert len(rhythm.nodes[name].batches) > 900
    idle = rhythm.nodes["n2"]
    assert (idle.batches, idle.cursor) == ([], rhythm.journal.head)
    assert len(rhythm.journal) == 0
    assert rhythm.loop.next_timer == math.inf
    assert rhythm.pacing.due == math.inf


@pytest.mark.parametrize("seconds", [1.0, 3600.0, 1e7])
def test_stopped_master_goes_on_where_it_was(seconds: float) -> None:
    rhythm = Rhythm()
    rhythm.add(50, seconds=0.1, cpu=0.02)
    rhythm.change_every(0.005, 30)
    rhythm.run(30)
    rhythm.now += seconds  # SIGSTOP, and SIGCONT later
    rhythm.burst(10)
    rhythm.run(10)
    assert all(node.cursor == rhythm.journal.head for node in rhythm.nodes.values())
    rhythm.changes.clear()
    rhythm.burst(1)
    rhythm.run(1)
    assert max(rhythm.waits(name)[0] for name in rhythm.nodes) == pytest.approx(QUIET + 0.1)


def test_flush_lifts_the_pauses_of_a_flood() -> None:
    rhythm = Rhythm(delay=3600.0)
    rhythm.add(50, seconds=0.1, cpu=1.0)
    rhythm.change_every(0.05, 20)
    rhythm.run(20)
    position = rhythm.journal.head
    behind = [node for node in rhythm.nodes.values() if node.outstanding is None]
    assert behind
    rhythm.pacing.release()
    assert all(node.outstanding is not None for node in behind)
    rhythm.run(0.2)
    assert all(node.cursor >= position for node in behind)


def test_paused_node_waits_for_nothing_and_gets_all_when_it_goes_on() -> None:
    rhythm = Rhythm()
    rhythm.add(2)
    rhythm.nodes["n0"].paused = True
    rhythm.change_every(0.1, 10)
    rhythm.run(11)
    assert rhythm.nodes["n0"].batches == []
    rhythm.nodes["n0"].paused = False
    rhythm.dispatch.offer_batch(cast(Node, rhythm.nodes["n0"]))
    rhythm.run(1)
    assert rhythm.nodes["n0"].sizes == [100]
