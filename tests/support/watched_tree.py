"""A watcher over the kernel's inotify, driven as the master's loop does it, and what it has told."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from inosync.messages import Change, Kind
from inosync.watch import inotify
from inosync.watch.inotify import Event
from inosync.watch.open_files import CLOSE_WAIT
from inosync.watch.watcher import CHECK, MOVE_WAIT, Watcher

TREE = 7
EVENTS = frozenset(("IN_CLOSE_WRITE", "IN_CREATE", "IN_DELETE", "IN_MOVED_FROM", "IN_MOVED_TO", "IN_ATTRIB"))

Call = tuple[str, int, bytes, Kind | None]


class Clock:
    """A clock that stands still, or takes ``tick`` seconds for every look at it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.tick = 0.0

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


class Recorder:
    """Lists what it is told."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def record(self, change: Change, now: float) -> None:
        assert now >= 1000
        self.calls.append(("record", change.tree, change.path, change.kind))

    def gone(self, tree: int, path: bytes, now: float) -> None:
        assert now >= 1000
        self.calls.append(("gone", tree, path, None))

    def walked(self, tree: int, now: float) -> None:
        assert now >= 1000
        self.calls.append(("walked", tree, b"", None))

    def refiltered(self, tree: int, now: float) -> None:
        assert now >= 1000
        self.calls.append(("refiltered", tree, b"", None))

    def lost(self, tree: int, why: str) -> None:
        assert why
        self.calls.append(("lost", tree, b"", None))

    def take(self) -> list[Call]:
        """What was told since the last call."""
        calls, self.calls = self.calls, []
        return calls


def name(path: bytes) -> Call:
    return ("record", TREE, path, Kind.NAME)


def listing(path: bytes) -> Call:
    return ("record", TREE, path, Kind.LIST)


def gone(path: bytes) -> Call:
    return ("gone", TREE, path, None)


WALKED: Call = ("walked", TREE, b"", None)
LOST: Call = ("lost", TREE, b"", None)
REFILTERED: Call = ("refiltered", TREE, b"", None)


class Field:
    """A tree, a place outside of it, and a watcher that is driven as the master's loop does it."""

    def __init__(self, home: Path) -> None:
        self.root = home / "tree"
        self.outside = home / "outside"
        self.root.mkdir()
        self.outside.mkdir()
        self.clock = Clock()
        self.sink = Recorder()
        self.watcher = Watcher(self.sink, self.clock)

    def add(
        self,
        excluded: Callable[[bytes, bool], bool] = lambda _path, _is_directory: False,
        events: frozenset[str] = EVENTS,
    ) -> None:
        """Watch the tree, and wait until all of it is."""
        self.watcher.add_tree(TREE, str(self.root), events, excluded)
        self.settle()
        assert self.take() == [WALKED]

    def settle(self) -> None:
        """Let the watcher do what it can do now."""
        for _ in range(100_000):
            if not self.watcher.read() and self.watcher.is_idle:
                return
            self.watcher.work(0.01)
        raise AssertionError("the watcher never comes to rest")

    def later(self, seconds: float) -> None:
        """Let time pass, and the watcher do what has become due."""
        self.settle()
        self.clock.now += seconds
        if self.clock.now >= self.watcher.deadline():
            self.watcher.run_due()
        self.settle()

    def calm(self) -> None:
        """Let everything that waits for something become due."""
        for _ in range(3):
            self.later(max(CLOSE_WAIT, MOVE_WAIT, CHECK) + 0.1)

    def take(self) -> list[Call]:
        return self.sink.take()

    def told(self) -> set[Call]:
        """What the watcher tells of what was just done."""
        self.settle()
        return set(self.take())

    def watched(self) -> set[int]:
        """The inodes that the kernel has watches on."""
        return set(self.masks())

    def masks(self) -> dict[int, int]:
        """The masks of the kernel's watches, by inode (proc(5), fdinfo)."""
        text = Path(f"/proc/self/fdinfo/{self.watcher.fileno()}").read_text()
        found = re.findall(r"^inotify wd:\w+ ino:(\w+) sdev:\w+ mask:(\w+)", text, re.MULTILINE)
        return {int(inode, 16): int(mask, 16) for inode, mask in found}


def write(path: Path | bytes, content: bytes = b"content") -> None:
    with open(path, "wb") as file:
        file.write(content)


def overflow(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lose all that is queued, as the kernel does when its queue is full."""
    field.watcher._inotify.read()
    with monkeypatch.context() as patch:
        patch.setattr(inotify, "decode", lambda _data: [Event(-1, inotify.IN_Q_OVERFLOW, 0, b"")])
        field.watcher.read()
