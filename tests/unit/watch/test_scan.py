"""What a scan of one directory watches, records and queues."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.watched_tree import TREE, Clock, Recorder, listing

from inosync.system import entries
from inosync.watch import scan
from inosync.watch.inotify import Inotify, InotifyError
from inosync.watch.scan import Scanner
from inosync.watch.tree import Directory, Root
from inosync.watch.unwatched import NO_WATCHES
from inosync.watch.watches import Watches


class World:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.recorder, self.inotify = Recorder(), Inotify()
        self.watches = Watches(self.inotify)
        self.scanner = Scanner(self.watches, self.recorder, lambda _root, _why: None, Clock())
        self.root = Root(TREE, str(home), 0, lambda path, _is_directory: path.endswith(b"x"))
        self.root.identity = entries.identity(self.root.path)
        self.root.full_walk = False

    def scan(self, directory: Directory, refilter: bool = False, poll: bool = False) -> None:
        self.scanner.begin_slice(float("inf"))
        for _ in self.scanner.scan(directory, refilter, poll):
            pass
        self.scanner.end_slice()

    def queued(self) -> set[bytes]:
        """Return the names of the directories that are queued, and empty the queue."""
        found, self.root.walk = {each.name for each in self.root.walk}, []
        return found


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    # Otherwise directories without others in them need no scan of their own.
    monkeypatch.setattr(scan, "counts_subdirectories", lambda _fd: False)
    for name in ("a", "b", "x"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("a")
    made = World(tmp_path)
    yield made
    made.inotify.close()


def test_scan_watches_records_and_queues(world: World) -> None:
    world.scan(world.root)
    assert world.watches.by_wd == {world.root.wd: world.root}
    assert world.recorder.take() == [listing(b"")]
    assert world.queued() == {b"a", b"b"}


def test_scan_records_nothing_while_the_whole_tree_is_walked(world: World) -> None:
    world.root.full_walk = True
    world.scan(world.root)
    assert world.recorder.take() == []
    assert world.queued() == {b"a", b"b"}


def test_scan_for_new_rules_records_nothing_and_queues_what_is_watched(world: World) -> None:
    world.scan(world.root)
    a = world.root.at(b"a")
    assert a is not None
    world.scan(a)
    world.recorder.take()
    world.queued()
    world.root.refilter = []
    world.scan(world.root, refilter=True)
    assert world.recorder.take() == []
    assert world.root.refilter == [a]
    assert world.queued() == {b"b"}


def test_scan_of_an_unwatched_directory_records_it_only_if_it_has_changed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_self: Inotify, _directory: int, _mask: int) -> int:
        raise InotifyError(errno.ENOSPC, "no space")

    monkeypatch.setattr(Inotify, "add", refused)
    monkeypatch.setattr(scan, "_CLOCK_TICK_NS", -1_000_000_000)
    world.scan(world.root)
    assert world.recorder.take() == [listing(b"")]
    assert world.watches.unwatched.of([TREE]) == (1, NO_WATCHES)
    world.queued()
    world.scan(world.root, poll=True)
    assert world.recorder.take() == []
    (world.home / "new").mkdir()
    world.scan(world.root, poll=True)
    assert world.recorder.take() == [listing(b"")]
    assert world.queued() == {b"new"}


def test_scan_of_what_has_gone_detaches_it(world: World) -> None:
    gone = world.root.new_kid(b"gone")
    world.scan(gone)
    assert gone.parent is None
    assert world.watches.has_to_end
    assert world.watches.unwatched.of(None) == (0, "")


def test_scan_of_what_cannot_be_read_counts_it_as_unreadable(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, opened = world.root.new_kid(b"a"), os.open

    def denied(path: str | bytes, *args: int, **more: int) -> int:
        if path == b"a":
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, *args, **more)

    monkeypatch.setattr(os, "open", denied)
    world.scan(a)
    assert world.watches.unwatched.of([TREE]) == (1, "Permission denied")
    assert world.watches.unwatched.unreadable([TREE]) == 1
    assert a.parent is world.root


def test_scan_takes_a_watch_from_the_place_its_directory_has_left(world: World) -> None:
    a = world.root.new_kid(b"a")
    world.scan(a)
    (world.home / "a").rename(world.home / "n")
    n = world.root.new_kid(b"n")
    world.scan(n)
    assert world.watches.by_wd == {n.wd: n}
    assert a.wd == -1
    assert world.queued() == {b"a"}


@pytest.mark.parametrize("one_file_system", [True, False])
def test_scan_leaves_another_file_system_only_if_the_tree_ends_there(
    world: World, one_file_system: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = world.root.new_kid(b"a")
    device, inode = entries.identity(world.root.path)
    monkeypatch.setattr("inosync.watch.tree._open_root", lambda root: os.open(root.path, os.O_RDONLY))
    world.root.identity, world.root.one_file_system = (device + 1, inode), one_file_system
    world.scan(a)
    assert (a.parent is None) is one_file_system
    assert (a.wd == -1) is one_file_system


def test_is_in_place_knows_a_directory_that_was_replaced(world: World) -> None:
    a = world.root.new_kid(b"a")
    assert not world.scanner.is_in_place(world.root, a), "it is not watched"
    world.scan(a)
    assert world.scanner.is_in_place(world.root, a)
    (world.home / "a").rename(world.home / "n")
    assert not world.scanner.is_in_place(world.root, a)
    (world.home / "a").mkdir()
    assert not world.scanner.is_in_place(world.root, a)
