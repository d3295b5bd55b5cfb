"""A watcher over the kernel's inotify, driven as by the master's loop, and the changes it records."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from inosync.changes import Change, Kind, Rename, Step
from inosync.watch import inotify
from inosync.watch.event_handler import MOVE_WAIT_SECONDS
from inosync.watch.hardlinks import HardLinks
from inosync.watch.inotify import Event, Inotify, InotifyError
from inosync.watch.open_files import CLOSE_WAIT_SECONDS
from inosync.watch.watcher import CHECK_SECONDS, Watcher

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
TREE = 7
EVENTS = frozenset(("IN_CLOSE_WRITE", "IN_CREATE", "IN_DELETE", "IN_MOVED_FROM", "IN_MOVED_TO", "IN_ATTRIB"))

Call = tuple[str, int, bytes, Kind | None]


class Clock:
    """A clock that stands still, or moves by ``tick`` seconds each time it is read."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.tick = 0.0

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


class Recorder:
    """A change listener that records its calls."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.renames: list[tuple[bytes, bytes, bool]] = []
        self.departures: list[bytes] = []
        self.steps: list[tuple[bytes, Step]] = []
        """The step of each call that is about a path."""

    def record(self, change: Change, now: float) -> None:
        assert now >= 1000
        self.calls.append(("record", change.tree, change.path, change.kind))
        self.steps.append((change.path, change.step))

    def gone(self, tree: int, path: bytes, now: float, step: Step = Step.REMOVED) -> None:
        assert now >= 1000
        self.steps.append((path, step))
        self.calls.append(("gone", tree, path, None))

    def directory_left(self, tree: int, path: bytes) -> None:
        assert self.calls[-1] == ("gone", tree, path, None)
        self.departures.append(path)

    def renamed(self, tree: int, rename: Rename) -> None:
        assert tree == TREE
        self.renames.append((rename.old, rename.new, rename.is_directory))

    def walked(self, tree: int, now: float) -> None:
        assert now >= 1000
        self.calls.append(("walked", tree, b"", None))

    def caught_up(self, tree: int, now: float) -> None:
        assert now >= 1000
        self.calls.append(("caught_up", tree, b"", None))

    def refiltered(self, tree: int, now: float) -> None:
        assert now >= 1000
        self.calls.append(("refiltered", tree, b"", None))

    def lost(self, tree: int, why: str) -> None:
        assert why
        self.calls.append(("lost", tree, b"", None))

    def take(self) -> list[Call]:
        """Return the calls since the last ``take``."""
        calls, self.calls = self.calls, []
        return calls


def name(path: bytes) -> Call:
    return ("record", TREE, path, Kind.NAME)


def listing(path: bytes) -> Call:
    return ("record", TREE, path, Kind.LIST)


def gone(path: bytes) -> Call:
    return ("gone", TREE, path, None)


WALKED: Call = ("walked", TREE, b"", None)
CAUGHT_UP: Call = ("caught_up", TREE, b"", None)
LOST: Call = ("lost", TREE, b"", None)
REFILTERED: Call = ("refiltered", TREE, b"", None)


class Field:
    """A tree, a directory outside of it, and a watcher driven as by the master's loop."""

    def __init__(self, home: Path) -> None:
        self.root = home / "tree"
        self.outside = home / "outside"
        self.root.mkdir()
        self.outside.mkdir()
        self.clock = Clock()
        self.listener = Recorder()
        self.links = HardLinks(self.listener, self.clock)
        self.watcher = Watcher(self.links, self.clock)

    def add(
        self,
        excluded: Callable[[bytes, bool], bool] = lambda _path, _is_directory: False,
        events: frozenset[str] = EVENTS,
    ) -> None:
        """Watch the tree, and finish the walk."""
        self.watcher.roots.add(TREE, str(self.root), events, excluded)
        self.settle()
        assert self.take() == [WALKED]

    def settle(self) -> None:
        """Let the watcher do all it can do now."""
        for _ in range(100_000):
            if not self.watcher.read() and self.watcher.is_idle:
                return
            self.watcher.work(0.01)
        raise AssertionError("the watcher never comes to rest")

    def later(self, seconds: float) -> None:
        """Let time pass, and let the watcher do what has become due."""
        self.settle()
        self.clock.now += seconds
        if self.clock.now >= self.watcher.deadline():
            self.watcher.run_due()
        self.settle()

    def calm(self) -> None:
        """Let so much time pass that no timer of the watcher is pending."""
        for _ in range(3):
            self.later(max(CLOSE_WAIT_SECONDS, MOVE_WAIT_SECONDS, CHECK_SECONDS) + 0.1)

    def take(self) -> list[Call]:
        return self.listener.take()

    def recorded(self) -> set[Call]:
        """Return the calls that the last changes have caused."""
        self.settle()
        return set(self.take())

    def watched(self) -> set[int]:
        """Return the inodes that the kernel watches."""
        return set(self.masks())

    def masks(self) -> dict[int, int]:
        """Return the masks of the kernel's watches by inode (proc(5), fdinfo)."""
        text = Path(f"/proc/self/fdinfo/{self.watcher.fileno()}").read_text()
        found = re.findall(r"^inotify wd:\w+ ino:(\w+) sdev:\w+ mask:(\w+)", text, re.MULTILINE)
        return {int(inode, 16): int(mask, 16) for inode, mask in found}


