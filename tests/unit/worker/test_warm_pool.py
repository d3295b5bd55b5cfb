"""The warm rsyncs of one worker: when they are started, used, given up and told of. Time is played."""

from __future__ import annotations

import heapq
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inosync.rsync.transfer import Transfer
from inosync.system import process
from inosync.system.loop import Loop
from inosync.worker.warm import POLL_SECONDS, SLOW_SECONDS
from inosync.worker.warm_moves import MAX_EARLY_CLOSES, YOUNG_SECONDS
from inosync.worker.warm_pool import (
    CONNECT_SECONDS,
    LULL_SECONDS,
    MAX_AGE_SECONDS,
    SUSPEND_SECONDS,
    Limits,
    Owner,
    WarmPool,
)

RETRY = (1.0, 300.0)
TIMEOUT = 300.0
NEVER = math.inf
AT_ONCE = 3
"""Turns that may follow each other without any time between: what was just started is looked at."""


class FarEnd:
    """In place of ``Peers``."""

    def __init__(self) -> None:
        self.ended = False
        self.closed = False
        self.error = ""
        """Why it broke, if it was not just closed."""

    def close(self) -> None:
        self.closed = True


class FakeTransfer:
    """An rsync that does what the test says."""

    def __init__(self, world: World, pid: int, tree: int) -> None:
        self._world = world
        self.pid, self.tree = pid, tree
        self.code: int | None = None
        self.stderr: list[bytes] = []
        self.abort_reason = ""
        self.is_connected = self.knocked = self.stopped = self.is_watched = False
        self.far = FarEnd()
        self.blind = False
        """Whether its connections cannot be seen."""
        self.directory_status = world.root
        self.lingers = 0.0
        """Seconds that it takes to end after it was told to."""

    @property
    def done(self) -> bool:
        return self.code is not None

    def send_empty_name(self) -> None:
        self.knocked = True

    def watch_output(self) -> None:
        self.is_watched = True

    def peers(self) -> FarEnd:
        assert self.is_connected
        if self.blind:
            raise PermissionError(1, "Operation not permitted")
        return self.far

    def terminate(self) -> None:
        if not self.stopped and not self.done:
            self.stopped = True
            if self.lingers:
                self._world.after(self.lingers, lambda: self.fail(-9))
            else:
                self.code = 20

    # What the test says

    def fail(self, code: int, line: bytes = b"") -> None:
        if not self.done:
            self.code, self.stderr = code, [line] if line else []

    def connect(self) -> None:
        self.is_connected = not self.done

    def hang_up(self, error: str = "") -> None:
        """The far end closes the connection, or does not answer any more, with that error."""
        self.far.ended, self.far.error = True, error
        self._world.fire(self.far)


@dataclass
class World(Owner):
    """The worker, its loop and its clock; what happens in it goes in the order of time."""

    trees: tuple[int, ...] = (1,)
    rand: float = 0.0
    root: os.stat_result = field(default_factory=lambda: os.stat("/"))
    timeout: float = TIMEOUT
    most: int = 100
    now: float = 1_000.0
    refuses: OSError | None = None
    """Why nothing can be started, if so."""
    reports: list[tuple[Any, ...]] = field(default_factory=list)
    started: list[FakeTransfer] = field(default_factory=list)
    behave: Callable[[FakeTransfer], None] = lambda _transfer: None
    refused: bytes = b""
    """A line of an rsync's, if so, for which the next ones are called in another way."""

    def __post_init__(self) -> None:
        self._calls: dict[object, Callable[[], object]] = {}
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count(100)
        self.steps = 0
        self.sources = dict.fromkeys(self.trees, "/")
        self.pool = WarmPool(
            self.sources,
            Limits(self.most, RETRY, self.timeout),
            self,
            cast(Loop, self),
            lambda: self.rand,
        )

    def start_warm(self, tree: int) -> Transfer:
        if self.refuses is not None:
            raise self.refuses
        transfer = FakeTransfer(self, next(self._numbers), tree)
        self.started.append(transfer)
        self.behave(transfer)
        return cast(Transfer, transfer)

    # The loop

    def clock(self) -> float:
        return self.now

    def on_readable(self, source: object, call: Callable[[], object]) -> None:
        assert source not in self._calls
        self._calls[source] = call

    def drop(self, source: object) -> None:
        self._calls.pop(source, None)

    def fire(self, source: object) -> None:
        call = self._calls.get(source)
        if call is not None:
            call()

    @property
    def listens(self) -> bool:
        return bool(self._calls)

    # The owner

    def node_reached(self) -> None:
        self.reports.append(("reached",))

    def node_unchecked(self) -> None:
        self.reports.append(("unwatched",))

    def node_unreachable(self, attempt: int, code: int, reason: str, pause: float) -> None:
        self.reports.append(("unreached", attempt, code, reason, pause))

    def warm_suspended(self, reason: str, pause: float, is_new: bool) -> None:
        self.reports.append(("suspended", reason, pause, is_new))

    def adapt(self, lines: Sequence[bytes]) -> bool:
        if self.refused not in lines:
            return False
        self.refused = b"nothing any more"
        return True

    def news(self) -> list[tuple[Any, ...]]:
        """What was told since the last time."""
        reports, self.reports = self.reports, []
        return reports

    # Time

    def after(self, seconds: float, call: Callable[[], object]) -> None:
        heapq.heappush(self._due, (self.now + seconds, next(self._numbers), call))

    def wait(self, seconds: float) -> None:
        """Let time pass as the worker's loop does: it sleeps until something is due, and looks."""
        end = self.now + seconds
        self.tend()  # what the test did woke the loop
        while True:
            happens = self._due[0][0] if self._due else NEVER
            next_time = min(happens, self.pool.deadline)
            if next_time > end:
                break
            self.now = max(self.now, next_time)
            while self._due and self._due[0][0] <= self.now:
                heapq.heappop(self._due)[2]()
            self.tend()
        self.now = end
        self.tend()

    def wait_for_start(self, tree: int = 1) -> float:
        """Let time pass until there is one for this tree again; how long that took."""
        before = self.now
        while not any(transfer.tree == tree for transfer in self.running):
            assert self.pool.deadline < before + 10 * SUSPEND_SECONDS[1], "none will ever be started"
            self.wait(self.pool.deadline - self.now)
        return self.now - before

    def tend(self) -> None:
        for _ in range(AT_ONCE):
            self.pool.check()
            self.steps += 1
            if self.pool.deadline > self.now:
                return
        raise AssertionError("it looks again at once, and again")

    @property
    def running(self) -> list[FakeTransfer]:
        return [transfer for transfer in self.started if not transfer.done and not transfer.stopped]

    @property
    def last(self) -> FakeTransfer:
        return self.started[-1]


