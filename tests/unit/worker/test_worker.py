"""A whole worker in its own process: orders in, reports out. A script stands in for rsync."""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import TypeVar, cast

import pytest

from inosync.changes import Part, Source, Step
from inosync.config.timetable import constant
from inosync.filters.rules import Rules
from inosync.nodes.messages import (
    Batch,
    Compare,
    Compared,
    Done,
    Failed,
    Halt,
    Leftovers,
    Order,
    Progress,
    Report,
    SlotGranted,
    SlotRequest,
    Started,
    Stop,
    TargetReplaced,
)
from inosync.rsync.argv import TransferSettings
from inosync.system import channel, process, spool
from inosync.worker import worker
from inosync.worker.job import Job

R = TypeVar("R")
RSYNC = """#!/bin/sh
case " $* " in *" --version "*|*" --help "*) exit 0;; esac
cd '{home}/src'
tr '\\0' '\\n' >>'{home}/names'
echo x >>'{home}/runs'
{after}
"""
LIMIT_SECONDS = 60.0


class Bench:
    """A worker for two trees, and the master's end of its queue."""

    def __init__(self, home: Path) -> None:
        self.home = home
        for name in ("src", "other"):
            (home / name).mkdir()
            (home / name / "file").write_text("x")
        self.ours, self.theirs = channel.pair()
        self.child: ForkProcess
        self.reports: list[Report] = []

    def rsync(self, after: str = "") -> str:
        path = self.home / "rsync"
        path.write_text(RSYNC.format(home=self.home, after=after))
        path.chmod(0o755)
        return str(path)

    def job(self, after: str = "", retry: tuple[float, float] = (0.01, 0.05)) -> Job:
        rsync = self.rsync(after)
        sources = {1: self.home / "src", 2: self.home / "other"}
        trees = {
            number: TransferSettings(rsync, str(path), f"{self.home}/dst") for number, path in sources.items()
        }
        return Job(
            name="n0",
            node=f"{self.home}/dst",
            trees=trees,
            rules={number: Rules(()) for number in trees},
            rspeed=constant(0),
            excluded={number: lambda _path, _is_directory: False for number in trees},
            timeout=60.0,
            retry=retry,
            warm=0,
            spool=str(self.home),
        )

    def start(self, job: Job, *orders: Order) -> None:
        ours, theirs = self.ours, self.theirs
        self.child = process.fork(lambda: worker.run(job, theirs, os.getppid(), ours.descriptors()), "n0")
        theirs.close()
        for order in orders:
            ours.put(order)

    def next(self, kind: type[R]) -> R:
        """The next report of that kind; those before it are in ``reports``."""
        end = time.monotonic() + LIMIT_SECONDS
        while True:
            readable, _, _ = select.select([self.ours], [], [], max(end - time.monotonic(), 0))
            assert readable, f"no {kind} after {self.reports}"
            report = cast(Report, self.ours.get())
            self.reports.append(report)
            if isinstance(report, kind):
                return report

    def stop(self) -> None:
        with contextlib.suppress(channel.QueueError):  # it has ended
            self.ours.put(Stop(LIMIT_SECONDS))
        self.child.join(LIMIT_SECONDS)
        assert self.child.exitcode == 0

    def runs(self) -> int:
        path = self.home / "runs"
        return path.read_text().count("x") if path.exists() else 0


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.stop()


def batch(*parts: Part, **more: object) -> Batch:
    payload, file = spool.pack(parts, "")
    plain = Batch(7, sum(len(part.names) for part in parts), any(p.full for p in parts), payload, file)
    return replace(plain, **more)  # type: ignore[arg-type]


def first_time(home: Path, what: str) -> str:
    """Shell that does something in the first run only."""
    return f"[ -e '{home}/again' ] || {{ touch '{home}/again'; {what}; }}"


def root(path: Path) -> Source:
    status = path.stat()
    return Source((status.st_dev, status.st_ino), True)


NAMES = Part(1, False, (b"file",))


def test_worker_reports_its_start_and_sends_a_batch(bench: Bench) -> None:
    bench.start(bench.job("echo 'sent 1,000 bytes  received 34 bytes  9 bytes/sec'"), batch(NAMES))
    assert bench.next(Started).pid == bench.child.pid
    done = bench.next(Done)
    assert (done.batch, done.code, done.reason, done.held) == (7, 0, "", ())
    assert (done.bytes, done.rsyncs, done.cut_off) == (1_034, 1, False)
    assert (bench.home / "names").read_text().split() == ["file"]


