"""``rspeed`` that changes with the time of day: a worker with real rsyncs, and then a whole daemon.

The test sets the wall clock of the worker, which reads it whenever something wakes it. The last test checks
that a worker wakes by itself at the right time.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.context import ForkProcess
from pathlib import Path

import pytest
from support import procs, trees
from support.daemon import Daemon, MakeDaemon
from support.procs import Process
from support.wait import until

from inosync.changes import Lane, Part
from inosync.config.timetable import check
from inosync.filters.rules import Rules
from inosync.nodes.messages import (
    Batch,
    Done,
    Failed,
    Progress,
    Report,
    Started,
    Stop,
    Throttled,
    TitleUpdate,
)
from inosync.rsync import transfer
from inosync.rsync.argv import TransferSettings
from inosync.system import channel, process, spool
from inosync.system.channel import Endpoint, QueueError
from inosync.worker import worker
from inosync.worker.job import Job

RSYNC = shutil.which("rsync") or ""
pytestmark = pytest.mark.skipif(not RSYNC, reason="rsync is not installed")

LIMIT = 60.0
SLOW, DAY, EVENING = 100, "12:00", "20:00"
TIMETABLE = f"08:00,{SLOW} 18:00,0"
NAP = TitleUpdate("inosync: node [ok]")
"""A message that wakes a worker and makes it do nothing."""

RECORDING = """#!/bin/sh
case "$* " in --version* | *" --dry-run "*) exec @RSYNC@ "$@" ;; esac
number=$(($(wc -l <@HOME@/calls) + 1))
@BEFORE@
echo "$*" >>@HOME@/calls
@AFTER@
exec @RSYNC@ "$@"
"""


def wall(clock: str) -> float:
    """Return the seconds since the epoch at this local time of some day."""
    return time.mktime(time.strptime(f"2024-06-15 {clock}", "%Y-%m-%d %H:%M"))


@dataclass
class Rig:
    """A worker for one local node in a process of its own, and the master's end of its queue."""

    home: Path
    reports: list[Report] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.src, self.dst, self.spool = (self.home / name for name in ("src", "dst", "spool"))
        for path in (self.src, self.dst, self.spool):
            path.mkdir()
        self.rsync = self.home / "rsync"
        self.calls_file = self.home / "calls"
        self.calls_file.touch()
        self.be_rsync()
        self._wall = get_context("fork").Value("d", wall(DAY), lock=False)
        self._ids = itertools.count(1)
        self._queue: Endpoint | None = None
        self._child: ForkProcess | None = None
        self._found: set[tuple[int, int]] = set()

    def be_rsync(self, after: str = "", before: str = "") -> None:
        """Make a fake rsync that records each call that writes, and runs shell code before and after that.

        ``$number`` is that of the call.
        """
        text = RECORDING.replace("@HOME@", shlex.quote(str(self.home))).replace("@RSYNC@", shlex.quote(RSYNC))
        self.rsync.write_text(text.replace("@BEFORE@", before).replace("@AFTER@", after))
        self.rsync.chmod(0o755)

    def start(
        self,
        timetable: str = TIMETABLE,
        warm: bool = True,
        extra: tuple[str, ...] = (),
    ) -> Process:
        """Fork the worker and wait until it is ready."""
        ours, theirs = channel.pair()
        job = Job(
            name="node",
            node=str(self.dst),
            trees={1: TransferSettings(str(self.rsync), str(self.src), str(self.dst), extra=extra)},
            rules={1: Rules(())},
            excluded={1: lambda _name, _is_directory: False},
            rspeed=check(timetable),
            timeout=300.0,
            retry=(0.1, 0.5),
            warm=warm,
            spool=str(self.spool),
            wall=lambda: float(self._wall.value),
        )
        master = os.getpid()
        self._child = process.fork(lambda: worker.run(job, theirs, master, ours.descriptors()), "node")
        theirs.close()
        self._queue = ours
        self.until(lambda: Started in map(type, self.reports), "the worker to be ready")
        found = procs.look(self.pid)
        assert found is not None
        return found

    @property
    def pid(self) -> int:
        assert self._child is not None
        assert self._child.pid is not None
        return self._child.pid

    def order(self, order: Batch | TitleUpdate | Stop) -> None:
        assert self._queue is not None
        self._queue.put(order)

    def send(self, *names: bytes, lane: Lane = Lane.FIRST) -> None:
        """Send a batch of these names, or a FULL without any."""
        parts = (Part(1, not names, names),)
        number = next(self._ids)
        payload, file = spool.pack(parts, str(self.spool / f"batch-{number}"))
        self.order(Batch(number, len(names), not names, payload, file, heavy=not names, lane=lane))

    def set(self, clock: str) -> None:
        """Set the wall clock and wake the worker."""
        self._wall.value = wall(clock)
        self.order(NAP)

    def read(self) -> None:
        assert self._queue is not None
        with contextlib.suppress(QueueError):  # the worker has ended, and all its reports were read
            while (report := self._queue.get()) is not None:
                assert isinstance(report, Report)
                self.reports.append(report)

    def until(self, condition: Callable[[], object], what: str) -> None:
        def look() -> bool:
            self.read()
            return bool(condition())

        try:
            until(look, LIMIT, what)
        except AssertionError as error:
            family = [procs.title(each.pid) for each in procs.family([self.pid])]
            raise AssertionError(f"{error}\n{self.reports}\n{self.calls()}\n{family}") from None

    def until_done(self, times: int = 1) -> Done:
        """Wait until that many batches are done, and return the last report."""

        def done() -> list[Done]:
            return [report for report in self.reports if isinstance(report, Done)]

        self.until(lambda: len(done()) == times, f"{times} batches to be through")
        return done()[-1]

    def reported(self) -> list[Report]:
        """Return its reports without Started and Progress."""
        return [report for report in self.reports if not isinstance(report, Started | Progress)]

    def calls(self) -> list[tuple[str, int]]:
        """Return the kind and the limit of each call of rsync so far."""
        found = []
        for line in self.calls_file.read_text().splitlines():
            limit = re.search(r"--bwlimit=(\d+)", line)
            kind = "batch" if "--dirs" in line else "full"
            found.append((kind, int(limit[1]) if limit else 0))
        return found

    def until_warm(self) -> Process:
        """Wait until a warm rsync, not one found before, is in the tree."""
        found: list[Process] = []

        def look() -> bool:
            for each in procs.family([self.pid])[1:]:
                is_new = each.ppid == self.pid and (each.pid, each.start) not in self._found
                if is_new and self._is_in_tree(each):
                    found.append(each)
            return bool(found)

        self.until(look, "an rsync that waits")
        # Its child, too, which as an orphan is the worker's for a moment.
        self._found |= {(each.pid, each.start) for each in procs.family([found[0].pid])}
        return found[0]

    def _is_in_tree(self, found: Process) -> bool:
        try:
            return os.readlink(f"/proc/{found.pid}/cwd") == str(self.src)
        except OSError:
            return False

    def in_transit(self, name: str) -> list[Path]:
        """Return rsync's temporary files for a name."""
        return list(self.dst.glob(f".{name}.??????"))

    def until_in_transit(self, name: str) -> None:
        self.until(lambda: self.in_transit(name), f"{name} to be on its way")

    def title(self) -> str:
        return procs.title(self.pid)

    def close(self) -> None:
        if self._child is None:
            return
        family = procs.family([self.pid])
        for each in family:
            procs.send(each, signal.SIGKILL)
        self._child.join(LIMIT)
        self._child.close()
        if self._queue is not None:
            self._queue.close()
        until(lambda: not any(map(procs.alive, family)), LIMIT, "the worker and its rsyncs to end")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def begin_with(calls: list[tuple[str, int]], expected: list[tuple[str, int]]) -> bool:
    """Whether these are the calls. The last may be made again: to tidy, or for all of a full mirror."""
    return calls[: len(expected)] == expected and set(calls[len(expected) :]) <= {expected[-1]}