def rested(trees: tuple[int, ...] = (1,), rand: float = 0.0, connected: bool = True) -> World:
    """A worker that has had nothing to do for longer than the lull; by default its rsyncs are ready."""
    world = World(trees, rand)
    world.pool.idle(LULL_SECONDS)
    world.wait(LULL_SECONDS)
    assert [transfer.tree for transfer in world.started] == list(trees)
    if connected:
        for transfer in world.started:
            transfer.connect()
        world.wait(1)
        assert world.news() == [("reached",)] * len(trees)
    return world


# When they are started -----------------------------------------------------------------------------------


def test_none_is_started_before_the_worker_rests() -> None:
    world = World()
    assert world.pool.deadline == NEVER
    world.wait(10_000)
    assert world.started == []


def test_warm_rsync_for_each_tree_is_started_after_a_lull() -> None:
    world = World((7, 8, 9))
    world.pool.idle(LULL_SECONDS)
    assert world.pool.deadline == world.now + LULL_SECONDS
    world.wait(LULL_SECONDS * 0.99)
    assert world.started == []
    world.wait(LULL_SECONDS * 0.02)
    assert [transfer.tree for transfer in world.started] == [7, 8, 9]
    assert all(transfer.knocked for transfer in world.started)
    world.wait(10)
    assert len(world.started) == 3


@pytest.mark.parametrize("lull", [0.0, 0.5, 3.0])
def test_lull_is_as_long_as_asked_for(lull: float) -> None:
    world = World()
    world.pool.idle(lull)
    assert world.pool.deadline == world.now + lull


def test_warm_pool_without_trees_does_nothing() -> None:
    world = World(())
    world.pool.idle(LULL_SECONDS)
    assert world.pool.deadline == NEVER
    world.wait(10_000)
    assert (world.started, world.reports) == ([], [])


def test_none_is_started_while_there_is_work() -> None:
    world = World()
    world.pool.idle(LULL_SECONDS)
    world.pool.busy()
    assert world.pool.deadline == NEVER
    world.wait(100)
    assert world.started == []
    world.pool.idle(LULL_SECONDS)
    world.wait(LULL_SECONDS)
    assert len(world.started) == 1


def test_those_of_other_trees_stay_while_there_is_work_for_one() -> None:
    world = rested((1, 2))
    world.pool.busy()
    assert world.pool.take(1) is cast(Transfer, world.started[0])
    world.wait(100)
    assert world.running == world.started
    world.pool.idle(LULL_SECONDS)
    world.wait(LULL_SECONDS)
    assert [transfer.tree for transfer in world.started] == [1, 2, 1]


def test_its_processes_are_known_until_they_have_ended() -> None:
    world = rested((1, 2))
    pids = [transfer.pid for transfer in world.started]
    assert world.pool.pids == pids
    world.pool.take(1)
    assert world.pool.pids == pids[1:]  # the other one is the worker's now
    world.started[1].lingers = 2.0
    world.pool.busy()
    world.pool.end_all()
    assert world.pool.pids == pids[1:]
    world.wait(1)
    assert world.pool.pids == pids[1:]
    world.wait(1.1)
    assert world.pool.pids == []
    assert world.pool.deadline == NEVER


# Which trees have one ------------------------------------------------------------------------------------


def use(world: World, *trees: int) -> list[bool]:
    """Have a batch for these trees, then nothing to do; return which of them had an rsync that was ready."""
    world.pool.busy()
    found = [world.pool.take(tree) is not None for tree in trees]
    world.pool.idle(LULL_SECONDS)
    world.wait(LULL_SECONDS)
    for transfer in world.running:
        transfer.connect()
    world.wait(1)
    return found


def kept(world: World) -> list[int]:
    pids = world.pool.pids
    return sorted(transfer.tree for transfer in world.running if transfer.pid in pids)


def test_no_more_rsyncs_are_kept_than_the_bound() -> None:
    world = World(tuple(range(40)), most=4)
    world.pool.idle(LULL_SECONDS)
    world.wait(100)
    assert kept(world) == [0, 1, 2, 3]


def test_quiet_tree_starts_cold_and_is_warm_from_then_on() -> None:
    world = World(tuple(range(40)), most=2)
    world.pool.idle(LULL_SECONDS)
    world.wait(1)
    assert use(world, 30) == [False]
    assert kept(world) == [0, 30]
    assert use(world, 30) == [True]
    assert use(world, 30) == [True]
    assert use(world, 7) == [False]
    assert kept(world) == [7, 30]
    assert use(world, 30) == [True]
    assert use(world, 8) == [False]
    assert kept(world) == [8, 30], "7 was used longest ago"


def test_batch_of_many_trees_keeps_the_last_of_them() -> None:
    world = World(tuple(range(10)), most=3)
    world.pool.idle(LULL_SECONDS)
    world.wait(1)
    use(world, *range(10))
    assert kept(world) == [7, 8, 9]


def test_tree_that_is_gone_makes_room_for_another(tmp_path: Path) -> None:
    world = World((1, 2, 3), most=1)
    world.pool.idle(LULL_SECONDS)
    world.wait(1)
    world.sources[1] = str(tmp_path / "gone")
    use(world, 1)
    assert kept(world) == [2]


