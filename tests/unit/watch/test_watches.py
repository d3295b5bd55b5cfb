"""Which directory a watch is on, and how watches end, over the kernel's inotify."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from inosync.watch.inotify import Inotify, InotifyError
from inosync.watch.tree import Directory, Root
from inosync.watch.unwatched import NO_WATCHES
from inosync.watch.watches import Watches, reason


class World:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.inotify = Inotify()
        self.watches = Watches(self.inotify)
        self.root = Root(1, str(home), 0, lambda _path, _is_directory: False)

    def add(self, name: str) -> Directory:
        """Make a directory and watch it."""
        (self.home / name).mkdir()
        directory = self.root.new_kid(name.encode())
        self.watches.hold(directory, self.watches.add(self.open(name), self.root))
        return directory

    def open(self, name: str) -> int:
        fd = os.open(self.home / name, os.O_RDONLY)
        self.opened.append(fd)
        return fd

    opened: list[int]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    made.opened = []
    yield made
    made.inotify.close()
    for fd in made.opened:
        os.close(fd)


def test_wd_of_finds_only_watched_directories_and_watches_none(world: World) -> None:
    a = world.add("a")
    (world.home / "b").mkdir()
    assert world.watches.wd_of(world.open("a"), world.root) == a.wd
    assert world.watches.wd_of(world.open("b"), world.root) == -1
    world.inotify.read()
    (world.home / "b/f").touch()
    assert world.inotify.read() == b""


def test_hold_ends_the_former_watch_of_a_directory(world: World) -> None:
    a = world.add("a")
    former = a.wd
    (world.home / "b").mkdir()
    world.watches.hold(a, world.watches.add(world.open("b"), world.root))
    assert world.watches.by_wd == {a.wd: a}
    assert former != a.wd


def test_hold_counts_a_directory_as_watched(world: World) -> None:
    a = world.add("a")
    world.watches.unwatched.add(a, 1, "/tree", b"a", NO_WATCHES, 0.0)
    world.watches.hold(a, a.wd)
    assert a not in world.watches.unwatched


def test_detached_directories_are_unwatched_with_all_below_them(world: World) -> None:
    a, b = world.add("a"), world.add("b")
    a.attach(b, b"b")
    a.detach()
    world.watches.end_later(a)
    ended = 0
    while world.watches.has_to_end:
        world.watches.end_next()
        ended += 1
    assert ended == 2
    assert world.watches.by_wd == {}
    assert (a.wd, b.wd) == (-1, -1)


def test_directory_that_has_come_back_keeps_its_watch(world: World) -> None:
    a = world.add("a")
    a.detach()
    world.watches.end_later(a)
    world.root.attach(a, b"n")
    world.watches.end_next()
    assert world.watches.by_wd == {a.wd: a}


def test_reason_names_the_limit_only_for_inotify_itself() -> None:
    assert reason(InotifyError(errno.ENOSPC, "No space left on device")) == NO_WATCHES
    assert reason(OSError(errno.ENOSPC, "No space left on device")) == "No space left on device"
    assert reason(OSError("odd")) == "odd"


def test_log_unwatched_says_how_many_why_and_what_helps(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    a = Directory(b"a")
    world.watches.unwatched.add(a, 1, "/tree", b"a", NO_WATCHES, 0.0)
    world.watches.log_unwatched()
    world.watches.log_unwatched()
    [line] = caplog.messages
    assert line.startswith("/tree: 1 directory is not watched, such as a: no watches left: sysctl ")
    world.watches.unwatched.discard(a)
    world.watches.log_unwatched()
    assert caplog.messages[1:] == ["/tree: all directories are watched again: no watches left"]