def fill(path: Path) -> bytes:
    """Write a file that takes longer than the test waits with the limit ``SLOW``."""
    content = os.urandom(8_000_000)
    path.write_bytes(content)
    return content


# A transfer that runs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("warm", [True, False])
def test_batch_on_its_way_goes_on_with_the_new_limit(rig: Rig, warm: bool) -> None:
    # Small files: a big one goes in the second lane.
    contents = {f"f{number:02}": os.urandom(200_000) for number in range(40)}
    for name, content in contents.items():
        (rig.src / name).write_bytes(content)
    process_before = rig.start(warm=warm)
    if warm:
        rig.until_warm()
    rig.send(*map(os.fsencode, contents))
    rig.until_in_transit("f*")
    assert rig.calls() == [("batch", SLOW)]
    rig.set(EVENING)
    done = rig.until_done()
    assert (done.code, done.reason) == (0, "")
    assert rig.reported() == [Throttled(0), done]
    assert {path.name: path.read_bytes() for path in rig.dst.iterdir()} == contents
    assert rig.calls()[:2] == [("batch", SLOW), ("batch", 0)]
    if warm:
        rig.until_warm()
        assert begin_with(rig.calls()[2:], [("batch", 0)])
    assert procs.alive(process_before)
    rig.order(NAP)
    rig.until(lambda: rig.title() == NAP.text, "what the master sends to be shown")