def test_one_rsync_is_the_heartbeat_of_a_node_with_many_trees() -> None:
    world = World(tuple(range(200)), most=1)
    world.pool.idle(LULL_SECONDS)
    world.wait(LULL_SECONDS)
    world.last.connect()
    world.wait(1)
    assert world.news() == [("reached",)]
    world.last.hang_up("Connection timed out")
    world.tend()
    assert world.news() == [("unreached", 1, 0, "Connection timed out", 1.0)]
    world.behave = lambda transfer: transfer.connect()
    world.wait(2)
    assert world.news() == [("reached",)]
    assert len(kept(world)) == 1


def test_bound_of_none_keeps_none_and_watches_nothing() -> None:
    world = World((1, 2), most=0)
    assert use(world, 1, 2) == [False, False]
    world.wait(10_000)
    assert (world.started, world.reports, world.pool.deadline) == ([], [], NEVER)


@settings(max_examples=100)
@given(
    uses=st.lists(st.lists(st.integers(0, 5), max_size=3), max_size=20),
    most=st.integers(0, 7),
)
def test_those_that_are_kept_are_those_that_were_used_last(uses: list[list[int]], most: int) -> None:
    world = World(tuple(range(6)), most=most)
    world.pool.idle(LULL_SECONDS)
    world.wait(1)
    for trees in uses:
        use(world, *trees)
        assert len(kept(world)) == min(most, 6)
    used = list(dict.fromkeys(reversed([tree for trees in uses for tree in trees])))
    assert kept(world) == sorted([*used, *(tree for tree in range(6) if tree not in used)][:most])


# When one is taken ---------------------------------------------------------------------------------------


def test_warm_pool_without_warm_rsync_gives_none() -> None:
    world = rested()
    assert world.pool.take(2) is None
    assert world.running == world.started


def test_warm_rsync_that_is_connected_is_taken_once() -> None:
    world = rested()
    taken = world.pool.take(1)
    assert taken is cast(Transfer, world.last)
    assert (taken.is_connected, world.last.stopped) == (True, False)
    assert world.last.far.closed
    assert not world.listens
    assert world.pool.take(1) is None


def test_rsync_refused_for_its_options_is_replaced_without_an_outage() -> None:
    world = rested(trees=(1, 2), connected=False)
    world.refused = b"I do not know that"
    first = list(world.started)
    for transfer in first:
        transfer.fail(12, world.refused)
    world.wait(1)
    assert [transfer.tree for transfer in world.started[len(first) :]] == [1, 2]
    assert world.news() == []
    # But it is no way to begin again and again.
    world.started[-1].fail(12, b"I do not know that")
    world.wait(0.5)
    assert [what[0] for what in world.news()] == ["unreached"]


def test_warm_rsync_that_still_connects_is_taken_cold() -> None:
    world = rested(connected=False)
    world.wait(0.1)
    taken = world.pool.take(1)
    assert taken is cast(Transfer, world.last)
    assert not taken.is_connected


def test_warm_rsync_that_has_just_connected_is_taken() -> None:
    world = rested(connected=False)
    world.wait(10)
    world.last.connect()
    world.now = world.pool.deadline
    taken = world.pool.take(1)
    assert taken is not None
    assert taken.is_connected
    assert world.last.far.closed


@pytest.mark.parametrize("noticed", [True, False], ids=["noticed", "not noticed yet"])
def test_warm_rsync_whose_far_end_has_gone_is_not_taken(noticed: bool) -> None:
    world = rested()
    world.last.far.ended = True
    if noticed:
        world.last.hang_up()
    assert world.pool.take(1) is None
    assert world.last.stopped
    assert world.last.far.closed
    assert not world.listens


def test_warm_rsync_that_has_ended_is_not_taken() -> None:
    world = rested()
    world.last.fail(12)
    assert world.pool.take(1) is None
    assert world.last.far.closed
    world.tend()


def test_warm_rsync_of_a_replaced_source_is_not_taken(tmp_path: Path) -> None:
    world = rested()
    source = tmp_path / "source"
    source.mkdir()
    world.sources[1], world.last.directory_status = str(source), source.stat()
    source.rename(tmp_path / "moved")
    source.mkdir()
    assert world.pool.take(1) is None
    assert world.last.stopped


def test_rsync_of_a_missing_source_is_not_taken_and_not_replaced(
    tmp_path: Path,
) -> None:
    world = rested()
    world.sources[1] = str(tmp_path / "source")
    assert world.pool.take(1) is None
    assert world.last.stopped
    world.wait(1_000)
    assert len(world.started) == 1
    assert world.pool.deadline == NEVER
    (tmp_path / "source").mkdir()
    world.wait(1)
    assert len(world.started) == 2


def test_source_that_is_gone_is_no_fault_of_the_node(tmp_path: Path) -> None:
    world = rested((1, 2), connected=False)
    world.sources[1] = str(tmp_path / "gone")
    world.started[0].fail(23, b"rsync: change_dir failed")
    world.started[1].connect()
    world.wait(1_000)
    assert world.news() == [("reached",)]
    assert world.running == world.started[1:]


def test_unreachable_node_whose_last_source_goes_does_not_wait_for_ever(tmp_path: Path) -> None:
    # While it is out of reach the master sends it nothing, so that nobody else would ever try again.
    source = tmp_path / "source"
    source.mkdir()
    world = World()
    world.sources[1] = str(source)
    world.behave = lambda transfer: world.after(0.1, lambda: transfer.fail(10, b"no"))
    world.pool.idle(LULL_SECONDS)
    world.wait(2)
    assert [entry[0] for entry in world.news()] == ["unreached", "unreached"]
    source.rmdir()
    world.wait(1_000)
    reports = world.news()
    assert world.pool.deadline < NEVER or reports == [("unwatched",)], "nobody looks any more"
    source.mkdir()
    world.pool.idle(LULL_SECONDS)
    world.wait(2)
    assert [entry[:2] for entry in world.news()] == [("unreached", 1), ("unreached", 2)]


