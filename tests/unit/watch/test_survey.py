"""What has changed is found by the watcher and its scouts, or by the watcher alone if they are of no use."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import procs
from support.wait import until
from support.watched_tree import TREE, Call, Clock, Recorder, name

from inosync.changes import Kind
from inosync.system import entries, process
from inosync.watch import recorder, scout, shares
from inosync.watch.inotify import Inotify
from inosync.watch.scan import Scanner
from inosync.watch.survey import Survey
from inosync.watch.tree import Root, Since
from inosync.watch.watches import Watches

TICK_SECONDS = 0.03
"""Longer than a tick of the clock that the kernel takes ctimes from."""
DIRECTORIES = 40


class World:
    """A tree in which each fifth directory has a file that has changed."""

    def __init__(self, home: Path) -> None:
        self.path = home
        for number in range(DIRECTORIES):
            (home / f"d{number}").mkdir()
            for file in ("old", "changed"):
                (home / f"d{number}" / file).touch()
        time.sleep(TICK_SECONDS)
        self.recorder, self.inotify = Recorder(), Inotify()
        scanner = Scanner(Watches(self.inotify), self.recorder, lambda _root, _why: None, Clock())
        self.scanner = scanner
        self.root = Root(TREE, str(home), 0, lambda path, _is_directory: path.startswith(b"d15/"))
        self.root.identity = entries.identity(str(home))
        self.since = Since(time.time_ns(), self.root.identity, frozenset({self.root.identity[0]}))
        self.root.since = self.since
        self.since.unchanged += [self.root.new_kid(b"d%d" % number) for number in range(DIRECTORIES)]
        time.sleep(TICK_SECONDS)
        for number in range(0, DIRECTORIES, 5):
            (home / f"d{number}/changed").write_text("new")
        self.survey = Survey(self.root, self.since, scanner, list)

    def run(self) -> int:
        """Look at all that is left; return how many directories that were."""
        count = 0
        while not self.survey.is_over() and (scan := self.survey.step()):
            count += 1
            for _ in scan:
                pass
        return count

    def found(self) -> set[Call]:
        return set(self.recorder.take())


EXPECTED = {name(b"d%d/changed" % number) for number in range(0, DIRECTORIES, 5) if number != 15}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(shares, "MIN_ITEMS", 10)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2, 3})
    made = World(tmp_path)
    yield made
    made.survey.end()
    made.inotify.close()


def pids(world: World) -> list[int]:
    return [each.pid for each in world.survey._scouts]


def has_ended(pid: int) -> bool:
    found = procs.look(pid)
    return found is None or found.state in "ZX"


def wait_for_ends(world: World) -> None:
    """Wait until scouts have reported all that they will."""
    until(lambda: all(map(has_ended, pids(world))), 30, "the scouts")


def hang(_directory: int, _after: int) -> Iterator[list[bytes]]:
    time.sleep(600)
    yield []


def test_survey_records_what_scouts_have_found(world: World) -> None:
    wait_for_ends(world)
    assert world.run() == 0
    assert world.found() == EXPECTED


def test_survey_shares_the_work_and_ends_its_scouts(world: World) -> None:
    scouts = pids(world)
    assert len(scouts) == 3
    world.run()
    assert world.found() == EXPECTED
    world.survey.end()
    assert world.survey.descriptors() == []
    assert not any(map(procs.look, scouts))


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> World:
    monkeypatch.setattr(scout, "changed_files", hang)
    made: World = request.getfixturevalue("world")
    return made


def test_survey_waits_for_no_scout_that_hangs(hanging: World, caplog: pytest.LogCaptureFixture) -> None:
    assert hanging.run() == DIRECTORIES
    assert hanging.found() == EXPECTED
    assert "has ended" not in caplog.text


def test_survey_does_the_part_of_a_scout_that_dies(hanging: World, caplog: pytest.LogCaptureFixture) -> None:
    first, *_ = pids(hanging)
    os.kill(first, signal.SIGKILL)
    until(lambda: has_ended(first), 30, "its end")
    assert hanging.run() == DIRECTORIES
    assert hanging.found() == EXPECTED
    line = (
        f"{hanging.path}: process {first}, which looked for changes, too, has ended: its share is done here"
    )
    assert [record.message for record in caplog.records] == [line]


def test_survey_goes_without_scouts_that_cannot_be_started(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    def refused(*_args: object) -> None:
        raise BlockingIOError("no process left")

    monkeypatch.setattr(process, "fork", refused)
    world: World = request.getfixturevalue("world")
    assert pids(world) == []
    assert world.run() == DIRECTORIES
    assert world.found() == EXPECTED


def test_survey_looks_where_a_scout_could_not(world: World) -> None:
    wait_for_ends(world)
    for each, share in zip(world.survey._scouts, world.survey._shares, strict=True):
        each.read = lambda share=share, each=each: _unread(share, each)  # type: ignore[method-assign, misc]
    assert world.run() == DIRECTORIES
    assert world.found() == EXPECTED


def _unread(share: shares.Stretch, each: scout.Scout) -> Iterator[tuple[int, None]]:
    for number in range(share.end - 1, share.first - 1, -1):
        share.left = number
        yield number, None
    each.has_ended = True


def test_survey_is_over_once_times_are_not_trusted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "_FUTURE_NS", -3_600_000_000_000)
    world.run()
    assert world.survey.is_over()
    assert world.root.since is None


def test_survey_records_a_directory_under_the_name_that_it_has_now(world: World) -> None:
    wait_for_ends(world)
    kid = world.root.kid(b"d5")
    assert kid is not None
    world.root.attach(kid, b"e5")
    (world.path / "d5").rename(world.path / "e5")
    gone = world.root.kid(b"d10")
    assert gone is not None
    gone.detach()
    world.run()
    expected = EXPECTED - {name(b"d5/changed"), name(b"d10/changed")} | {name(b"e5/changed")}
    assert world.found() == expected


def test_survey_leaves_to_events_what_has_gone(hanging: World) -> None:
    (hanging.path / "d5").rename(hanging.path.parent / "d5")
    (hanging.path / "d5").symlink_to(hanging.path.parent / "d5")
    hanging.run()
    assert hanging.found() == EXPECTED - {("record", TREE, b"d5/changed", Kind.NAME)}
