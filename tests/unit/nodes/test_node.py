"""The books about one node: what moves its cursor, and what comes back when something goes wrong.

The worker is played: its end of the queue is the test's own.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import cast

import pytest

from inosync.changes import Change, Kind, Lane, Part
from inosync.config.nodes import NodeSpec
from inosync.config.timetable import Timetable
from inosync.filters.rules import Rules
from inosync.journal.subscription import Subscription
from inosync.nodes import reasons
from inosync.nodes.lifecycle import Phase
from inosync.nodes.messages import (
    Batch,
    Compared,
    Done,
    Failed,
    Halt,
    Leftovers,
    Progress,
    Reachable,
    Report,
    Started,
    TargetReplaced,
    Through,
    TooManyRemovals,
    Unreachable,
)
from inosync.nodes.node import Node
from inosync.nodes.pace import Cost
from inosync.nodes.retries import MAX_RETRIES, Retry
from inosync.nodes.settlement import SECOND_LOOK_SECONDS
from inosync.rsync.coarse_times import SETTLE_SECONDS
from inosync.system import channel, spool
from inosync.system.channel import Endpoint
from inosync.system.loop import Loop, Timer

NOBODY = 99_999_999
"""A pid that there cannot be."""
FIRST, LONGEST = 1.0, 100.0
TREES = (1, 2)


class Dead:
    """A process as the node sees it when it has ended."""

    pid = NOBODY
    exitcode = -9

    def join(self) -> None:
        """It has ended."""


class Bench:
    """A node, what it asks for, and its worker's end of the queue."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.timers: list[tuple[float, Callable[[], object]]] = []
        self.finishes: list[str] = []
        self.costs: list[Cost | None] = []
        self.holds: list[int] = []
        self.counts: list[TooManyRemovals] = []
        self.offers = self.returns = self.advances = 0
        self.queues: list[Endpoint] = []
        self._ids = itertools.count(1)
        spec = NodeSpec("n:", "n", Timetable(((0, 0),)), (), (), 300.0)
        self.node = Node(spec, 10, self, cast(Loop, self), lambda: 0.0, (FIRST, LONGEST))
        rules = Rules(())
        self.node.subscribe(Subscription(dict.fromkeys(TREES, rules), frozenset(), everything=True))
        self.node.worker.start()
        self.report(Started(NOBODY))

    # What the node asks for

    def fork_worker(self, _node: Node) -> tuple[ForkProcess, Endpoint]:
        ours, self.worker = channel.pair()
        self.queues += [ours, self.worker]
        return cast(ForkProcess, Dead()), ours

    def offer_batch(self, _node: Node) -> None:
        self.offers += 1

    def big_file_advanced(self) -> None:
        self.advances += 1

    def batch_finished(self, _node: Node, batch: Batch, cost: Cost | None = None) -> None:
        self.finishes.append(batch.file)
        self.costs.append(cost)

    def tree_held(self, _node: Node, tree: int) -> None:
        self.holds.append(tree)

    def clock(self) -> float:
        return self.now

    def call_at(self, when: float, call: Callable[[], object]) -> Timer:
        self.timers.append((when, call))
        return Timer(when, call)

    def node_returned(self, _node: Node) -> None:
        self.returns += 1

    def worker_died(self, _node: Node) -> None:
        pass

    worker_stopped = try_failed = slot_requested = worker_died

    def tree_compared(self, _node: Node, _report: Compared) -> None:
        pass

    def removals_counted(self, report: TooManyRemovals) -> None:
        self.counts.append(report)

    # What the test does

    def report(self, *reports: Report) -> None:
        """The worker says something, and the node hears it."""
        for report in reports:
            self.worker.put(report)
        while self.node.read_report():
            pass

    def send(self, upto: int, trying: Iterable[Change] = ()) -> int:
        """The node is sent a batch; its number."""
        number = next(self._ids)
        self.node.send_batch(Batch(number, 1, False, file=f"file-{number}"), upto, self.now, trying)
        assert self.node.outstanding is not None
        assert self.worker.get() == self.node.outstanding.batch
        return number

    def done(self, number: int, *parts: Part, reason: str = "", held: tuple[int, ...] = ()) -> Done:
        payload, _ = spool.pack(Leftovers(due=parts), "")
        return Done(number, 0.1, 23 if parts else 0, reason, payload, held=held)

    def owes(self) -> set[Change]:
        return set(self.node.retries.waiting)


