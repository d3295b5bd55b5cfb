"""After a restart a walk records what has changed since a time, by ctime, and nothing else."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.watched_tree import (
    CAUGHT_UP,
    EVENTS,
    TREE,
    WALKED,
    Call,
    Field,
    gone,
    listing,
    name,
    overflow,
    write,
)

from inosync.changes import Step
from inosync.system import entries
from inosync.watch import ctimes, recorder, scan, shares
from inosync.watch.tree import Since

TICK_SECONDS = 0.03
"""Longer than a tick of the clock that the kernel takes ctimes from."""
NOTHING = frozenset[str]()


class Old(Field):
    """A tree, and a time after which nothing has changed in it yet."""

    def __init__(self, home: Path, has_scouts: bool) -> None:
        super().__init__(home)
        self.has_scouts = has_scouts
        for path in ("a/b/c", "a/d", "e", "f/g", "x"):
            (self.root / path).mkdir(parents=True)
        for path in ("top", "a/1", "a/b/2", "a/b/c/3", "a/d/4", "e/5", "f/g/6", "x/7"):
            write(self.root / path)
        (self.root / "link").symlink_to("top")
        (self.outside / "old/deep/deeper").mkdir(parents=True)
        write(self.outside / "old/deep/deeper/8")
        self.pass_time()
        self.after = time.time_ns()
        self.pass_time()

    def pass_time(self) -> None:
        time.sleep(TICK_SECONDS)

    def since(self, **values: object) -> Since:
        status = self.root.stat()
        made = {
            "after": self.after,
            "root": (status.st_dev, status.st_ino),
            "devices": frozenset({status.st_dev}),
            **values,
        }
        return Since(**made)  # type: ignore[arg-type]

    def begin(self, since: Since | None = None) -> None:
        """Begin to walk the tree, as after a restart."""
        self.watcher.roots.add(
            TREE,
            str(self.root),
            EVENTS,
            lambda path, _is_directory: path == b"x" or path.endswith(b".x"),
            since=since or self.since(),
        )

    def watch_root(self) -> None:
        """Walk so far that the root is watched, and nothing in it."""
        for _ in range(2):
            self.watcher.work(0.0)
        assert self.watcher.coverage.directories == 1

    def walk(self, since: Since | None = None) -> set[Call]:
        """Walk the tree, as after a restart; what was recorded."""
        self.begin(since)
        self.settle()
        calls = self.take()
        # Where the watcher meets a scout, both may look.
        assert self.has_scouts or len(calls) == len(set(calls)), "each once"
        # Nothing looked when it happened: it may be new, or have replaced something.
        assert {step for _, step in self.listener.steps} <= {Step.UNKNOWN}
        return set(calls)


@pytest.fixture(params=["leaves", "scans", "scouts"])
def old(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Old]:
    if request.param == "scouts":
        monkeypatch.setattr(shares, "MIN_ITEMS", 1)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})
    if request.param == "scans":
        monkeypatch.setattr(scan, "counts_subdirectories", lambda _fd: False)
    made = Old(tmp_path, request.param == "scouts")
    yield made
    made.watcher.close()


def change_times(path: Path) -> None:
    write(path, b"other")
    os.utime(path, (1, 1))


def write_linked(path: Path, other: Path) -> None:
    os.link(path, other)
    write(other, b"new")


def replace_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("e")


def swap(one: Path, other: Path) -> None:
    one.rename(one.parent / "t")
    other.rename(one)
    (one.parent / "t").rename(other)


CASES: dict[str, tuple[Callable[[Path], object], set[Call]]] = {
    "nothing": (lambda _root: None, set()),
    "content": (lambda root: write(root / "a/b/c/3", b"new"), {name(b"a/b/c/3")}),
    "content with an old time": (lambda root: change_times(root / "e/5"), {name(b"e/5")}),
    "truncation": (lambda root: os.truncate(root / "top", 1), {name(b"top")}),
    "mode": (lambda root: (root / "a/1").chmod(0o600), {name(b"a/1")}),
    "mode of a directory": (lambda root: (root / "a/b").chmod(0o700), {listing(b"a/b")}),
    "mode of the root": (lambda root: root.chmod(0o700), {listing(b"")}),
    "extended attribute": (lambda root: os.setxattr(root / "a/1", b"user.x", b"y"), {name(b"a/1")}),
    "new file": (lambda root: write(root / "e/new"), {listing(b"e")}),
    "removed file": (lambda root: (root / "a/b/c/3").unlink(), {listing(b"a/b/c")}),
    "removed directory": (lambda root: shutil.rmtree(root / "a/b"), {listing(b"a")}),
    "new directory": (
        lambda root: (root / "e/n/m").mkdir(parents=True),
        {listing(b"e"), listing(b"e/n"), listing(b"e/n/m")},
    ),
    "renamed file": (lambda root: (root / "a/1").rename(root / "e/9"), {listing(b"a"), listing(b"e")}),
    "renamed directory": (
        lambda root: (root / "a").rename(root / "f/a"),
        # The root has lost an entry, so that "f", which has a new one, may have been renamed as well.
        {listing(path) for path in (b"", b"f", b"f/g", b"f/a", b"f/a/b", b"f/a/b/c", b"f/a/d")},
    ),
    "directory from outside": (
        lambda root: (root.parent / "outside/old").rename(root / "e/old"),
        {listing(path) for path in (b"e", b"e/old", b"e/old/deep", b"e/old/deep/deeper")},
    ),
    "swapped directories": (
        lambda root: swap(root / "a", root / "f"),
        {listing(path) for path in (b"", b"a", b"a/g", b"f", b"f/b", b"f/b/c", b"f/d")},
    ),
    "hard link": (
        lambda root: os.link(root / "a/b/2", root / "e/2"),
        {name(b"a/b/2"), listing(b"e")},
    ),
    "content through another name": (
        lambda root: write_linked(root / "a/b/2", root.parent / "2"),
        {name(b"a/b/2")},
    ),
    "symlink": (
        lambda root: replace_link(root / "link"),
        {listing(b"")},
    ),
    "excluded": (lambda root: write(root / "x/7", b"new"), set()),
    "excluded by its new name": (
        lambda root: (root / "e/5").rename(root / "e/5.x"),
        {listing(b"e")},
    ),
    "directory beside changed ones": (
        lambda root: write(root / "new"),
        {listing(b"")},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_walk_records_what_has_changed_and_nothing_else(old: Old, case: str) -> None:
    change, expected = CASES[case]
    change(old.root)
    assert old.walk() == {*expected, CAUGHT_UP}


def test_walk_watches_all_directories(old: Old) -> None:
    old.walk()
    assert old.watcher.coverage.directories == 8
    write(old.root / "a/b/c/3", b"new")
    old.settle()
    assert old.take() == [name(b"a/b/c/3")]


def test_later_walks_compare_the_whole_tree(old: Old, monkeypatch: pytest.MonkeyPatch) -> None:
    old.walk()
    overflow(old, monkeypatch)
    old.settle()
    assert old.take() == [WALKED]


def test_walk_that_loses_events_compares_the_whole_tree(old: Old, monkeypatch: pytest.MonkeyPatch) -> None:
    old.begin()
    overflow(old, monkeypatch)
    old.settle()
    assert old.take() == [WALKED]


def test_root_that_was_replaced_is_compared_as_a_whole(old: Old) -> None:
    assert WALKED in old.walk(old.since(root=(1, 1)))


def test_other_file_system_below_is_compared_as_a_whole(old: Old, caplog: pytest.LogCaptureFixture) -> None:
    assert WALKED in old.walk(old.since(devices=frozenset()))
    assert f"{old.root}: full mirrors follow, because {old.root}/ is on another file system" in caplog.text


@pytest.mark.parametrize("path", ["a/b/c/3", "a/b"])
def test_time_in_the_future_makes_the_whole_tree_compared(
    old: Old, path: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (old.root / path).chmod(0o700)
    monkeypatch.setattr(recorder, "_FUTURE_NS", -3_600_000_000_000)
    assert WALKED in old.walk()
    assert f"{old.root}/{path} has a time in the future: the clock was set back" in caplog.text


def test_directory_that_arrives_during_the_walk_is_recorded_as_a_whole(old: Old) -> None:
    old.begin()
    old.watch_root()
    (old.outside / "old").rename(old.root / "old")
    old.settle()
    assert {listing(b"old"), listing(b"old/deep"), listing(b"old/deep/deeper")} <= set(old.take())


def test_directory_that_moves_during_the_walk_is_recorded_as_a_whole(old: Old) -> None:
    old.begin()
    old.watch_root()
    (old.root / "a").rename(old.root / "f/a")
    old.settle()
    calls = set(old.take())
    assert {gone(b"a"), *(listing(path) for path in (b"f/a", b"f/a/b", b"f/a/b/c", b"f/a/d"))} <= calls


def test_root_that_is_lost_and_back_is_compared_as_a_whole(old: Old) -> None:
    old.begin()
    old.root.rename(old.root.parent / "away")
    old.settle()
    (old.root.parent / "away").rename(old.root)
    old.clock.now += 10
    old.watcher.run_due()
    old.settle()
    assert old.take()[-1] == WALKED


def test_large_directories_are_read_in_steps(old: Old, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctimes, "_STEP_ENTRIES", 2)
    monkeypatch.setattr(scan, "_STEP_ENTRIES", 2)
    for number in range(9):
        write(old.root / f"e/{number}")
    old.pass_time()
    old.after = time.time_ns()
    old.pass_time()
    for number in (0, 4, 8):
        write(old.root / f"e/{number}", b"new")
    assert old.walk() == {CAUGHT_UP, *(name(b"e/%d" % number) for number in (0, 4, 8))}


def test_file_that_goes_during_the_walk_is_left_to_its_event(old: Old) -> None:
    old.begin()
    old.watch_root()
    (old.root / "a/b/c/3").unlink()
    (old.root / "top").unlink()
    old.settle()
    assert gone(b"top") in old.take()


def test_identity_of_the_root_is_device_and_inode(old: Old) -> None:
    assert old.since().root == entries.identity(str(old.root))