def test_node_in_reach_is_not_reported_when_its_last_source_goes(tmp_path: Path) -> None:
    world = rested()
    world.sources[1] = str(tmp_path / "gone")
    world.pool.busy()
    assert world.pool.take(1) is None
    world.pool.idle(LULL_SECONDS)
    world.wait(1_000)
    assert world.news() == []


def test_warm_rsync_of_the_present_source_is_taken(tmp_path: Path) -> None:
    world = rested()
    world.sources[1], world.last.directory_status = str(tmp_path), tmp_path.stat()
    assert world.pool.take(1) is cast(Transfer, world.last)


# Whether it is connected ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.02, 0.3, SLOW_SECONDS - 1])
def test_connection_is_noticed_soon_and_reported_once(seconds: float) -> None:
    world = rested(connected=False)
    assert not world.pool.has_connected
    world.wait(seconds)
    assert world.news() == []
    world.last.connect()
    world.wait(max(0.25, seconds))
    assert world.pool.has_connected
    assert world.news() == [("reached",)]
    assert world.listens
    before = world.steps
    world.wait(MAX_AGE_SECONDS / 2)
    assert world.steps - before <= 2, "there is nothing to look at any more"


def test_connection_checks_cost_little() -> None:
    world = rested(connected=False)
    before = world.steps
    world.wait(CONNECT_SECONDS - 0.1)
    assert world.steps - before < CONNECT_SECONDS / 0.25 + 20


def test_node_that_does_not_answer_in_time_is_not_reached() -> None:
    world = rested((1, 2), connected=False)
    world.wait(SLOW_SECONDS - LULL_SECONDS)
    assert world.news() == []
    world.wait(0.5)
    # That something is wrong is told early, and once.
    assert world.news() == [
        ("unreached", 1, 0, "no answer for 5 s", pytest.approx(CONNECT_SECONDS - SLOW_SECONDS, abs=0.5))
    ]
    world.wait(CONNECT_SECONDS - SLOW_SECONDS - 0.5)
    assert (world.news(), world.running) == ([], world.started)
    world.wait(0.5)
    assert world.news() == [("unreached", 1, 0, "no answer for 30 s", 1.0)]
    assert [transfer.stopped for transfer in world.started[:2]] == [True, True]


def test_node_that_answers_late_is_reached() -> None:
    world = rested((1, 2), connected=False)
    world.wait(SLOW_SECONDS + 1)
    for transfer in world.started:
        transfer.connect()
    world.wait(1)
    assert [entry[0] for entry in world.news()] == ["unreached", "reached", "reached"]
    assert world.running == world.started[:2]
    # The next time that is news again.
    for transfer in world.started[:]:
        transfer.hang_up()
    world.wait(SLOW_SECONDS + 1)
    assert [entry[0] for entry in world.news()] == ["unreached"]


def test_late_answer_beside_a_kept_connection_is_not_reported() -> None:
    world = rested((1, 2), connected=False)
    world.started[0].connect()
    world.wait(CONNECT_SECONDS - 1)
    assert world.news() == [("reached",)]


def test_late_answer_during_a_batch_is_reported_after_it() -> None:
    world = rested(connected=False)
    world.pool.busy()
    world.wait(SLOW_SECONDS + 1)
    assert world.news() == []
    world.pool.idle(LULL_SECONDS)
    world.wait(1)
    assert [entry[:4] for entry in world.news()] == [("unreached", 1, 0, "no answer for 5 s")]


def test_late_answer_after_a_batch_is_reported_again() -> None:
    world = rested(connected=False)
    world.wait(SLOW_SECONDS + 1)
    assert [entry[0] for entry in world.news()] == ["unreached"]
    world.pool.busy()
    world.pool.end_all()
    world.pool.idle(LULL_SECONDS)
    world.wait(SLOW_SECONDS + 1)
    assert [entry[0] for entry in world.news()] == ["unreached"]


def test_connection_that_breaks_is_a_failure_at_once_at_any_age() -> None:
    for life in (1.0, 2 * YOUNG_SECONDS):
        world = rested((1, 2))
        world.wait(life)
        world.started[0].hang_up("Connection timed out")
        world.tend()
        assert world.news() == [("unreached", 1, 0, "Connection timed out", 1.0)]
        assert world.running == []


def test_connection_that_breaks_during_a_batch_is_not_reported() -> None:
    world = rested((1, 2))
    world.pool.busy()
    world.started[0].hang_up("Connection timed out")
    world.wait(100)
    assert world.news() == []
    assert world.started[0] not in world.running


def test_nobody_has_longer_to_answer_than_a_transfer_has_for_no_progress() -> None:
    world = World(timeout=5.0)
    world.pool.idle(LULL_SECONDS)
    world.wait(4.9)
    assert world.news() == []
    world.wait(0.5)
    assert world.news() == [("unreached", 1, 0, "no answer for 5 s", 1.0)]


@pytest.mark.parametrize("cut_off", [True, False])
def test_far_end_is_checked_where_the_kernel_does_not_report_it(
    monkeypatch: pytest.MonkeyPatch, cut_off: bool
) -> None:
    looks: list[int] = []

    def is_cut_off(pid: int) -> bool:
        looks.append(pid)
        return cut_off

    monkeypatch.setattr(process, "is_cut_off", is_cut_off)
    world = rested(connected=False)
    world.last.blind = True
    world.last.connect()
    world.wait(0.25)
    assert (world.news(), world.listens, looks) == ([("reached",)], False, [])
    world.wait(POLL_SECONDS)
    assert looks == [world.started[0].pid]
    assert world.started[0].stopped is cut_off
    if not cut_off:
        world.wait(10 * POLL_SECONDS)
        assert len(looks) == pytest.approx(11, abs=1)