@pytest.fixture
def bench() -> Iterator[Bench]:
    one = Bench()
    yield one
    for end in one.queues:
        end.close()


def name(path: bytes, tree: int = 1) -> Change:
    return Change(tree, path, Kind.NAME)


def whole(tree: int) -> Change:
    return Change(tree, b"", Kind.TREE)


def degraded(node: Node) -> str:
    """Why a node is degraded."""
    return reasons.degraded(node.problem, node.retries)


def big_files(node: Node) -> str:
    """What is in its second lane."""
    return reasons.big_files(node.second, node.retries)


def test_cursor_moves_when_a_batch_is_confirmed_and_not_before(bench: Bench) -> None:
    number = bench.send(15)
    assert bench.node.cursor == 10
    bench.report(Failed(number, 1, 12, "no", 1.0))
    assert bench.node.cursor == 10
    assert bench.node.outstanding is not None
    bench.report(bench.done(number))
    assert (bench.node.cursor, bench.node.outstanding is None, bench.owes()) == (15, True, set())
    assert (bench.finishes, bench.node.worker.state.phase) == ([f"file-{number}"], Phase.IDLE)


def test_batch_has_arrived_when_its_rsync_only_has_to_end(bench: Bench) -> None:
    number = bench.send(15)
    bench.report(Through(number + 1))
    assert bench.node.arrived == 10, "that is another batch"
    bench.report(Through(number))
    assert (bench.node.arrived, bench.node.cursor, bench.node.outstanding is None) == (15, 10, False)
    bench.report(bench.done(number))
    assert (bench.node.arrived, bench.node.cursor) == (15, 15)
    bench.report(Through(number))
    bench.report(Through(bench.send(20)))
    bench.node.collect_worker()
    assert (bench.node.arrived, bench.node.cursor) == (15, 15), "it is sent again"


def test_batch_whose_worker_dies_is_unsent(bench: Bench) -> None:
    bench.node.retry(name(b"due"), bench.now)
    bench.node.retry(whole(2), bench.now)
    before = dict(bench.node.retries.waiting)
    number, sent_at = bench.send(15, [name(b"due"), whole(2)]), bench.now
    assert bench.owes() == set()
    assert bench.node.retries.count == 2
    bench.node.collect_worker()
    assert bench.node.cursor == 10
    assert bench.node.retries.waiting == before
    assert (bench.node.outstanding, bench.node.untidy_since) == (None, sent_at)
    assert bench.finishes == [f"file-{number}"]
    [(when, wake)] = bench.timers
    bench.now = when
    wake()
    bench.report(Started(NOBODY))
    # What the dead one was given is nothing that its successor could confirm.
    bench.report(bench.done(number))
    assert (bench.node.cursor, bench.node.retries.waiting) == (10, before)


def test_retry_noted_during_a_batch_does_not_go_with_it(bench: Bench) -> None:
    bench.node.retry(name(b"due"), bench.now)
    number = bench.send(15, [name(b"due")])
    bench.now += 1
    bench.node.retry(name(b"due"), bench.now)
    bench.report(bench.done(number))
    assert bench.owes() == {name(b"due")}