@pytest.mark.parametrize("warm", [True, False])
def test_big_file_on_its_way_begins_anew_with_the_new_limit(rig: Rig, warm: bool) -> None:
    content = fill(rig.src / "big")
    rig.start(warm=warm)
    if warm:
        rig.until_warm()
    rig.send(b"big", lane=Lane.SECOND)
    rig.until_in_transit("big")
    before = rig.calls()
    assert before == [("batch", SLOW)] * (1 + warm)
    rig.set(EVENING)
    done = rig.until_done()
    assert (done.code, done.reason) == (0, "")
    assert rig.reported() == [Throttled(0), done]
    assert (rig.dst / "big").read_bytes() == content
    assert [path.name for path in rig.dst.iterdir()] == ["big"]
    if warm:
        rig.until_warm()
    assert begin_with(rig.calls()[len(before) :], [("batch", 0)])


def test_full_mirror_goes_on_and_keeps_its_slot_and_its_files(rig: Rig) -> None:
    (rig.src / "a").write_text("arrives first")
    content = fill(rig.src / "big")
    rig.start(warm=False)
    rig.send()
    rig.until_in_transit("big")
    arrived = (rig.dst / "a").stat()
    rig.set(EVENING)
    done = rig.until_done()
    assert begin_with(rig.calls(), [("full", SLOW), ("full", 0)])
    assert rig.reported() == [Throttled(0), done], "no failure, and no slot asked for"
    assert (done.code, done.reason) == (0, "")
    assert (rig.dst / "big").read_bytes() == content
    assert (rig.dst / "a").stat().st_ino == arrived.st_ino
    assert sorted(path.name for path in rig.dst.iterdir()) == ["a", "big"]


def test_limit_begins_as_well_as_it_ends(rig: Rig) -> None:
    fill(rig.src / "big")
    rig.start("08:00,200 18:00,100 22:00,0", warm=False)
    rig.send()
    rig.until_in_transit("big")
    [first] = rig.in_transit("big")
    rig.set(EVENING)
    rig.until(lambda: rig.in_transit("big") not in ([], [first]), "the second transfer")
    assert rig.calls() == [("full", 200), ("full", 100)]
    rig.set("23:00")
    assert rig.until_done().code == 0
    assert begin_with(rig.calls(), [("full", 200), ("full", 100), ("full", 0)])
    assert rig.reported()[:-1] == [Throttled(100), Throttled(0)]


def test_transfer_that_ends_by_itself_at_the_switch_has_succeeded(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "KILL_AFTER_SECONDS", LIMIT)
    # On SIGTERM it does all its work and exits with 0, as if it had been about to end.
    rig.be_rsync(
        '[ $number != 1 ] || until [ "$told" ]; do sleep 0.01; done; trap - TERM',
        before="[ $number != 1 ] || trap told=1 TERM",
    )
    (rig.src / "f").write_text("content")
    for place in (rig.src, rig.dst):
        (place / "old").write_text("it is not empty")
    rig.start(warm=False)
    rig.send()
    rig.until(rig.calls, "the transfer")
    rig.set(EVENING)
    done = rig.until_done()
    # What is new goes by names. The run of the mirror after that has the new limit.
    assert rig.calls() == [("batch", SLOW), ("full", 0)]
    assert rig.reported() == [Throttled(0), done]
    assert (done.code, (rig.dst / "f").read_text()) == (0, "content")