def write(path: Path | bytes, content: bytes = b"content") -> None:
    with open(path, "wb") as file:
        file.write(content)


def overflow(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drop all queued events, as the kernel does when its queue is full."""
    field.watcher._inotify.read()
    with monkeypatch.context() as patch:
        patch.setattr(inotify, "decode", lambda _data: [Event(-1, inotify.IN_Q_OVERFLOW, 0, b"")])
        field.watcher.read()


def no_caches(path: bytes, is_directory: bool) -> bool:
    return is_directory and path.rpartition(b"/")[2] == b"cache"


def inodes(root: Path | bytes, left_out: Callable[[bytes], bool] = lambda _path: False) -> set[int]:
    """The inodes of a directory and of all directories below it, however deep."""
    found = set[int]()
    todo = [(os.open(root, DIRECTORY), b"")]
    while todo:
        fd, path = todo.pop()
        found.add(os.fstat(fd).st_ino)
        with os.scandir(fd) as entries:
            for entry in entries:
                below = path + b"/" + os.fsencode(entry.name)
                if entry.is_dir(follow_symlinks=False) and not left_out(below[1:]):
                    todo.append((os.open(entry.name, DIRECTORY, dir_fd=fd), below))
        os.close(fd)
    return found


def lines_up(field: Field) -> None:
    """Every directory of the tree is watched, and nothing else."""
    assert field.watched() == inodes(field.root)
    assert field.watcher.coverage.directories == len(field.watched())


def assert_seen_at(field: Field, path: str) -> None:
    """A file that is made there now is told under that very name, and under no other."""
    write(field.root / path)
    assert field.recorded() == {name(os.fsencode(path))}, path


def limit(field: Field, watches: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let there be no more than so many watches."""
    add, add_near = Inotify.add, Inotify.add_near

    def is_too_many(self: Inotify, wd: int) -> bool:
        known = field.watcher._watches.by_wd
        if wd < 0 or wd in known or len(field.watched()) <= watches:
            return False
        self.remove(wd)
        return True

    def limited(self: Inotify, directory: int, mask: int) -> int:
        wd = add(self, directory, mask)
        if is_too_many(self, wd):
            raise InotifyError(errno.ENOSPC, "no space")
        return wd

    def limited_near(self: Inotify, name: bytes, mask: int) -> int:
        wd = add_near(self, name, mask)
        return -1 if is_too_many(self, wd) else wd

    monkeypatch.setattr(Inotify, "add", limited)
    monkeypatch.setattr(Inotify, "add_near", limited_near)