def test_check_that_takes_long_is_made_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    world = rested(connected=False)
    looks: list[float] = []

    def is_cut_off(_pid: int) -> bool:
        world.now += 0.5
        looks.append(world.now)
        return False

    monkeypatch.setattr(process, "is_cut_off", is_cut_off)
    world.last.blind = True
    world.last.connect()
    world.wait(600)
    assert 5 <= len(looks) <= 600 * 0.01 / 0.5 + 1


# Out of reach --------------------------------------------------------------------------------------------


def test_unreachable_node_is_retried_with_backoff_and_reported_once() -> None:
    world = World((1, 2, 3))
    world.behave = lambda transfer: world.after(0.1, lambda: transfer.fail(10, b"rsync: no route"))
    world.pool.idle(LULL_SECONDS)
    world.wait(3_000)
    reports = world.news()
    assert [entry[:2] for entry in reports] == [("unreached", number + 1) for number in range(len(reports))]
    assert {entry[2:4] for entry in reports} == {(10, "no route")}
    assert [entry[4] for entry in reports] == [min(2.0**i, 300) for i in range(len(reports))]
    assert 14 < len(reports) < 20
    assert len(world.started) <= 3 * (len(reports) + 1)
    assert world.running == [] or len(world.running) == 3


def test_those_that_still_connect_end_with_the_one_that_could_not() -> None:
    world = rested((1, 2, 3), connected=False)
    world.started[1].fail(255)
    world.wait(0.5)
    assert [transfer.stopped for transfer in world.started] == [True, False, True]
    assert [entry[:3] for entry in world.news()] == [("unreached", 1, 255)]
    assert world.pool.pids == []


def test_outcome_of_an_exit_without_messages_has_a_reason() -> None:
    world = rested(connected=False)
    world.last.fail(255)
    world.wait(0.5)
    assert world.news() == [("unreached", 1, 255, "connection failed (exit 255)", 1.0)]


def test_pauses_differ_by_chance() -> None:
    world = rested(rand=0.5, connected=False)
    world.last.fail(255)
    world.wait(0.5)
    assert world.news()[0][4] == pytest.approx(1 - 0.5 / 4)


def test_node_reached_again_starts_from_the_first_pause() -> None:
    world = rested(connected=False)
    for _ in range(4):
        world.wait_for_start()
        world.last.fail(10, b"no")
        world.wait(0.5)
    assert [entry[1] for entry in world.news()] == [1, 2, 3, 4]
    world.wait_for_start()
    world.last.connect()
    world.wait(CONNECT_SECONDS)
    assert world.news() == [("reached",)]
    world.wait(YOUNG_SECONDS)
    world.last.hang_up()
    world.wait(0.1)
    world.last.fail(10, b"no")
    world.wait(0.5)
    assert [entry[1] for entry in world.news()] == [1]


def test_failures_are_counted_anew_after_a_batch() -> None:
    world = rested(connected=False)
    for _ in range(3):
        world.wait_for_start()
        world.last.fail(10)
        world.wait(0.5)
    world.pool.busy()
    world.pool.idle(LULL_SECONDS)
    assert world.wait_for_start() == pytest.approx(LULL_SECONDS)
    world.last.fail(10)
    world.wait(0.5)
    assert [entry[1] for entry in world.news()] == [1, 2, 3, 1]


def test_rsync_that_cannot_be_started_is_a_failure_like_another() -> None:
    world = World((1, 2))
    world.refuses = FileNotFoundError(2, "No such file or directory")
    world.pool.idle(LULL_SECONDS)
    world.wait(1)
    assert world.news() == [("unreached", 1, 0, "No such file or directory", 1.0)]
    world.wait(2)
    assert [entry[1] for entry in world.news()] == [2]
    world.refuses = None
    world.wait(10)
    assert [transfer.tree for transfer in world.started] == [1, 2]


def test_connect_failure_during_a_batch_is_not_reported() -> None:
    world = rested((1, 2), connected=False)
    world.pool.busy()
    for transfer in world.started:
        transfer.fail(10)
    world.wait(100)
    assert world.news() == []
    assert world.pool.pids == []
    world.pool.idle(LULL_SECONDS)
    world.wait(LULL_SECONDS)
    assert len(world.started) == 4


# Connections that are not liked --------------------------------------------------------------------------


def test_connection_that_ends_after_a_long_life_is_renewed_at_once() -> None:
    world = rested()
    for life in range(10):
        world.wait(YOUNG_SECONDS)
        world.last.hang_up()
        world.tend()
        assert len(world.started) == life + 2, "without a pause"
        world.last.connect()
        world.wait(1)
    assert {entry[0] for entry in world.news()} == {"reached"}


def die_young(world: World, times: int, life: float = YOUNG_SECONDS / 2) -> None:
    """The warm rsync connects and loses its connection, that many times; the next one is not waited for."""
    for _ in range(times):
        world.wait_for_start()
        world.last.connect()
        world.wait(life)
        world.last.hang_up()
        world.tend()


def test_connections_that_end_early_suspend_warm_rsyncs_with_one_report() -> None:
    world = rested(connected=False)
    die_young(world, MAX_EARLY_CLOSES - 1)
    assert {entry[0] for entry in world.news()} == {"reached"}
    die_young(world, 1)
    ((_, reason, pause, news),) = [entry for entry in world.news() if entry[0] == "suspended"]
    assert (pause, news) == (SUSPEND_SECONDS[0], True)
    assert reason.startswith("the node has closed the connection after ")
    assert world.running == []
    started = len(world.started)
    world.wait(SUSPEND_SECONDS[0] - 1)
    assert len(world.started) == started
    world.wait(2)
    assert len(world.started) == started + 1, "it is tried again later"


def test_first_early_close_is_replaced_at_once_the_second_after_a_pause() -> None:
    world = rested(connected=False)
    die_young(world, 1)
    assert world.pool.deadline == pytest.approx(world.now + LULL_SECONDS)
    world.wait(LULL_SECONDS)
    die_young(world, 1)
    assert world.pool.deadline == pytest.approx(world.now + 2 * RETRY[0])