def test_batch_that_is_done_has_its_cost_and_a_full_mirror_none(bench: Bench) -> None:
    number = bench.send(15)
    began = bench.now
    bench.now += 2.0
    bench.report(dataclasses.replace(bench.done(number), cpu=0.5))
    assert bench.node.cost == Cost(0.5, began, bench.now)
    assert bench.costs == [bench.node.cost]
    number = bench.send(16)
    bench.node.collect_worker()
    assert bench.costs[1:] == [None]
    [(bench.now, wake)] = bench.timers
    wake()
    bench.report(Started(NOBODY))
    bench.node.send_batch(Batch(99, 1, True, spool.pack((), "")[0]), 17, bench.now, ())
    bench.report(dataclasses.replace(bench.done(99), cpu=30.0))
    assert bench.node.cost is None
    assert bench.costs[1:] == [None, None]


def test_report_of_a_worker_that_died_counts(bench: Bench) -> None:
    number = bench.send(15)
    bench.worker.put(bench.done(number))
    bench.node.collect_worker()
    assert (bench.node.cursor, bench.node.untidy_since) == (15, None)


def test_report_of_another_batch_confirms_nothing(bench: Bench) -> None:
    old = bench.send(15)
    bench.report(bench.done(old))
    number = bench.send(20)
    bench.report(bench.done(old), bench.done(number + 1))
    assert bench.node.cursor == 15
    assert bench.node.outstanding is not None
    bench.report(bench.done(number))
    assert bench.node.cursor == 20


def test_failed_names_are_retried_with_a_growing_pause(bench: Bench) -> None:
    part = Part(1, False, (b"a", b"b/"))
    changes = {name(b"a"), Change(1, b"b", Kind.LIST)}
    number = bench.send(15)
    for attempt in range(1, 5):
        bench.report(bench.done(number, part, reason="no"))
        assert bench.node.cursor == 15
        assert bench.owes() == changes
        found = {(due.attempt, due.at - bench.now) for due in bench.node.retries.waiting.values()}
        assert found == {(attempt, FIRST * 2 ** (attempt - 1))}
        assert degraded(bench.node) == "no"
        assert bench.node.retries.ready(bench.now) == []
        assert any(when == bench.now + FIRST * 2 ** (attempt - 1) for when, _ in bench.timers)
        bench.now += 1000
        assert set(bench.node.retries.ready(bench.now)) == changes
        number = bench.send(15, changes)
    bench.report(bench.done(number))
    assert (bench.node.retries.waiting, degraded(bench.node)) == ({}, "")


def test_held_tree_is_retried_as_a_whole(bench: Bench) -> None:
    number = bench.send(15)
    bench.report(bench.done(number, held=(1,)))
    assert (bench.node.cursor, bench.owes(), bench.holds) == (15, {whole(1)}, [1])
    assert bench.node.last_ok is None


def test_node_that_would_lose_too_much_is_reported(bench: Bench) -> None:
    report = TooManyRemovals(1, 400, b"big")
    bench.report(report)
    assert bench.counts == [report]


def test_counters_of_batches(bench: Bench) -> None:
    number = bench.send(15)
    bench.now += 2.0
    bench.report(Failed(number, 1, 12, "no", 1.0, rsyncs=1))
    bench.report(Failed(number, 2, 12, "no", 1.0, rsyncs=1))
    bench.report(dataclasses.replace(bench.done(number), bytes=70, rsyncs=2))
    number = bench.send(16)
    bench.report(dataclasses.replace(bench.done(number, Part(1, False, (b"x",))), bytes=7))
    bench.report(bench.done(bench.send(17), held=(1,)))
    counted = bench.node.counters
    assert (counted.batches, counted.paths, counted.fulls) == (2, 2, 0), "what was held back is none"
    assert (counted.bytes, counted.rsyncs) == (77, 4)
    assert counted.failures == {"12": 2, "23": 1}
    assert (counted.latency.count, counted.latency.sum) == (2, 2.0)


