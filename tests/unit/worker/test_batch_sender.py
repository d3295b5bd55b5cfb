"""What a sender does between transfers: tries, pauses, slots, halts. Transfers are played, trees are real."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from inosync.changes import Lane, Part, Step
from inosync.filters.rules import Rules
from inosync.nodes.messages import Batch, Done, Failed, Leftovers, Report, SlotRequest, Through
from inosync.rsync.argv import TransferSettings
from inosync.system import spool
from inosync.system.loop import Loop
from inosync.worker.batch_sender import YIELD_SECONDS, BatchSender
from inosync.worker.beside import Beside
from inosync.worker.job import Job
from inosync.worker.lanes import Lanes
from inosync.worker.refused_options import RefusedOptions
from inosync.worker.sent_directories import SentDirectories

FIRST = 10.0
"""The first pause after a failure."""


@dataclass
class FakeTransfer:
    """An rsync that waits, or sends, until the test ends it."""

    part: Part
    sent_at: float
    code: int = 0
    stdout: list[bytes] = field(default_factory=list)
    stderr: list[bytes] = field(default_factory=list)
    names_sent_at: float | None = None
    abort_reason: str = ""
    cancelled: bool = False
    superseded: bool = False
    was_warm: bool = False
    is_truncated: bool = False
    is_through: bool = False
    is_terminated: bool = False

    def send_when_connected(self, _names: bytes, _may_send: Callable[[], bool]) -> None:
        self.names_sent_at = self.sent_at

    def terminate(self) -> None:
        self.is_terminated = True

    def supersede(self) -> None:
        self.superseded = True


class Bench:
    """A sender for a tree with two files."""

    def __init__(self, tree: Path, lane: Lane = Lane.FIRST) -> None:
        for name in "ab":
            (tree / name).touch()
        self.tree, self.now, self.lane = tree, 0.0, lane
        self.has_warm, self.is_outdated, self.big_size = False, False, 0
        self.transfers: list[FakeTransfer] = []
        self.reports: list[Report] = []
        self.said: list[tuple[object, ...]] = []
        settings = TransferSettings("rsync", str(tree), "rsync://host/module")
        job = SimpleNamespace(
            trees={1: settings}, rules={1: Rules(())}, excluded={1: Rules(()).excluded}, retry=(FIRST, 60.0)
        )
        job.spool, job.wall = str(tree.parent), lambda: self.now
        self.loop = Loop(lambda: self.now)

        def nothing(*_arguments: object, **_named: object) -> Any:
            return None

        warm = SimpleNamespace(
            take=nothing,
            end=nothing,
            renew=nothing,
            end_all=lambda: self.said.append(("end_all",)),
            suspend=lambda reason: self.said.append(("suspend", reason)),
        )
        bench = self

        class Warm(SimpleNamespace):
            @property
            def has_connected(self) -> bool:
                return bench.has_warm

        beside = SimpleNamespace(
            calls=SimpleNamespace(
                settings=lambda _tree: settings,
                big_size=lambda _tree: self.big_size,
                start=self._start,
                rspeed=0,
            ),
            refused=RefusedOptions(lambda: self.now),
            local_targets=SimpleNamespace(check=nothing, begin_full=nothing),
            remote_targets=SimpleNamespace(came_through=nothing, begin_full=nothing),
            warm=Warm(**vars(warm)),
            comparisons=SimpleNamespace(is_running=False),
            ssh_master=SimpleNamespace(distrust=nothing, node_reached=nothing),
            hooks=SimpleNamespace(synced=nothing),
            title=SimpleNamespace(transferring=nothing, transfer_ended=nothing),
            lanes=Lanes(),
            outdated=SimpleNamespace(
                after=lambda *_: [], is_any_after=lambda *_: self.is_outdated, note_reads=nothing
            ),
            sent=SentDirectories(0.0),
        )
        self.sender = BatchSender(
            cast(Job, job),
            cast(Beside, beside),
            lambda _lines: False,
            self.reports.append,
            self.loop,
            lambda: 0.0,
        )

    def _start(self, part: Part, *_rest: object) -> FakeTransfer:
        self.transfers.append(FakeTransfer(part, self.now))
        return self.transfers[-1]

    def begin(self, *names: bytes, heavy: bool = False, step: Step = Step.CHANGED) -> None:
        part = Part(1, False, names or (b"a",), step=step)
        payload, _ = spool.pack((part,), "")
        self.sender.begin(Batch(7, len(part.names), False, payload, heavy=heavy, lane=self.lane))

    def end(self, code: int = 0, *stderr: bytes, was_fed: bool = True) -> None:
        """End the transfer that runs, so long after it was fed that a dead connection is no reason."""
        transfer = self.transfers[-1]
        transfer.code, transfer.stderr = code, list(stderr)
        transfer.names_sent_at = self.now - 100.0 if was_fed else None
        self.sender.transfer_ended()

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.loop.turn(0)

    @property
    def done(self) -> Done:
        (found,) = [report for report in self.reports if isinstance(report, Done)]
        return found

    def left(self) -> Leftovers:
        return cast(Leftovers, spool.unpack(self.done.payload, self.done.file))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    (tmp_path / "tree").mkdir()
    return Bench(tmp_path / "tree")


@pytest.fixture
def second(tmp_path: Path) -> Bench:
    (tmp_path / "tree").mkdir()
    found = Bench(tmp_path / "tree", Lane.SECOND)
    (tmp_path / "tree/a").write_bytes(b"big")
    found.big_size = 2
    return found


def test_failed_transfer_is_tried_again_after_a_pause(bench: Bench) -> None:
    bench.begin()
    bench.end(12)
    (failed,) = bench.reports
    assert isinstance(failed, Failed)
    assert (failed.attempt, failed.code, failed.retry_in) == (1, 12, FIRST)
    bench.wait(FIRST - 0.1)
    assert len(bench.transfers) == 1
    bench.wait(0.1)
    bench.end(12)
    assert [report.attempt for report in bench.reports if isinstance(report, Failed)] == [1, 2]
    bench.wait(2 * FIRST)
    bench.end()
    assert bench.transfers[-1].part.names == (b"./",), "what the failed ones may have left goes"
    bench.end()
    assert (bench.done.code, bench.done.payload) == (0, b"")


def test_heavy_batch_asks_for_a_slot_before_its_next_try(bench: Bench) -> None:
    bench.begin(heavy=True)
    bench.end(12)
    bench.wait(FIRST)
    assert bench.reports[1:] == [SlotRequest(7)]
    bench.sender.go_on()
    bench.sender.slot_granted(6)  # of a batch before
    assert len(bench.transfers) == 1
    bench.sender.slot_granted(7)
    assert len(bench.transfers) == 2


def test_tree_that_is_halted_during_a_pause_is_held_at_once(bench: Bench) -> None:
    bench.begin()
    bench.end(12)
    bench.sender.halt(2)
    assert len(bench.reports) == 1, "that is another tree"
    bench.sender.halt(1)
    assert bench.done.held == (1,)
    bench.wait(FIRST)
    assert len(bench.transfers) == 1


def test_tree_that_is_halted_during_its_transfer_is_held_at_its_end(bench: Bench) -> None:
    bench.begin()
    bench.sender.halt(1)
    assert bench.transfers[0].is_terminated
    bench.end(20)
    assert (bench.done.held, bench.done.code) == ((1,), 0)
    bench.reports.clear()
    bench.begin()
    bench.end()
    assert bench.done.held == (), "the next batch is another one"


def test_second_lane_gives_up_without_a_pause(second: Bench) -> None:
    second.begin()
    second.end(12)
    assert (second.done.code, second.left().due) == (12, (Part(1, False, (b"a",)),))


def test_connections_are_given_up_only_if_the_next_try_succeeds(bench: Bench) -> None:
    bench.has_warm = True
    bench.begin()
    bench.end(5, b"@ERROR: max connections (1) reached -- try again later", was_fed=False)
    assert (bench.said, bench.reports) == ([("end_all",)], [])
    bench.has_warm = False
    bench.wait(YIELD_SECONDS)
    bench.end()
    ((what, reason),) = bench.said[1:]
    assert (what, "max connections" in str(reason)) == ("suspend", True)


def test_connections_are_kept_if_the_node_was_away(bench: Bench) -> None:
    bench.has_warm = True
    bench.begin()
    bench.end(12, was_fed=False)
    bench.sender.node_was_away()
    bench.wait(YIELD_SECONDS)
    bench.end()
    assert bench.said == [("end_all",)]


def test_superseded_transfer_is_made_once_more_at_once(bench: Bench) -> None:
    bench.begin()
    bench.sender.restart_transfer()
    bench.end(20)
    assert [transfer.part.names for transfer in bench.transfers] == [(b"a",), (b"a",)]
    bench.end()
    bench.end()
    assert bench.done.cut_off, "the node may still be at work on the first"


def test_ending_worker_starts_nothing_and_reports_what_came_through(bench: Bench) -> None:
    bench.begin()
    bench.sender.finish()
    bench.end()
    assert bench.done.code == 0
    bench.reports.clear()
    bench.begin()
    bench.sender.finish()
    bench.end(12)
    bench.wait(10 * FIRST)
    assert (bench.reports, len(bench.transfers)) == ([], 2)


def test_batch_is_through_before_its_last_rsync_has_ended(bench: Bench) -> None:
    bench.begin()
    bench.sender.report_through()
    assert bench.reports == []
    bench.transfers[-1].is_through = True
    bench.sender.report_through()
    bench.sender.report_through()
    assert bench.reports == [Through(7)], "once"
    bench.end()
    assert bench.done.code == 0
    bench.reports.clear()
    bench.begin()
    bench.transfers[-1].is_through = True
    bench.sender.report_through()
    assert bench.reports == [Through(7)], "the next batch, too"


def test_last_part_of_a_batch_is_through(bench: Bench) -> None:
    (bench.tree / "link").symlink_to("a")
    bench.begin(b"link", b"a")
    for _ in range(2):
        assert bench.reports == []
        transfer = bench.transfers[-1]
        transfer.is_through = True
        bench.sender.report_through()
        before = list(bench.reports)
        bench.end()
    assert before == [Through(7)]
    assert len(bench.transfers) == 2


@pytest.mark.parametrize(
    ("step", "listed", "sent", "again"),
    [
        (Step.SWITCHED, 2, 2, False),
        (Step.SWITCHED, 2, 1, True),  # which one is not said
        (Step.CHANGED, 2, 1, False),
    ],
)
def test_files_moved_over_equal_ones_are_sent_by_content(
    bench: Bench, step: Step, listed: int, sent: int, again: bool
) -> None:
    bench.begin(b"a", b"b", step=step)
    transfer = bench.transfers[-1]
    transfer.is_through = True
    bench.sender.report_through()
    assert bench.reports == ([Through(7)] if step is Step.CHANGED else []), "it is not known yet"
    transfer.stdout = [
        f"Number of files: {listed} (reg: {listed})".encode(),
        f"Number of regular files transferred: {sent}".encode(),
    ]
    bench.end()
    expected = (Part(1, False, (b"a", b"b"), ignore_times=True),) if again else ()
    assert (bench.left().outdated if bench.done.payload else ()) == expected


@pytest.mark.parametrize(
    "what", ["another part", "big", "outdated", "halted", "superseded", "cancelled", "cut off", "not fed"]
)
def test_batch_that_may_leave_something_is_not_through_early(bench: Bench, what: str) -> None:
    match what:
        case "another part":
            (bench.tree / "link").symlink_to("a")  # after the file
            bench.begin(b"link", b"a")
        case "big":
            bench.big_size = 2
            (bench.tree / "a").write_bytes(b"big")
            bench.begin(b"a", b"b")
        case "cut off":
            bench.begin()
            bench.end(12)
            bench.wait(FIRST)
        case _:
            bench.begin()
    transfer = bench.transfers[-1]
    match what:
        case "outdated":
            bench.is_outdated = True
        case "halted":
            bench.sender.halt(1)
        case "superseded":
            transfer.superseded, transfer.code = True, 20
        case "cancelled":
            transfer.cancelled = True
        case "not fed":
            transfer.names_sent_at = None
    transfer.is_through = True
    before = list(bench.reports)
    bench.sender.report_through()
    assert bench.reports == before


@pytest.mark.parametrize("is_full", [False, True])
def test_second_lane_and_a_full_mirror_are_not_through_early(bench: Bench, is_full: bool) -> None:
    if is_full:
        payload, _ = spool.pack((Part(1, True, step=Step.NEW),), "")
        bench.sender.begin(Batch(7, 1, True, payload))
    else:
        bench = Bench(bench.tree, Lane.SECOND)
        bench.big_size = 2
        (bench.tree / "a").write_bytes(b"big")
        bench.begin()
    bench.transfers[-1].is_through = True
    bench.sender.report_through()
    assert bench.reports == []


def objects_after(bench: Bench, batches: int) -> int:
    """Send batches that fail, are held back or come through; return how many objects there are then."""
    for number in range(batches):
        bench.begin(b"a", b"b", b"gone%d" % number)
        bench.end(12 if number % 3 == 0 else 0)
        bench.wait(2 * FIRST)
        while not any(isinstance(report, Done) for report in bench.reports):
            bench.end(23 if number % 3 == 1 else 0)
            bench.wait(FIRST)
        bench.transfers.clear()
        bench.reports.clear()
        bench.said.clear()
    gc.collect()
    return len(gc.get_objects())


def test_nothing_is_kept_of_batches_that_are_through(bench: Bench) -> None:
    before = objects_after(bench, 50)
    assert objects_after(bench, 200) - before < 50