def test_suspension_grows_to_its_longest_and_is_reported_once() -> None:
    world = rested(connected=False)
    pauses: list[float] = []
    for _ in range(8):
        die_young(world, MAX_EARLY_CLOSES)
        ((_, _, pause, news),) = [entry for entry in world.news() if entry[0] == "suspended"]
        assert news is not bool(pauses)
        pauses.append(pause)
        assert world.wait_for_start() == pytest.approx(pause)
    assert pauses == [min(SUSPEND_SECONDS[0] * 2**i, SUSPEND_SECONDS[1]) for i in range(8)]


def test_rest_does_not_shorten_a_chill_and_work_goes_on_in_it() -> None:
    world = rested(connected=False)
    die_young(world, MAX_EARLY_CLOSES)
    started, end = len(world.started), world.now + SUSPEND_SECONDS[0]
    for _ in range(5):
        world.pool.busy()
        assert world.pool.take(1) is None
        world.pool.idle(LULL_SECONDS)
        world.wait(10)
    assert len(world.started) == started
    world.wait(end - world.now)
    assert len(world.started) == started + 1


def after_a_chill(life: float) -> World:
    """A warm rsync that has lived so long after there were none for a while."""
    world = rested(connected=False)
    die_young(world, MAX_EARLY_CLOSES)
    world.wait_for_start()
    world.news()
    world.last.connect()
    world.wait(life)
    return world


def is_the_first_chill(world: World) -> bool:
    """Whether another chill is as if there had been none before."""
    die_young(world, MAX_EARLY_CLOSES)
    ((_, _, pause, news),) = [entry for entry in world.news() if entry[0] == "suspended"]
    assert (pause == SUSPEND_SECONDS[0]) is bool(news)
    return bool(news)


def test_long_life_that_ends_clears_early_closes() -> None:
    world = after_a_chill(2 * YOUNG_SECONDS)
    world.last.hang_up()
    world.tend()
    assert is_the_first_chill(world)


def test_life_until_the_renewal_age_clears_early_closes() -> None:
    world = after_a_chill(MAX_AGE_SECONDS + 1)
    assert world.running == [world.last]
    assert not world.last.is_connected
    assert is_the_first_chill(world)


def test_long_life_that_ends_in_use_clears_early_closes() -> None:
    # A node with a change every few minutes never has a warm rsync that ends in another way.
    world = after_a_chill(2 * YOUNG_SECONDS)
    world.pool.busy()
    assert world.pool.take(1) is not None
    world.last.fail(0)
    world.pool.idle(LULL_SECONDS)
    assert is_the_first_chill(world)


def test_short_life_after_a_suspension_suspends_again() -> None:
    world = after_a_chill(YOUNG_SECONDS / 2)
    world.last.hang_up()
    world.tend()
    assert not is_the_first_chill(world)


def test_young_connection_that_was_used_clears_one_early_close() -> None:
    world = rested(connected=False)
    for _ in range(4 * MAX_EARLY_CLOSES):
        die_young(world, MAX_EARLY_CLOSES - 1)
        world.wait_for_start()
        world.last.connect()
        world.wait(1)
        world.pool.busy()
        assert world.pool.take(1) is not None
        world.last.fail(0)
        world.pool.idle(LULL_SECONDS)
    assert {entry[0] for entry in world.news()} == {"reached"}


def test_connections_of_all_trees_cut_at_once_count_as_one() -> None:
    world = rested((1, 2, 3, 4, 5))
    world.wait(YOUNG_SECONDS / 2)
    for transfer in world.started[:]:
        transfer.hang_up()
    world.tend()
    world.wait(5)
    for transfer in world.running:
        transfer.connect()
    world.wait(1)
    assert {entry[0] for entry in world.news()} == {"reached"}
    assert sorted(transfer.tree for transfer in world.running) == [1, 2, 3, 4, 5]


def test_node_that_comes_and_goes_does_not_suspend_warm_rsyncs() -> None:
    world = rested(connected=False)
    for _ in range(3 * MAX_EARLY_CLOSES):
        die_young(world, 1)
        world.wait_for_start()
        world.last.fail(10, b"Connection refused")
        world.wait(0.5)
    assert {entry[0] for entry in world.news()} == {"reached", "unreached"}


def test_rsync_refused_beside_a_warm_one_means_no_free_connection() -> None:
    world = rested((1, 2), connected=False)
    first = world.started[0]
    first.connect()
    for _ in range(MAX_EARLY_CLOSES):
        world.wait_for_start(2)
        world.wait(0.5)
        assert first in world.running
        assert world.last.tree == 2
        world.last.fail(5, b"@ERROR: busy")
        world.tend()
    assert world.running == []
    assert first.stopped
    reports = [entry for entry in world.news() if entry[0] != "reached"]
    assert [(entry[0], entry[2], entry[3]) for entry in reports] == [("suspended", SUSPEND_SECONDS[0], True)]
    assert "busy" in reports[0][1]


def test_daemon_that_refuses_because_it_is_full_counts_as_reached() -> None:
    world = World()
    line = b"@ERROR: max connections (1) reached -- try again later"
    world.behave = lambda transfer: world.after(0.01, lambda: transfer.fail(5, line))
    world.pool.idle(LULL_SECONDS)
    world.wait(60)
    assert len(world.started) == MAX_EARLY_CLOSES
    ((kind, reason, pause, news),) = world.news()
    assert (kind, pause, news) == ("suspended", SUSPEND_SECONDS[0], True)
    assert "max connections (1) reached" in reason


def test_suspension_can_be_asked_for_by_the_worker() -> None:
    world = rested((1, 2))
    world.pool.busy()
    world.pool.suspend("no room")
    assert world.running == []
    assert world.news() == [("suspended", "no room", SUSPEND_SECONDS[0], True)]
    world.pool.idle(LULL_SECONDS)
    world.wait(SUSPEND_SECONDS[0] - 1)
    assert len(world.started) == 2
    world.wait(2)
    assert len(world.started) == 4