def test_parts_of_a_batch_are_sent_one_after_the_other(bench: Bench) -> None:
    bench.start(bench.job(), batch(NAMES, Part(2, True), Part(2, False, (b"file",))))
    # A full mirror is two runs.
    assert bench.next(Done).rsyncs == 4
    assert bench.runs() == 4


def test_part_that_fails_holds_back_what_arrives_later(bench: Bench) -> None:
    (bench.home / "src/link").symlink_to("file")
    bench.start(
        bench.job(first_time(bench.home, "exit 12")),
        batch(Part(1, False, (b"link", b"file")), Part(1, False, (b"gone",), step=Step.REMOVED)),
    )
    bench.next(Done)
    # Each run adds the names that it is fed.
    assert (bench.home / "names").read_text().split() == ["file", "file", "link", "gone", "./"]


@pytest.mark.parametrize("answer", ["", "exit 23"], ids=["answered", "not answered"])
def test_full_mirror_asks_before_it_switches_and_removes(bench: Bench, answer: str) -> None:
    words = bench.home / "words"
    code = first_time(bench.home, answer) if answer else ":"
    bench.start(bench.job(f"echo \"$@\" >>'{words}'; {code}"), batch(Part(1, True)))
    bench.next(Done)
    question, *adds, all_of_it = words.read_text().splitlines()
    assert "--dry-run" in question
    assert [("--no-links" in each, "--delete" in each) for each in adds] == (
        [(True, False)] if answer else []
    )
    assert ("--no-links" in all_of_it, "--delete-delay" in all_of_it) == (False, True)


def test_failure_is_reported_and_tried_again_after_a_pause(bench: Bench) -> None:
    fails = first_time(bench.home, "echo 'rsync: no way' >&2; exit 12")
    bench.start(bench.job(fails), batch(NAMES))
    failed = bench.next(Failed)
    assert (failed.batch, failed.attempt, failed.code, failed.reason) == (7, 1, 12, "no way")
    assert 0 < failed.retry_in <= 0.01
    assert bench.next(Done).cut_off
    # The third one removes temporary files that the first may have left.
    assert bench.runs() == 3


@pytest.mark.parametrize(("code", "is_hopeless"), [(1, True), (4, True), (12, False)])
def test_failure_says_whether_it_is_hopeless(bench: Bench, code: int, is_hopeless: bool) -> None:
    bench.start(bench.job(first_time(bench.home, f"exit {code}")), batch(NAMES))
    assert bench.next(Failed).is_hopeless is is_hopeless


def test_flood_of_errors_ends_the_try_with_a_reason(bench: Bench) -> None:
    job = bench.job()
    flood = first_time(bench.home, "exec yes 'some error' >&2")
    (bench.home / "rsync").write_text(f"#!/bin/sh\n{flood}\ncd '{bench.home}/src'\ncat >/dev/null\n")
    bench.start(job, batch(Part(1, True)))
    assert bench.next(Failed).reason == "more than 1 MiB of errors"
    bench.next(Done)


def test_flood_of_errors_by_a_process_left_behind_is_ended(bench: Bench) -> None:
    job = bench.job()
    flood = first_time(bench.home, "yes 'some error' >&2 & exit 12")
    (bench.home / "rsync").write_text(f"#!/bin/sh\n{flood}\ncd '{bench.home}/src'\ncat >/dev/null\n")
    bench.start(job, batch(Part(1, True)))
    assert bench.next(Failed).code in (12, -15)
    bench.next(Done)


def test_heavy_batch_asks_for_a_slot_before_it_is_tried_again(bench: Bench) -> None:
    bench.start(bench.job(first_time(bench.home, "exit 12")), batch(NAMES, heavy=True))
    assert bench.next(SlotRequest).batch == 7
    bench.ours.put(SlotGranted(6))  # for an earlier batch
    assert bench.runs() == 1
    bench.ours.put(SlotGranted(7))
    bench.next(Done)
    assert bench.runs() == 3


def test_names_that_rsync_complains_of_are_reported_as_failed(bench: Bench) -> None:
    line = 'rsync: [receiver] mkstemp "/dst/.file.Ab12Cd" failed: Permission denied (13)'
    bench.start(bench.job(f"echo '{line}' >&2; exit 23"), batch(NAMES))
    done = bench.next(Done)
    assert done.code == 23
    assert "Permission denied" in done.reason
    left = cast(Leftovers, spool.unpack(done.payload, done.file))
    assert [part.tree for part in left.due] == [1]