def test_transfer_that_does_not_end_is_killed_and_its_file_removed(rig: Rig) -> None:
    rig.be_rsync("[ $number != 1 ] || exec sleep 1000", before="[ $number != 1 ] || trap '' TERM")
    (rig.src / "f").write_text("content")
    (rig.dst / ".f.ABCDEF").write_text("cont")
    rig.start(warm=False)
    rig.send(b"f")
    rig.until(rig.calls, "the transfer")
    rig.set(EVENING)
    done = rig.until_done()
    assert rig.reported() == [Throttled(0), done]
    assert begin_with(rig.calls(), [("batch", SLOW), ("batch", 0)])
    assert {path.name: path.read_text() for path in rig.dst.iterdir()} == {"f": "content"}


def test_switch_counts_neither_as_a_failure_nor_as_a_success(rig: Rig) -> None:
    rig.be_rsync('case "$number" in 1 | 3) exit 12 ;; 2) exec sleep 1000 ;; esac')
    (rig.src / "f").write_text("content")
    rig.start(warm=False)
    rig.send(b"f")
    rig.until(lambda: len(rig.calls()) == 2, "the second try")
    rig.set(EVENING)
    done = rig.until_done()
    first, switch, second, last = rig.reported()
    assert isinstance(first, Failed)
    assert isinstance(second, Failed)
    assert (first.attempt, second.attempt) == (1, 2)
    assert (switch, last) == (Throttled(0), done)
    assert begin_with(rig.calls(), [("batch", SLOW), ("batch", SLOW), ("batch", 0), ("batch", 0)])


def test_stopping_worker_lets_its_transfer_finish_unchanged(rig: Rig) -> None:
    go = rig.home / "go"
    rig.be_rsync(f"until [ -e {shlex.quote(str(go))} ]; do sleep 0.01; done")
    (rig.src / "f").write_text("content")
    before = rig.start(warm=False)
    rig.send(b"f")
    rig.until(rig.calls, "the transfer")
    rig.order(Stop(LIMIT))
    rig.set(EVENING)
    rig.until(lambda: "[stopping]" in rig.title(), "the worker to be ending")
    go.touch()
    until(lambda: not procs.alive(before), LIMIT, "the worker to end")
    assert rig.calls() == [("batch", SLOW)]
    assert (rig.dst / "f").read_text() == "content"
    rig.read()
    assert Throttled not in map(type, rig.reports)


def test_partial_dir_lets_the_file_go_on_where_it_was(rig: Rig) -> None:
    # As the documentation promises. Over a local path rsync would send whole files.
    content, log = fill(rig.src / "big"), rig.home / "log"
    extra = ("--partial-dir=.rsync-partial", "--no-whole-file", f"--log-file={log}")
    rig.start("08:00,500 18:00,0", warm=False, extra=extra)
    rig.send(b"big", lane=Lane.SECOND)
    rig.until(lambda: any(path.stat().st_size > 500_000 for path in rig.in_transit("big")), "half a megabyte")
    rig.set(EVENING)
    done = rig.until_done()
    assert rig.reported() == [Throttled(0), done]
    assert (done.code, (rig.dst / "big").read_bytes()) == (0, content)
    assert [path.name for path in rig.dst.iterdir()] == ["big"]
    sent = re.findall(r"sent ([\d,]+) bytes", log.read_text())
    first, second = (int(number.replace(",", "")) for number in sent)
    assert second < len(content) - 400_000, f"{first} bytes were sent before"


# Rsyncs that wait, and those to come ---------------------------------------------------------------------


def test_warm_rsync_is_replaced_at_the_switch(rig: Rig) -> None:
    before = rig.start()
    first = rig.until_warm()
    rig.set(EVENING)
    rig.until_warm()
    rig.until(lambda: not procs.alive(first), "the first to end")
    assert rig.reported() == [Throttled(0)]
    assert rig.calls() == [("batch", SLOW), ("batch", 0)]
    rig.set(DAY)
    assert "--bwlimit=100" in procs.title(rig.until_warm().pid)
    (rig.src / "f").write_text("content")
    rig.send(b"f")
    done = rig.until_done()
    assert rig.calls()[:3] == [("batch", SLOW), ("batch", 0), ("batch", SLOW)]
    assert rig.reported() == [Throttled(0), Throttled(SLOW), done]
    assert (done.code, (rig.dst / "f").read_text()) == (0, "content")
    assert procs.alive(before)


def test_change_without_a_warm_rsync_is_sent_with_the_current_limit(rig: Rig) -> None:
    rig.start(warm=False)
    for number, clock in enumerate((DAY, EVENING, DAY), 1):
        rig.set(clock)
        (rig.src / "f").write_text(clock)
        rig.send(b"f")
        rig.until_done(number)
        assert (rig.dst / "f").read_text() == clock
    assert rig.calls() == [("batch", SLOW), ("batch", 0), ("batch", SLOW)]