def test_suspension_ends_connecting_rsyncs_without_a_failure() -> None:
    world = rested((1, 2, 3), connected=False)
    world.pool.suspend("no room")
    world.wait(100)
    assert [entry[0] for entry in world.news()] == ["suspended"]


# Age -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rand", [0.0, 0.4, 0.999])
def test_warm_rsync_is_renewed_at_an_age_that_differs_by_chance(rand: float) -> None:
    world = rested(rand=rand)
    age = MAX_AGE_SECONDS * (1 + rand)
    world.wait(age - 2)
    assert world.running == world.started[:1]
    world.wait(2)
    assert len(world.started) == 2
    assert world.started[0].stopped
    assert world.started[0].far.closed
    world.last.connect()
    world.wait(1)
    assert world.news() == [("reached",)]


def test_old_rsync_ends_during_work_and_is_replaced_after_the_lull() -> None:
    world = rested()
    world.pool.busy()
    world.wait(MAX_AGE_SECONDS)
    assert (len(world.started), world.running) == (1, [])
    world.pool.idle(LULL_SECONDS)
    world.wait(LULL_SECONDS)
    assert len(world.running) == 1


def test_replacement_refused_beside_the_old_rsync_is_no_failure() -> None:
    world = rested()
    for _ in range(10):
        world.last.lingers = 0.03
        world.wait(MAX_AGE_SECONDS - (world.now % 1))
        until_two = [transfer for transfer in world.running if not transfer.is_connected]
        for transfer in until_two:
            transfer.fail(5, b"@ERROR: max connections (1) reached -- try again later")
        world.wait(1)
        world.last.connect()
        world.wait(1)
    assert {entry[0] for entry in world.news()} == {"reached"}


# Replaced because they are started otherwise by now --------------------------------------------------------


def test_restart_replaces_all_rsyncs_after_the_lull_without_a_report() -> None:
    world = rested((1, 2))
    before = world.running
    world.pool.renew(0.7)
    assert all(transfer.stopped and transfer.far.closed for transfer in before)
    assert (world.pool.has_connected, world.listens) == (False, False)
    world.wait(0.69)
    assert world.running == []
    world.wait(0.02)
    assert [transfer.tree for transfer in world.running] == [1, 2]
    for transfer in world.running:
        transfer.connect()
    world.wait(1)
    assert world.news() == [("reached",), ("reached",)]


def test_warm_rsync_being_renewed_is_not_taken_but_known_until_its_end() -> None:
    world = rested()
    world.last.lingers = 2.0
    world.pool.renew(1.0)
    assert world.pool.take(1) is None
    assert world.pool.pids == [world.last.pid]
    world.wait(3.0)
    assert world.pool.pids == [world.last.pid]
    assert len(world.started) == 2


def test_restart_during_work_replaces_rsyncs_after_the_lull() -> None:
    world = rested((1, 2))
    world.pool.busy()
    assert world.pool.take(1) is not None
    world.pool.renew(1.0)
    assert world.started[1].stopped
    assert not world.started[0].stopped, "that one is the worker's"
    world.wait(100)
    assert len(world.started) == 2
    world.pool.idle(LULL_SECONDS)
    world.wait(LULL_SECONDS)
    assert [transfer.tree for transfer in world.running] == [1, 1, 2]


def test_restart_does_not_retry_an_unreachable_node_sooner() -> None:
    world, other = (rested(connected=False) for _ in range(2))
    for each in (world, other):
        each.behave = lambda transfer: transfer.fail(10, b"Connection refused")
        each.last.fail(10, b"Connection refused")
    for _ in range(200):
        world.pool.renew(0.7)
        for each in (world, other):
            each.wait(1)
    assert world.reports == other.reports
    assert len(world.reports) > 5


def test_slow_node_is_reported_once_and_reached_when_it_answers() -> None:
    world = rested(connected=False)
    world.wait(SLOW_SECONDS + 1)
    assert [entry[0] for entry in world.news()] == ["unreached"]
    world.pool.renew(0.7)
    world.wait(SLOW_SECONDS + 2)
    assert world.news() == []
    world.last.connect()
    world.wait(1)
    assert world.news() == [("reached",)]


def test_node_that_never_answers_is_given_up_after_the_extra_time() -> None:
    world = rested(connected=False)
    world.wait(SLOW_SECONDS + 1)
    world.pool.renew(0.7)
    world.news()
    world.wait(CONNECT_SECONDS + 1)
    assert [entry[:4] for entry in world.news()] == [("unreached", 1, 0, "no answer for 30 s")]


def test_renewal_of_a_young_connection_is_no_early_close() -> None:
    world = rested()
    for _ in range(4 * MAX_EARLY_CLOSES):
        world.pool.renew(0.7)
        world.wait(1)
        world.last.connect()
        world.wait(1)
    assert {entry[0] for entry in world.news()} == {"reached"}


def test_renewal_after_a_long_life_clears_early_closes() -> None:
    world = after_a_chill(2 * YOUNG_SECONDS)
    world.pool.renew(0.7)
    assert is_the_first_chill(world)


def test_renewal_after_a_short_life_keeps_early_closes() -> None:
    world = after_a_chill(YOUNG_SECONDS / 2)
    world.pool.renew(0.7)
    assert not is_the_first_chill(world)


def test_suspension_is_not_ended_by_a_long_life() -> None:
    world = rested(connected=False)
    die_young(world, MAX_EARLY_CLOSES)
    started = len(world.started)
    world.pool.renew(0.7)
    world.wait(SUSPEND_SECONDS[0] - 1)
    assert len(world.started) == started
    world.wait(2)
    assert len(world.started) == started + 1


# Whatever happens ----------------------------------------------------------------------------------------


