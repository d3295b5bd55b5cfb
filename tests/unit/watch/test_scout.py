"""A scout reports what has changed, and never holds up or outlives the process that has sent it out."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import procs
from support.wait import until

from inosync.watch import scout
from inosync.watch.scout import Scout
from inosync.watch.shares import Stretch
from inosync.watch.tree import Directory, Root

TICK_SECONDS = 0.03
"""Longer than a tick of the clock that the kernel takes ctimes from."""
Reports = dict[int, list[bytes] | None]


class World:
    """A tree of directories that are numbered as they are made."""

    def __init__(self, home: Path) -> None:
        self.path = home / "tree"
        self.path.mkdir()
        self.root = Root(1, str(self.path), 0, lambda _path, _is_directory: False)
        self.directories: list[Directory] = [self.root]
        self.scouts: list[Scout] = []
        self.after = 0

    def make(self, count: int) -> None:
        for number in range(count):
            (self.path / f"d{number}/kid").mkdir(parents=True)
            (self.path / f"d{number}/old").touch()
            self.directories.append(self.root.new_kid(b"d%d" % number))
        time.sleep(TICK_SECONDS)
        self.after = time.time_ns()
        time.sleep(TICK_SECONDS)

    def send(self, first: int = 0) -> Scout:
        share = Stretch(first, len(self.directories), len(self.directories))
        self.scouts.append(Scout(self.directories, share, self.after, [], "scout"))
        return self.scouts[-1]


def read_all(found: Scout) -> Reports:
    """Return all that a scout reports."""
    reports: Reports = {}
    while not found.has_ended:
        assert select.select([found.fd], [], [], 30)[0], "nothing came for long"
        reports |= dict(found.read())
    return reports


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    for each in made.scouts:
        each.end()


def hang(_directory: int, _after: int) -> Iterator[list[bytes]]:
    time.sleep(600)
    yield []


def test_scout_reports_each_directory_of_its_part_from_the_last_on(world: World) -> None:
    world.make(5)
    for name in (b"new", b"\xff\n#", b" "):
        Path(os.fsdecode(bytes(world.path) + b"/d3/" + name)).touch()
    (world.path / "d4/kid").chmod(0o700)
    sent = world.send(first=2)
    reports = read_all(sent)
    assert list(reports) == [5, 4, 3, 2]
    assert {number: set(names or ()) for number, names in reports.items() if names} == {
        4: {b"new", b"\xff\n#", b" "}
    }
    assert sent.share == Stretch(2, 6, 2)


def test_scout_reports_more_than_a_pipe_holds(world: World) -> None:
    world.make(1)
    names = {b"%0200d" % number for number in range(1_000)}
    for name in names:
        (world.path / "d0" / os.fsdecode(name)).touch()
    assert {number: set(found or ()) for number, found in read_all(world.send()).items()} == {
        1: names,
        0: set(),
    }


def test_scout_follows_no_symlink_and_leaves_what_it_cannot_read(world: World, tmp_path: Path) -> None:
    world.make(3)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").touch()
    (world.path / "d0").rename(tmp_path / "away")
    (world.path / "d0").symlink_to(tmp_path / "outside")
    (world.path / "d1").rename(tmp_path / "gone")
    assert read_all(world.send()) == {3: [], 2: None, 1: None, 0: [b"d0"]}


def test_scout_that_is_killed_is_known_to_have_ended(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.make(1)
    monkeypatch.setattr(scout, "changed_files", hang)
    sent = world.send()
    os.kill(sent.pid, signal.SIGKILL)
    assert read_all(sent) == {}
    assert sent.share.left == sent.share.end


@pytest.mark.parametrize("number", [signal.SIGCONT, signal.SIGSTOP])
def test_scout_that_hangs_or_is_stopped_can_be_ended(
    number: signal.Signals, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.make(1)
    monkeypatch.setattr(scout, "changed_files", hang)
    sent = world.send()
    os.kill(sent.pid, number)
    assert dict(sent.read()) == {}
    assert not sent.has_ended
    pid = sent.pid
    world.scouts.clear()
    sent.end()
    # On a busy machine a killed process may take longer than ``end`` waits for it; then nobody collects it.
    until(lambda: (found := procs.look(pid)) is None or found.state == "Z", 30, "its end")


def test_scout_ends_with_the_process_that_has_sent_it(tmp_path: Path) -> None:
    program = """
import sys, time
from pathlib import Path
import test_scout
from inosync.watch import scout
world = test_scout.World(Path(sys.argv[1]))
scout.changed_files = test_scout.hang
print(world.send().pid, flush=True)
time.sleep(600)
"""
    paths = os.pathsep.join((str(Path(__file__).parent), *filter(None, sys.path)))
    master = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert master.stdout is not None
    pid = int(master.stdout.readline())
    sent = procs.look(pid)
    assert sent is not None
    master.kill()
    master.wait()
    master.stdout.close()
    until(lambda: not procs.alive(sent), 30, "the end of the scout")