# All of it -----------------------------------------------------------------------------------------------


def zone(clock: str, seconds: int) -> str:
    """Return a time zone in which it will be this time in so many seconds (tzset(3))."""
    hour, minute = map(int, clock.split(":"))
    ahead = (hour * 3600 + minute * 60 - seconds - int(time.time())) % 86_400
    return f"<TEST>-{ahead // 3600:02d}:{ahead // 60 % 60:02d}:{ahead % 60:02d}"


def waiting(daemon: Daemon, node: str) -> Process | None:
    """Return the warm rsync of a node whose full mirror is done."""
    if f"{node}: full mirror in" in daemon.log():
        for pid in daemon.rsyncs(node):
            found = procs.look(pid)
            if found is not None and "--files-from=-" in procs.title(pid):
                return found
    return None


Before = tuple[dict[str, int], Process, Process]


def before_noon(daemon: Daemon, copy: Path) -> Before | None:
    """Wait until a's transfer runs with its limit and b and c have warm rsyncs.

    Returns the workers and the warm rsyncs of b and c, or None if noon came first.
    """
    found: list[Before] = []

    def look() -> bool:
        b, c = waiting(daemon, "b"), waiting(daemon, "c")
        if b and c and list(copy.glob(".big.??????")) and limits(daemon, "a") == {"100"}:
            found[:] = [(daemon.workers(), b, c)]
        return bool(found) or "rspeed is now" in daemon.log()

    until(look, LIMIT, "the transfers")
    return found[0] if found and "rspeed is now" not in daemon.log() else None


def limits(daemon: Daemon, node: str) -> set[str]:
    """Return the limits of the rsyncs that run for a node."""
    titles = " ".join(map(procs.title, daemon.rsyncs(node)))
    return set(re.findall(r"--bwlimit=(\d+)", titles))


def test_daemon_follows_the_clock_and_restarts_only_rsyncs(tmp_path: Path, daemon: MakeDaemon) -> None:
    tree, copies = tmp_path / "tree", {name: tmp_path / "nodes" / name for name in "abc"}
    tree.mkdir()
    fill(tree / "big")
    settings: dict[str, object] = {
        "wpaths": [str(tree)],
        "rpaths": ["tree"],
        "edelay": 0.2,
        "equiet": 0.02,
        "rspeed": "11:00,100 12:00,0",
        "rnodes": [
            {"node": f"{copies['a']}/", "name": "a"},
            {"node": f"{copies['b']}/", "name": "b", "rspeed": 70_000},
            {"node": f"{copies['c']}/", "name": "c", "rspeed": "12:00,80000 11:00,90000"},
        ],
    }
    # On a busy machine not all of this may have begun by noon; then the next round has more time.
    for seconds in (5, 20, 80):
        for copy in copies.values():
            shutil.rmtree(copy, ignore_errors=True)
            copy.mkdir(parents=True)
        one = daemon(settings, env={"TZ": zone("12:00", seconds)})
        one.start()
        if before := before_noon(one, copies["a"] / "tree"):
            break
        one.stop()
    else:
        raise AssertionError("never was all of it there by noon")
    states: list[str] = []

    def done() -> bool:
        states.append(one.state("a"))
        return states[-1] == "ok"

    until(done, LIMIT + seconds, "the node to be level")
    assert set(states) <= {"full", "ok"}
    assert not trees.diff(trees.snapshot(tree), trees.snapshot(copies["a"] / "tree"))
    until(lambda: limits(one, "c") == {"80000"}, LIMIT, "the rsync that waits to be replaced")
    one.until_logged(r"a: full mirror in")
    one.until_logged(r"c: rspeed")
    lines = re.findall(r"INFO: (\w: rspeed .*)", one.log())
    assert sorted(lines) == ["a: rspeed is now 0: no limit", "c: rspeed is now 80000 KB/s"]
    assert not re.search("WARNING|ERROR", one.log())
    workers, for_b, for_c = before
    assert one.workers() == workers
    until(lambda: not procs.alive(for_c), LIMIT, "the one before to end")
    assert procs.alive(for_b)
    assert (limits(one, "a"), limits(one, "b")) == (set(), {"70000"})