def test_dropped_ones_end_and_come_back_if_there_is_still_nothing_to_do() -> None:
    world = rested((1, 2))
    world.pool.end_all()
    assert all(transfer.stopped for transfer in world.started)
    assert all(transfer.far.closed for transfer in world.started)
    assert not world.listens
    assert not world.pool.has_connected
    world.wait(1)
    assert [transfer.tree for transfer in world.started] == [1, 2, 1, 2]


def answers(after: float) -> Callable[[World, FakeTransfer], None]:
    return lambda world, transfer: world.after(after, transfer.connect)


def refuses(after: float, code: int, line: bytes) -> Callable[[World, FakeTransfer], None]:
    return lambda world, transfer: world.after(after, lambda: transfer.fail(code, line))


def hangs_up(after: float, life: float) -> Callable[[World, FakeTransfer], None]:
    def behave(world: World, transfer: FakeTransfer) -> None:
        world.after(after, transfer.connect)
        world.after(after + life, transfer.hang_up)

    return behave


def dies(after: float, life: float) -> Callable[[World, FakeTransfer], None]:
    def behave(world: World, transfer: FakeTransfer) -> None:
        world.after(after, transfer.connect)
        world.after(after + life, lambda: transfer.fail(-9))

    return behave


def hangs(_world: World, _transfer: FakeTransfer) -> None:
    """Never answers."""


SOON = st.sampled_from([0.0, 0.001, 0.01, 0.3, 5.0, 29.9, 31.0])
LIFE = st.sampled_from([0.0, 0.001, 1.0, 29.0, 30.0, 31.0, 500.0, 5_000.0])
BEHAVIOURS = st.one_of(
    st.builds(answers, SOON),
    st.builds(
        refuses,
        SOON,
        st.sampled_from([0, 1, 5, 10, 255, -9]),
        st.sampled_from([b"", b"no", b"max connections"]),
    ),
    st.builds(hangs_up, SOON, LIFE),
    st.builds(dies, SOON, LIFE),
    st.just(hangs),
)


def test_node_that_comes_and_goes_each_second_is_tried_with_backoff() -> None:
    world = World()
    turns = itertools.cycle([hangs_up(0.0, 1.0), refuses(0.0, 10, b"Connection refused")])
    world.behave = lambda transfer: next(turns)(world, transfer)
    world.pool.idle(LULL_SECONDS)
    world.wait(3_600)
    assert len(world.started) < 100


@pytest.mark.slow
@settings(max_examples=150)
@given(
    behaviours=st.lists(BEHAVIOURS, min_size=1, max_size=6),
    lingers=st.sampled_from([0.0, 2.0]),
    trees=st.integers(1, 3),
    rand=st.floats(0, 1, exclude_max=True),
)
def test_random_node_behaviour_starts_few_rsyncs(
    behaviours: list[Callable[[World, FakeTransfer], None]], lingers: float, trees: int, rand: float
) -> None:
    world = World(tuple(range(trees)), rand)
    again: Iterator[Callable[[World, FakeTransfer], None]] = itertools.cycle(behaviours)

    def behave(transfer: FakeTransfer) -> None:
        transfer.lingers = lingers
        next(again)(world, transfer)

    world.behave = behave
    world.pool.idle(LULL_SECONDS)
    hour = 3_600.0
    world.wait(hour)  # which asserts at every step that time has to pass before the next one
    # One that lives for YOUNG_SECONDS is followed at once, the others with pauses that grow: within that
    # time two are closed early, and three cannot connect.
    assert len(world.started) <= trees * (hour / YOUNG_SECONDS * 5 + 20)
    assert world.steps <= (len(world.started) + 1) * (CONNECT_SECONDS / 0.25 + 30)
    # None is forgotten: whatever runs is known, so that it can be ended.
    assert {transfer.pid for transfer in world.started if not transfer.done} <= set(world.pool.pids)
    assert (
        len([transfer for transfer in world.started if not transfer.done and not transfer.stopped]) <= trees
    )


@settings(max_examples=100)
@given(
    behaviours=st.lists(BEHAVIOURS, min_size=1, max_size=4),
    orders=st.lists(
        st.tuples(
            st.sampled_from(["work", "rest", "take", "drop", "renew", "suspend", "gone"]),
            st.sampled_from([0.0, 0.01, 0.06, 1.0, 40.0, 2_000.0]),
        ),
        max_size=40,
    ),
)
def test_reports_in_any_order_never_spin_nor_forget_a_node(
    behaviours: list[Callable[[World, FakeTransfer], None]], orders: list[tuple[str, float]]
) -> None:
    world = World((1, 2))
    again = itertools.cycle(behaviours)
    world.behave = lambda transfer: next(again)(world, transfer)
    taken: set[int] = set()
    for order, pause in orders:
        match order:
            case "work":
                world.pool.busy()
            case "rest":
                world.pool.idle(LULL_SECONDS)
            case "take":
                world.pool.busy()
                for tree in (1, 2):
                    transfer = world.pool.take(tree)
                    taken |= {transfer.pid} if transfer else set()
            case "drop":
                world.pool.end_all()
            case "renew":
                world.pool.renew(0.7)
            case "suspend":
                world.pool.suspend("no room")
            case "gone":
                world.refuses = None if world.refuses else OSError(11, "Resource temporarily unavailable")
        world.wait(pause)
        alive = {transfer.pid for transfer in world.started if not transfer.done} - taken
        assert alive == set(world.pool.pids)
    # In the end it rests, the node answers again, and each tree has one that is ready.
    world.refuses = None
    world.behave = lambda transfer: world.after(0.1, transfer.connect)
    world.pool.idle(LULL_SECONDS)
    world.wait(2 * SUSPEND_SECONDS[1] + 2 * MAX_AGE_SECONDS + 10_000)

    def ready() -> list[int]:
        return sorted(t.tree for t in world.running if t.pid not in taken and t.is_connected)

    for _ in range(10):  # they may just have become too old
        if ready() != [1, 2]:
            world.wait(0.1)
    assert ready() == [1, 2]