def test_files_with_coarse_times_are_sent_once_more_and_lacking_until_then(bench: Bench) -> None:
    number = bench.send(15)
    began = bench.now
    bench.now += 0.5
    left, _ = spool.pack(Leftovers(outdated=(Part(1, False, (b"f",), ignore_times=True),)), "")
    bench.report(dataclasses.replace(bench.done(number), payload=left))
    again = Change(1, b"f", Kind.NAME, ignore_times=True)
    assert bench.owes() == {again}
    assert bench.node.retries.waiting[again] == Retry(0, bench.now + SETTLE_SECONDS, began)
    assert degraded(bench.node) == ""


def test_retries_are_whole_trees_if_their_list_is_lost(bench: Bench, tmp_path: Path) -> None:
    number = bench.send(15)
    bench.report(Done(number, 0.1, 23, "no", b"", str(tmp_path / "gone")))
    # What was outdated may differ in content alone.
    assert bench.owes() == {Change(tree, b"", Kind.TREE, ignore_times=True) for tree in (1, 2)}


def test_too_much_that_is_due_becomes_the_trees_themselves(bench: Bench, tmp_path: Path) -> None:
    number = bench.send(15)
    parts = (Part(2, False, tuple(b"%d" % n for n in range(MAX_RETRIES + 1))),)
    _, file = spool.pack(Leftovers(due=parts), str(tmp_path / "spool/due"))
    bench.report(Done(number, 0.1, 23, "no", b"", file))
    assert bench.owes() == {whole(2)}
    assert not Path(file).exists()


def test_tree_that_is_not_mirrored_any_more_is_not_retried(bench: Bench) -> None:
    for tree in TREES:
        bench.node.retry(name(b"due", tree), bench.now)
    number = bench.send(15, [name(b"due", 1), name(b"due", 2)])
    bench.node.subscribe(Subscription({2: Rules(())}, frozenset(), everything=True))
    bench.report(bench.done(number, Part(1, False, (b"due",)), Part(2, False, (b"due",))))
    assert bench.owes() == {name(b"due", 2)}


def test_lag_begins_with_the_change_and_not_with_its_last_try(bench: Bench) -> None:
    bench.node.retry(whole(1), bench.now)
    since = bench.now
    bench.now += 50
    bench.node.retry(whole(1), bench.now)
    assert bench.node.retries.waiting[whole(1)] == Retry(0, bench.now, since)
    assert bench.node.retries.oldest_untried == since
    bench.send(15, [whole(1)])
    assert bench.node.retries.oldest_untried == since


def test_batch_with_a_try_cut_off_is_repeated_later_without_lag(bench: Bench, tmp_path: Path) -> None:
    part = Part(1, False, (b"a/f", b"b/"))
    # With the directories that the names are in: a try that had to tidy up has listed those, too.
    listed = {Change(1, path, Kind.LIST, is_again=True) for path in (b"a", b"b", b"")}
    changes = {dataclasses.replace(name(b"a/f"), is_again=True), *listed}
    payload, _ = spool.pack((part,), "")
    bench.node.send_batch(Batch(70, 2, False, payload), 15, bench.now, ())
    bench.report(dataclasses.replace(bench.done(70), cut_off=True))
    assert (bench.node.cursor, bench.owes()) == (15, changes)
    assert {(due.attempt, due.at) for due in bench.node.retries.waiting.values()} == {
        (0, bench.now + SECOND_LOOK_SECONDS)
    }
    assert (bench.node.retries.oldest_untried, bench.node.retries.count, degraded(bench.node)) == (
        None,
        0,
        "",
    )
    # If it is complained of then, it has been lacking since then.
    bench.now += SECOND_LOOK_SECONDS
    assert set(bench.node.retries.ready(bench.now)) == changes
    bench.node.send_batch(Batch(71, 2, False, payload), 15, bench.now, changes)
    assert (bench.node.retries.oldest_untried, bench.node.retries.count) == (None, 0)
    bench.report(bench.done(71, Part(1, False, (b"a/f",)), reason="no"))
    assert bench.owes() == {name(b"a/f")}
    assert bench.node.retries.waiting[name(b"a/f")].since == bench.now
    # Too many names are the tree itself, and still no lag.
    bench.node.retries.forget_tree(1)
    many = (Part(2, False, tuple(b"%d" % n for n in range(MAX_RETRIES + 1))),)
    _, file = spool.pack(many, str(tmp_path / "spool/batch"))
    bench.node.send_batch(Batch(72, MAX_RETRIES + 1, False, file=file), 20, bench.now, ())
    bench.report(dataclasses.replace(bench.done(72), cut_off=True))
    assert bench.node.retries.waiting == {whole(2): Retry(0, bench.now + SECOND_LOOK_SECONDS, math.inf)}