def test_tree_that_is_halted_is_held_and_the_others_are_sent(bench: Bench) -> None:
    waits = f"case $PWD in */src) touch '{bench.home}/up';; esac; exec sleep 1000"
    bench.start(bench.job(first_time(bench.home, waits)), batch(NAMES, Part(1, True), Part(2, True)))
    bench.next(Started)
    while not (bench.home / "up").exists():
        time.sleep(0.01)
    bench.ours.put(Halt(1))
    done = bench.next(Done)
    assert (done.held, done.rsyncs) == ((1,), 3)


def test_local_target_that_was_replaced_is_reported_before_the_names(bench: Bench) -> None:
    target = bench.home / "dst"
    target.mkdir()
    bench.start(bench.job(), batch(Part(1, True)))
    bench.next(Done)
    target.rename(bench.home / "old")
    target.mkdir()
    bench.reports.clear()
    bench.ours.put(batch(NAMES))
    bench.next(Done)
    assert [report.tree for report in bench.reports if isinstance(report, TargetReplaced)] == [1]


def test_tree_with_another_root_is_held_without_an_rsync(bench: Bench) -> None:
    bench.start(bench.job(), batch(replace(NAMES, source=root(bench.home / "other"))))
    done = bench.next(Done)
    assert (done.held, done.rsyncs) == ((1,), 0)


def test_empty_root_is_mirrored_without_deletions(bench: Bench) -> None:
    words = bench.home / "words"
    (bench.home / "src" / "file").unlink()
    bench.start(
        bench.job(f"printf '%s ' \"$@\" >'{words}'"), batch(Part(1, True, source=root(bench.home / "src")))
    )
    assert bench.next(Done).held == ()
    assert "--max-delete=0" in words.read_text().split()


def test_names_that_are_gone_with_their_tree_fail_until_it_is_back(bench: Bench) -> None:
    moved = (bench.home / "src").rename(bench.home / "moved")
    bench.start(bench.job(), batch(NAMES))
    assert "src: No such file or directory" in bench.next(Failed).reason
    moved.rename(bench.home / "src")
    assert bench.next(Done).code == 0


def test_progress_of_a_full_mirror_is_reported_when_it_changes(bench: Bench) -> None:
    line = "  1,000  10%    1.00MB/s    0:00:01 (xfr#1, to-chk=3/4)"
    bench.start(bench.job(f"printf '%s\\r' '{line}'; sleep 0.3"), batch(Part(1, True)))
    bench.next(Done)
    assert [report.percent for report in bench.reports if isinstance(report, Progress)] == [25]


def test_rsync_that_ends_before_it_was_fed_has_sent_nothing(bench: Bench) -> None:
    job = bench.job()
    (bench.home / "rsync").write_text(
        f"#!/bin/sh\n{first_time(bench.home, 'exit 0')}\ncd '{bench.home}/src'\ncat >/dev/null\n"
    )
    bench.start(job, batch(Part(1, True)))
    assert bench.next(Failed).reason == "rsync ended before it was told what to do"
    bench.next(Done)


def test_processor_time_of_a_batch_is_that_of_all_its_tries(bench: Bench) -> None:
    burn = "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done"
    bench.start(bench.job(f"{burn}; {first_time(bench.home, 'exit 12')}"), batch(NAMES))
    twice = bench.next(Done).cpu
    bench.ours.put(batch(NAMES))
    once = bench.next(Done).cpu
    assert twice > 1.2 * once > 0


def test_comparison_runs_beside_the_batches(bench: Bench) -> None:
    bench.start(bench.job(), Compare(3, 1, root(bench.home / "src"), False), batch(NAMES))
    assert (bench.next(Compared).id, bench.runs() > 0) == (3, True)


def test_worker_that_is_told_to_stop_lets_a_transfer_finish(bench: Bench) -> None:
    bench.start(bench.job("sleep 0.5"), batch(NAMES), Stop(LIMIT_SECONDS))
    assert bench.next(Done).code == 0


def test_worker_ends_a_transfer_that_has_no_time_left(bench: Bench) -> None:
    bench.start(bench.job("exec sleep 1000"), batch(NAMES))
    bench.next(Started)
    while not bench.runs():
        time.sleep(0.01)
    bench.ours.put(Stop(0.0))
    bench.child.join(LIMIT_SECONDS)
    assert bench.child.exitcode == 0
