"""Comparisons of a tree with its copy: a fake rsync tells the differences, the loop is real."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from inosync.changes import Source
from inosync.config.timetable import constant
from inosync.nodes.messages import Compare, Compared
from inosync.rsync.argv import TransferSettings
from inosync.system import spool
from inosync.system.loop import Loop
from inosync.worker.calls import RsyncCalls
from inosync.worker.compare import Comparisons, Found
from inosync.worker.job import Job

LIMIT_SECONDS = 60.0


class Calls:
    """In place of ``RsyncCalls``."""

    def __init__(self, settings: TransferSettings) -> None:
        self._settings = settings
        self.direct: list[bool] = []

    def settings(self, _tree: int, is_direct: bool = False) -> TransferSettings:
        self.direct.append(is_direct)
        return self._settings


class Bench:
    """A tree, a script that is called instead of rsync, and what was reported."""

    def __init__(self, home: Path, script: str, timeout: float = 60.0) -> None:
        self.loop, self.home = Loop(), home
        self.src = home / "src"
        self.src.mkdir()
        (self.src / "file").write_text("x")
        rsync = home / "rsync"
        rsync.write_text(f"#!/bin/sh\ncd '{self.src}'\n{script}\n")
        rsync.chmod(0o755)
        self.reports: list[Compared] = []
        settings = TransferSettings(str(rsync), str(self.src), str(home / "dst"))
        self.calls = Calls(settings)
        excluded = {1: lambda _path, _is_directory: False}
        job = Job("n", "n", {1: settings}, {}, constant(0), excluded, timeout, (1.0, 2.0), False, str(home))
        self.comparisons = Comparisons(job, cast(RsyncCalls, self.calls), self.reports.append, self.loop)

    def order(self, number: int = 1) -> Compare:
        root = self.src.stat()
        return Compare(number, 1, Source((root.st_dev, root.st_ino), True), False)

    def until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + LIMIT_SECONDS
        while not condition():
            assert time.monotonic() < end, self.reports
            self.loop.turn(0.05)
            self.comparisons.check()

    def end(self) -> None:
        self.comparisons.cancel()
        self.until(lambda: not self.comparisons.pids)

    def result(self) -> Compared:
        self.until(lambda: self.reports)
        (found,) = self.reports
        return found


Make = Callable[..., Bench]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Make a bench. All that it has started has ended before the next test."""
    made: list[Bench] = []

    def one(script: str, timeout: float = 60.0) -> Bench:
        made.append(Bench(tmp_path, script, timeout))
        return made[-1]

    yield one
    for bench in made:
        bench.end()


def test_differences_are_counted_and_reported(make: Make) -> None:
    lines = [b"inosync:>f..t...... file", b"inosync:*deleting   gone"]
    said = " ".join(f"'{line.decode()}'" for line in lines)
    bench = make(f"cat >/dev/null; printf '%s\\n' {said} 'something else'")
    bench.comparisons.start(bench.order())
    found = bench.result()
    assert (found.count, spool.unpack(found.payload, found.file)) == (2, tuple(lines))


def test_comparison_without_differences_is_reported(make: Make) -> None:
    bench = make("cat >/dev/null")
    bench.comparisons.start(bench.order())
    assert bench.comparisons.is_running
    found = bench.result()
    assert (found.id, found.reason, found.held, found.count) == (1, "", False, 0)
    assert bench.calls.direct == [True], "it must not take a session of the shared connection"
    assert not bench.comparisons.is_running


def test_failed_comparison_is_reported_with_its_reason(make: Make) -> None:
    bench = make("cat >/dev/null; echo 'rsync: connection refused' >&2; exit 10")
    bench.comparisons.start(bench.order())
    found = bench.result()
    assert "connection refused" in found.reason
    assert not found.held


def test_rsync_that_ends_before_it_is_connected_has_compared_nothing(make: Make) -> None:
    bench = make("exit 0")
    bench.comparisons.start(bench.order())
    assert bench.result().reason


def test_rsync_that_cannot_be_started_is_reported(make: Make, tmp_path: Path) -> None:
    bench = make("")
    (tmp_path / "rsync").unlink()
    bench.comparisons.start(bench.order())
    assert "No such file or directory" in bench.result().reason


def test_tree_with_another_root_is_held(make: Make, tmp_path: Path) -> None:
    bench = make("cat >/dev/null")
    order = bench.order()
    bench.src.rename(tmp_path / "moved")
    bench.src.mkdir()
    bench.comparisons.start(order)
    assert bench.result().held
    assert not bench.comparisons.is_running


def test_root_that_is_replaced_while_rsync_connects_is_held(make: Make, tmp_path: Path) -> None:
    bench = make(f"until [ -e '{tmp_path}/go' ]; do sleep 0.02; done; cat >/dev/null")
    bench.comparisons.start(bench.order())
    (bench.src / "file").unlink()
    (tmp_path / "go").touch()
    assert bench.result().held


def test_cancelled_comparison_is_not_reported_and_ends(make: Make) -> None:
    bench = make("cat >/dev/null; exec sleep 1000")
    bench.comparisons.start(bench.order())
    (pid,) = bench.comparisons.pids
    bench.comparisons.cancel()
    assert not bench.comparisons.is_running
    assert bench.comparisons.pids == [pid], "known until it has ended"
    bench.until(lambda: not bench.comparisons.pids)
    assert bench.reports == []


def test_comparison_that_is_in_the_way_fails_with_the_reason_given(make: Make) -> None:
    bench = make("cat >/dev/null; exec sleep 1000")
    bench.comparisons.start(bench.order(5))
    bench.comparisons.fail("in the way")
    assert bench.reports == [Compared(5, "in the way")]
    bench.until(lambda: not bench.comparisons.pids)


def test_restarted_comparison_is_the_same_with_another_rsync(make: Make, tmp_path: Path) -> None:
    first = f"[ -e '{tmp_path}/second' ] || {{ touch '{tmp_path}/second'; exec sleep 1000; }}"
    bench = make(f"{first}; cat >/dev/null")
    bench.comparisons.start(bench.order(5))
    bench.until((tmp_path / "second").exists)
    bench.comparisons.restart()
    assert len(bench.comparisons.pids) == 2
    assert bench.result() == Compared(5, payload=bench.reports[0].payload)


def test_comparison_without_progress_is_ended(make: Make) -> None:
    bench = make("cat >/dev/null; exec sleep 1000", timeout=0.5)
    bench.comparisons.start(bench.order())
    assert "no progress" in bench.result().reason


def test_names_are_compared_by_themselves_over_the_shared_connection(make: Make, tmp_path: Path) -> None:
    bench = make(f"tr '\\0' '\\n' >{tmp_path}/names; echo 'inosync:<f+++++++++ a'; echo other")
    found: list[Found] = []
    bench.comparisons.compare_names(1, bench.order().source, (b"a", b"#b"), found.append)
    bench.until(lambda: found)
    assert found == [Found(count=1, lines=(b"inosync:<f+++++++++ a",))]
    assert (tmp_path / "names").read_text().split() == ["a", "./#b"]
    assert (bench.reports, bench.calls.direct) == ([], [False])


def test_comparison_of_a_tree_takes_the_place_of_one_of_names(make: Make) -> None:
    bench = make('case "$*" in *--dirs*) exec sleep 1000;; esac; cat >/dev/null')
    found: list[Found] = []
    bench.comparisons.compare_names(1, None, (b"a",), found.append)
    bench.comparisons.start(bench.order())
    assert bench.result().reason == ""
    assert found == []