@pytest.mark.parametrize(("code", "returns"), [(12, 1), (30, 1), (255, 1), (11, 0), (1, 0)])
def test_node_that_could_not_be_reached_returns_with_its_batch(bench: Bench, code: int, returns: int) -> None:
    number = bench.send(15)
    bench.report(Failed(number, 1, code, "no", 1.0), Failed(number, 2, 11, "no", 1.0))
    assert bench.returns == 0
    bench.report(bench.done(number))
    assert bench.returns == returns
    bench.report(bench.done(bench.send(16)))
    assert bench.returns == returns, "once"


def test_node_without_a_batch_returns_when_it_answers(bench: Bench) -> None:
    bench.report(Reachable())
    assert bench.returns == 0
    bench.report(Unreachable(1, 255, "no", 1.0), Unreachable(2, 255, "no", 1.0), Reachable())
    assert bench.returns == 1


def test_replaced_target_gets_the_whole_tree(bench: Bench) -> None:
    bench.report(TargetReplaced(2, "another directory"), TargetReplaced(3, "not mirrored"))
    assert (bench.owes(), bench.offers) == ({whole(2)}, 2)
    assert bench.node.retries.ready(bench.now) == [whole(2)]


# The second lane -----------------------------------------------------------------------------------------


def left(**parts: tuple[bytes, ...]) -> bytes:
    """What a batch leaves, by the names of its fields."""
    packed, _ = spool.pack(Leftovers(**{kind: (Part(1, False, names),) for kind, names in parts.items()}), "")
    return packed


def send_second(bench: Bench, *names: bytes, number: int = 90) -> int:
    payload, _ = spool.pack((Part(1, False, names),), "")
    batch = Batch(number, len(names), False, payload, lane=Lane.SECOND)
    bench.node.send_batch(batch, bench.node.cursor, bench.now, [name(one) for one in names])
    assert bench.worker.get() == batch
    return number


@pytest.fixture
def second(bench: Bench) -> Bench:
    """A node that has a big file in its second lane."""
    bench.report(dataclasses.replace(bench.done(bench.send(15)), payload=left(big=(b"d/big",))))
    assert bench.node.retries.ready(bench.now, Lane.SECOND) == [name(b"d/big")]
    send_second(bench, b"d/big")
    return bench


def test_second_lane_is_beside_the_first(second: Bench) -> None:
    number = second.send(20)
    assert second.node.retries.count == 1
    second.report(second.done(number))
    assert (second.node.cursor, second.node.outstanding) == (20, None)
    assert second.node.second is not None
    assert second.node.retries.oldest_untried == second.now
    second.report(second.done(90))
    assert big_files(second.node) == ""
    assert (second.node.retries.count, second.node.cursor) == (0, 20)
    assert second.finishes[-1] == ""


def test_second_lane_shows_its_progress(second: Bench) -> None:
    assert big_files(second.node) == "1 big file"
    second.report(Progress(90, 45), Progress(91, 50))
    assert (big_files(second.node), second.advances) == ("1 big file, 45%", 1)
    assert second.node.worker.state.phase is Phase.IDLE
    second.report(second.done(90))
    assert big_files(second.node) == ""


def test_second_lane_that_failed_is_retried_after_a_pause(second: Bench) -> None:
    before = second.node.last_ok
    second.now += 5
    second.report(
        dataclasses.replace(second.done(90, Part(1, False, (b"d/big",)), reason="no room"), code=11)
    )
    assert second.node.retries.waiting[name(b"d/big")].at == second.now + FIRST
    assert second.node.retries.ready(second.now + FIRST, Lane.SECOND) == [name(b"d/big")]
    assert (degraded(second.node), second.node.last_ok) == ("no room", before)
    assert any(when == second.now + FIRST for when, _ in second.timers)
    second.report(second.done(second.send(20)))
    assert degraded(second.node) == "no room", "a small batch does not mend it"


@pytest.mark.parametrize(("code", "returns"), [(12, 1), (30, 1), (255, 1), (11, 0), (23, 0)])
def test_second_lane_notices_a_node_out_of_reach(second: Bench, code: int, returns: int) -> None:
    failed = second.done(90, Part(1, False, (b"d/big",)), reason="no")
    second.report(dataclasses.replace(failed, code=code))
    assert second.returns == 0
    second.report(second.done(send_second(second, b"d/big", number=91)))
    assert second.returns == returns


def test_worker_that_dies_gives_back_both_lanes(second: Bench) -> None:
    second.send(20)
    second.node.collect_worker()
    assert (second.node.outstanding, second.node.second, second.node.cursor) == (None, None, 15)
    assert second.node.retries.ready(second.now, Lane.SECOND) == [name(b"d/big")]
    # The receiver of the big file may have left a temporary file.
    assert second.node.retries.ready(second.now) == [Change(1, b"d", Kind.LIST, is_again=True)]
    assert second.finishes[-2:] == ["file-2", ""]


def test_what_the_second_lane_blocks_waits_for_its_end(second: Bench) -> None:
    later = left(later=(b"d/big", b"d/"))
    second.report(dataclasses.replace(second.done(second.send(20)), payload=later))
    assert second.node.retries.ready(second.now + 1e6) == []
    assert second.node.retries.count == 3
    offers = second.offers
    second.report(second.done(90))
    assert set(second.node.retries.ready(second.now)) == {name(b"d/big"), Change(1, b"d", Kind.LIST)}
    assert second.offers > offers


def test_what_waits_for_a_big_file_is_in_the_reason(second: Bench) -> None:
    behind = left(behind=(b"current", b"releases/1"))
    second.report(dataclasses.replace(second.done(second.send(20)), payload=behind))
    assert big_files(second.node) == "1 big file; 2 names wait for that, such as current"
    assert second.node.retries.ready(second.now + 1e6) == []
    assert second.node.retries.oldest_untried is not None
    second.report(second.done(90))
    assert set(second.node.retries.ready(second.now)) == {name(b"current"), name(b"releases/1")}
    assert degraded(second.node) == ""


def test_what_waits_for_failed_names_is_in_the_reason(bench: Bench) -> None:
    due, behind = Part(1, False, (b"releases/2/f",)), Part(1, False, (b"current",))
    payload, _ = spool.pack(Leftovers(due=(due,), behind=(behind,)), "")
    bench.report(dataclasses.replace(bench.done(bench.send(15), reason="no room"), payload=payload))
    assert degraded(bench.node) == "no room; 1 name waits for that, such as current"
    assert (bench.node.retries.count, bench.node.retries.oldest_untried) == (2, None), (
        "it is degraded, not late"
    )
    retries = bench.node.retries.ready(bench.now + FIRST)
    assert retries == [name(b"releases/2/f"), name(b"current")], "they go together"


def test_second_lane_of_a_stopping_worker_still_counts(second: Bench) -> None:
    second.node.worker.stop(5.0)
    second.report(second.done(90))
    assert (second.node.second, second.node.retries.count) == (None, 0)


def test_halted_tree_ends_the_second_lane(second: Bench) -> None:
    second.node.halt_tree(1)
    assert second.worker.get() == Halt(1)
    second.report(second.done(90, held=(1,)))
    assert second.owes() == {whole(1)}
