"""The watcher over the kernel's inotify: what is watched, and what is told, whatever happens in the tree.

The events of what a test does are in the kernel's queue before the test goes on, so nothing here waits: a
clock that the test turns forward stands for time.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
import resource
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.churn import Churn
from support.trees import exchange
from support.watched_tree import (
    DIRECTORY,
    EVENTS,
    TREE,
    WALKED,
    Clock,
    Field,
    assert_seen_at,
    gone,
    inodes,
    limit,
    lines_up,
    listing,
    name,
    no_caches,
    overflow,
    write,
)

from inosync.changes import Change, Kind, Rename, Step
from inosync.journal.journal import Journal
from inosync.rsync.names import current_names
from inosync.watch import inotify
from inosync.watch.event_handler import MOVE_WAIT_SECONDS
from inosync.watch.hardlinks import HardLinks
from inosync.watch.inotify import Inotify
from inosync.watch.open_files import CLOSE_WAIT_SECONDS
from inosync.watch.poller import DEFAULT_INTERVAL_SECONDS as EVERY
from inosync.watch.tree import Directory, Opener
from inosync.watch.watcher import Watcher

# Files ---------------------------------------------------------------------------------------------------


def test_tree_is_reported_once_all_of_it_is_watched(field: Field) -> None:
    (field.root / "a/b/c").mkdir(parents=True)
    (field.root / "d").mkdir()
    write(field.root / "a/f")
    field.watcher.roots.add(TREE, str(field.root), EVENTS, lambda _path, _is_directory: False)
    assert field.watcher.is_walking
    field.settle()
    assert not field.watcher.is_walking
    assert field.take() == [WALKED]
    lines_up(field)


def test_file_made_and_closed_is_one_name(field: Field) -> None:
    field.add()
    write(field.root / "f")
    field.settle()
    assert field.take() == [name(b"f")]
    field.calm()
    assert field.take() == []


def test_file_is_recorded_when_it_is_closed_not_when_made(field: Field) -> None:
    field.add()
    with open(field.root / "f", "wb"):
        field.settle()
        assert field.take() == []
    field.settle()
    assert field.take() == [name(b"f")]


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.unlink(),
        lambda path: path.chmod(0o600),
        lambda path: os.utime(path, (1, 1)),
        lambda path: path.write_bytes(b"other"),
    ],
    ids=["unlink", "chmod", "utime", "write"],
)
def test_changes_of_a_file_are_recorded_by_its_name(field: Field, change: Callable[[Path], object]) -> None:
    path = field.root / "f"
    write(path)
    field.add()
    change(path)
    recorded = field.recorded()
    assert (name(b"f") if path.exists() else gone(b"f")) in recorded
    assert recorded <= {name(b"f"), gone(b"f")}


def test_removed_file_is_gone(field: Field) -> None:
    write(field.root / "f")
    field.add()
    (field.root / "f").unlink()
    field.settle()
    assert field.take()[-1:] == [gone(b"f")]


def test_renamed_file_is_gone_here_and_recorded_there(field: Field) -> None:
    write(field.root / "f")
    (field.root / "d").mkdir()
    field.add()
    (field.root / "f").rename(field.root / "d/g")
    assert field.recorded() == {gone(b"f"), gone(b"d/g")}


@pytest.mark.parametrize(
    "make",
    [
        lambda path: os.close(os.open(path, os.O_CREAT | os.O_RDONLY, 0o644)),
        lambda path: os.mknod(path, stat.S_IFREG | 0o644),
    ],
    ids=["open", "mknod"],
)
def test_file_never_open_for_writing_is_recorded_after_a_while(
    field: Field, make: Callable[[Path], None]
) -> None:
    field.add()
    make(field.root / "f")
    assert field.recorded() == set()
    field.later(CLOSE_WAIT_SECONDS / 2)
    assert field.take() == []
    field.later(CLOSE_WAIT_SECONDS)
    assert field.take() == [name(b"f")]


def test_waiting_file_is_recorded_under_the_name_it_has_by_then(field: Field) -> None:
    (field.root / "a").mkdir()
    field.add()
    os.mknod(field.root / "a/f", stat.S_IFREG | 0o644)
    field.settle()
    (field.root / "a").rename(field.root / "b")
    field.settle()
    field.take()
    os.mknod(field.root / "b/g", stat.S_IFREG | 0o644)
    field.calm()
    assert set(field.take()) == {name(b"b/f"), name(b"b/g")}


@pytest.mark.parametrize(
    "make",
    [
        lambda path: os.mkfifo(path),
        lambda path: os.symlink("nowhere", path),
        lambda path: os.link(path.parent / "old", path),
    ],
    ids=["fifo", "symlink", "hard link"],
)
def test_entries_that_are_never_closed_are_recorded_at_once(
    field: Field, make: Callable[[Path], None]
) -> None:
    write(field.root / "old")
    field.add()
    make(field.root / "new")
    assert name(b"new") in field.recorded()


def test_file_truncated_by_its_path_is_recorded(field: Field) -> None:
    write(field.root / "f", b"a long content")
    field.add()
    os.truncate(field.root / "f", 3)
    field.calm()
    assert name(b"f") in field.take()


# IN_CLOSE_WRITE speaks of the name that was opened, so in these two nobody hears of the close.


@pytest.mark.parametrize("held", [0.0, CLOSE_WAIT_SECONDS * 1.5, CLOSE_WAIT_SECONDS * 4])
def test_nameless_file_linked_while_written_is_recorded_when_whole(field: Field, held: float) -> None:
    field.add()
    try:
        file = os.fdopen(os.open(field.root, os.O_TMPFILE | os.O_WRONLY, 0o644), "wb", buffering=0)
    except OSError:
        pytest.skip("the file system has no O_TMPFILE")
    above = os.open(field.root, DIRECTORY)
    with file:
        # Python passes AT_SYMLINK_FOLLOW on only if there is a descriptor, too.
        os.link(f"/proc/self/fd/{file.fileno()}", "f", dst_dir_fd=above, follow_symlinks=True)
        os.close(above)
        field.later(held / 2)
        field.later(held / 2)
        field.take()
        file.write(b"content")
    field.calm()
    assert name(b"f") in field.take()


@pytest.mark.parametrize("held", [0.0, CLOSE_WAIT_SECONDS * 1.5, CLOSE_WAIT_SECONDS * 4])
@pytest.mark.parametrize("read_between", [False, True])
def test_file_renamed_by_links_while_written_is_recorded_when_whole(
    field: Field, held: float, read_between: bool
) -> None:
    field.add()
    with open(field.root / "draft", "wb", buffering=0) as file:
        os.link(field.root / "draft", field.root / "mail")
        if read_between:
            field.settle()
        (field.root / "draft").unlink()
        field.later(held / 2)
        field.later(held / 2)
        field.take()
        file.write(b"content")
    field.calm()
    assert name(b"mail") in field.take()


def test_names_may_have_any_byte(field: Field) -> None:
    field.add()
    names = [b"\xff\xfe", b"new\nline", b"-rf", b"#hash", b";semi", b" ", b"*", b"caf\xe9", b"n" * 255]
    for each in names:
        write(os.fsencode(field.root) + b"/" + each)
        os.mkdir(os.fsencode(field.root) + b"/d" + each[:254])
        write(os.fsencode(field.root) + b"/d" + each[:254] + b"/" + each)
    recorded = field.recorded()
    for each in names:
        assert name(each) in recorded
        assert listing(b"d" + each[:254]) in recorded or name(b"d" + each[:254] + b"/" + each) in recorded
    lines_up(field)


# New directories -----------------------------------------------------------------------------------------


def test_new_directory_is_listed_after_it_is_watched(field: Field) -> None:
    # What is made between the two is either in the listing that is told, or told by its name, or both.
    field.add()
    (field.root / "d").mkdir()
    before = [call for call in field.recorded() if call == listing(b"d")]
    assert before
    write(field.root / "d/f")
    assert field.recorded() == {name(b"d/f")}


def test_entries_made_at_any_moment_of_a_scan_are_covered(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def make() -> None:
        if len(made) < 20:
            made.append(f"d/{len(made)}")
            write(field.root / made[-1])
            made.append(f"d/{len(made)}")
            (field.root / made[-1]).mkdir()
            write(field.root / made[-1] / "f")

    field.add()
    order: list[str] = []
    add, add_near, record = Inotify.add, Inotify.add_near, field.links.record

    def adding(self: Inotify, directory: int, mask: int) -> int:
        make()
        wd = add(self, directory, mask)
        order.append("watched")
        make()
        return wd

    def adding_near(self: Inotify, name: bytes, mask: int) -> int:
        make()
        wd = add_near(self, name, mask)
        make()
        return wd

    def recording(change: Change, now: float) -> None:
        make()
        order.append(f"{change.kind.name} {change.path.decode()}")
        record(change, now)

    monkeypatch.setattr(Inotify, "add", adding)
    monkeypatch.setattr(Inotify, "add_near", adding_near)
    monkeypatch.setattr(field.links, "record", recording)
    (field.root / "d").mkdir()
    field.settle()
    assert order.index("watched") < order.index("LIST d")
    covered = field.recorded()
    for path in [*made, *(f"{path}/f" for path in made if (field.root / path).is_dir())]:
        above = os.fsencode(os.path.dirname(path))
        assert name(os.fsencode(path)) in covered or listing(above) in covered, path
    lines_up(field)


def test_chain_of_directories_made_at_once_is_covered(field: Field) -> None:
    field.add()
    path = field.root
    for level in range(20):
        path = path / f"l{level}"
        path.mkdir()
        write(path / "f")
        write(path / "g")
    recorded = field.recorded()
    path = field.root
    for level in range(20):
        path = path / f"l{level}"
        relative = os.fsencode(path.relative_to(field.root))
        assert listing(relative) in recorded, relative
    lines_up(field)


@pytest.mark.slow
def test_directories_made_by_the_thousand_are_all_covered(field: Field) -> None:
    field.add()
    for i in range(40):
        for j in range(50):
            (field.root / f"{i}/{j}").mkdir(parents=True)
            write(field.root / f"{i}/{j}/f")
    recorded = field.recorded()
    for i in range(40):
        for j in range(50):
            assert listing(b"%d/%d" % (i, j)) in recorded or name(b"%d/%d/f" % (i, j)) in recorded
    lines_up(field)
    assert len(field.watched()) == 1 + 40 + 2000


@pytest.mark.slow
def test_directories_by_the_thousand_are_watched_in_small_steps(field: Field) -> None:
    for i in range(2000):
        (field.root / f"{i}").mkdir()
    field.watcher.roots.add(TREE, str(field.root), EVENTS, lambda _path, _is_directory: False)
    field.clock.tick = 0.001
    slices = 0
    while field.watcher.is_walking:
        field.watcher.work(0.01)
        slices += 1
        assert slices < 5000
    assert slices > 50
    assert field.take() == [WALKED]
    lines_up(field)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("there", ["directory", "tree", "symlink", "file", "nothing"])
@pytest.mark.parametrize("to", ["outside", "tree/other"])
def test_directory_replaced_while_watched_by_its_name_is_found_out(
    field: Field, monkeypatch: pytest.MonkeyPatch, when: str, there: str, to: str
) -> None:
    (field.root / "d").mkdir()
    (field.root / "other").mkdir()
    (field.outside / "deep/er").mkdir(parents=True)
    place = field.root / "d"
    add_near = Inotify.add_near

    def replace() -> None:
        place.rename(field.root.parent / to / "moved")
        if there == "directory":
            place.mkdir()
        elif there == "tree":
            (place / "a/b").mkdir(parents=True)
        elif there == "symlink":
            place.symlink_to(field.outside / "deep")
        elif there == "file":
            write(place)
            os.link(place, field.outside / "link")

    def adding(self: Inotify, name: bytes, mask: int) -> int:
        if name != b"d":
            return add_near(self, name, mask)
        monkeypatch.setattr(Inotify, "add_near", add_near)
        if when == "before":
            replace()
        wd = add_near(self, name, mask)
        if when == "after":
            replace()
        return wd

    monkeypatch.setattr(Inotify, "add_near", adding)
    field.watcher.roots.add(TREE, str(field.root), EVENTS, lambda _path, _is_directory: False)
    field.settle()
    if Inotify.add_near is not add_near:
        return  # it is not watched by its name on this file system
    field.calm()
    lines_up(field)
    if there in ("directory", "tree"):
        field.take()
        assert_seen_at(field, "d/f")


def test_tree_is_watched_from_a_directory_that_bars_the_way_back(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    (field.root / "a/b").mkdir(parents=True)
    fchdir = os.fchdir

    def barred(_directory: int) -> None:
        raise PermissionError(errno.EACCES, "barred")

    monkeypatch.setattr(os, "fchdir", barred)
    field.add()
    monkeypatch.setattr(os, "fchdir", fchdir)
    lines_up(field)


def test_files_of_a_large_directory_are_no_single_step(field: Field) -> None:
    for i in range(2000):
        write(field.root / f"{i}", b"")
    field.watcher.roots.add(TREE, str(field.root), EVENTS, lambda _path, _is_directory: False)
    field.clock.tick = 0.01
    slices = 0
    while field.watcher.is_walking:
        field.watcher.work(0.01)
        slices += 1
    assert slices > 5


def test_directory_removed_before_it_is_watched_leaves_nothing(field: Field) -> None:
    field.add()
    (field.root / "d/e").mkdir(parents=True)
    shutil.rmtree(field.root / "d")
    assert gone(b"d") in field.recorded()
    lines_up(field)


def test_recreated_directory_is_listed(field: Field) -> None:
    (field.root / "d/e").mkdir(parents=True)
    field.add()
    shutil.rmtree(field.root / "d")
    (field.root / "d").mkdir()
    field.settle()
    calls = field.take()
    assert calls.index(gone(b"d")) < calls.index(listing(b"d"))
    lines_up(field)
    assert_seen_at(field, "d/f")


def test_removed_tree_leaves_no_watch(field: Field) -> None:
    (field.root / "a/b/c").mkdir(parents=True)
    field.add()
    shutil.rmtree(field.root / "a")
    assert gone(b"a") in field.recorded()
    lines_up(field)
    assert field.watcher.coverage.directories == 1


# Renames -------------------------------------------------------------------------------------------------


def test_renamed_directory_keeps_its_watches(field: Field) -> None:
    (field.root / "a/b/c").mkdir(parents=True)
    (field.root / "z").mkdir()
    field.add()
    before = field.watched()
    (field.root / "a").rename(field.root / "z/y")
    recorded = field.recorded()
    assert {gone(b"a"), gone(b"z/y"), listing(b"z/y"), listing(b"z/y/b"), listing(b"z/y/b/c")} <= recorded
    assert field.watched() == before
    assert field.watcher.coverage.directories == len(before)
    for path in ("z/y/f", "z/y/b/f", "z/y/b/c/f"):
        assert_seen_at(field, path)
    field.calm()
    lines_up(field)


def test_changes_in_a_renamed_directory_have_the_new_path_at_once(
    field: Field,
) -> None:
    (field.root / "a/b").mkdir(parents=True)
    field.add()
    (field.root / "a").rename(field.root / "n")
    write(field.root / "n/b/f")
    recorded = field.recorded()
    assert name(b"n/b/f") in recorded or listing(b"n/b") in recorded
    assert not any(path.startswith(b"a/") for _, _, path, _ in recorded)


def test_directory_renamed_often_between_reads_is_watched_where_it_ends(field: Field) -> None:
    (field.root / "a/b").mkdir(parents=True)
    field.add()
    for i in range(50):
        (field.root / ("a" if i == 0 else f"a{i}")).rename(field.root / f"a{i + 1}")
    assert listing(b"a50/b") in field.recorded()
    lines_up(field)
    assert_seen_at(field, "a50/b/f")
    field.calm()
    lines_up(field)


def test_directory_moved_out_is_gone_and_loses_its_watches(field: Field) -> None:
    (field.root / "a/b/c").mkdir(parents=True)
    (field.root / "k").mkdir()
    field.add()
    (field.root / "a").rename(field.outside / "a")
    assert gone(b"a") in field.recorded()
    field.later(MOVE_WAIT_SECONDS * 2)
    lines_up(field)
    field.take()
    write(field.outside / "a/b/f")
    assert field.recorded() == set()


def test_directory_moved_into_the_tree_is_walked(field: Field) -> None:
    (field.outside / "a/b/c").mkdir(parents=True)
    write(field.outside / "a/b/f")
    field.add()
    (field.outside / "a").rename(field.root / "a")
    assert {gone(b"a"), listing(b"a"), listing(b"a/b"), listing(b"a/b/c")} <= field.recorded()
    lines_up(field)
    assert_seen_at(field, "a/b/c/f")


@pytest.mark.parametrize("wait", [0.0, MOVE_WAIT_SECONDS * 3])
def test_directory_that_comes_back_is_walked(field: Field, wait: float) -> None:
    (field.root / "a/b").mkdir(parents=True)
    field.add()
    (field.root / "a").rename(field.outside / "a")
    field.later(wait)
    (field.outside / "a/b/c").mkdir()
    write(field.outside / "a/b/f")
    (field.outside / "a").rename(field.root / "n")
    assert {listing(b"n"), listing(b"n/b"), listing(b"n/b/c")} <= field.recorded()
    field.calm()
    lines_up(field)
    field.take()
    assert_seen_at(field, "n/b/c/f")


def test_directory_that_left_and_came_back_between_reads_is_walked(field: Field) -> None:
    (field.root / "a/b").mkdir(parents=True)
    field.add()
    (field.root / "a").rename(field.outside / "a")
    (field.outside / "a/b/c").mkdir()
    write(field.outside / "a/b/f")
    (field.outside / "a").rename(field.root / "a")
    assert {listing(b"a"), listing(b"a/b"), listing(b"a/b/c")} <= field.recorded()
    field.calm()
    lines_up(field)


@pytest.mark.parametrize("read_between", [False, True])
def test_directories_swapped_in_three_steps_are_both_walked(field: Field, read_between: bool) -> None:
    (field.root / "a/from_a").mkdir(parents=True)
    (field.root / "b/from_b").mkdir(parents=True)
    field.add()
    for old, new in (("a", "t"), ("b", "a"), ("t", "b")):
        (field.root / old).rename(field.root / new)
        if read_between:
            field.settle()
    recorded = field.recorded()
    assert {listing(b"a"), listing(b"a/from_b"), listing(b"b"), listing(b"b/from_a")} <= recorded
    field.calm()
    lines_up(field)
    field.take()
    assert_seen_at(field, "a/from_b/f")
    assert_seen_at(field, "b/from_a/f")


@pytest.mark.parametrize("places", [("a", "b"), ("p/a", "q/b"), ("p/a", "b")])
def test_directories_exchanged_in_one_step_are_both_walked(field: Field, places: tuple[str, str]) -> None:
    # renameat2(2) with RENAME_EXCHANGE: two moves with cookies of their own, each onto the other.
    one, two = places
    (field.root / one / "from_one").mkdir(parents=True)
    (field.root / two / "from_two").mkdir(parents=True)
    field.add()
    exchange(field.root / one, field.root / two)
    recorded = field.recorded()
    first, second = os.fsencode(one), os.fsencode(two)
    assert {listing(first), listing(first + b"/from_two")} <= recorded
    assert {listing(second), listing(second + b"/from_one")} <= recorded
    field.calm()
    lines_up(field)
    field.take()
    assert_seen_at(field, f"{one}/from_two/f")
    assert_seen_at(field, f"{two}/from_one/f")


def test_directory_exchanged_with_a_file_is_walked(field: Field) -> None:
    (field.root / "d/e").mkdir(parents=True)
    write(field.root / "f")
    field.add()
    exchange(field.root / "d", field.root / "f")
    recorded = field.recorded()
    assert {listing(b"f"), listing(b"f/e")} <= recorded
    assert gone(b"d") in recorded
    field.calm()
    lines_up(field)
    field.take()
    assert_seen_at(field, "f/e/g")


def test_directory_moved_over_an_empty_one_is_walked(field: Field) -> None:
    (field.root / "a/b").mkdir(parents=True)
    (field.root / "e").mkdir()
    field.add()
    (field.root / "a").rename(field.root / "e")
    assert {gone(b"a"), gone(b"e"), listing(b"e"), listing(b"e/b")} <= field.recorded()
    field.calm()
    lines_up(field)
    field.take()
    assert_seen_at(field, "e/b/f")


def test_directory_moved_below_its_former_kid_is_walked(field: Field) -> None:
    (field.root / "a/b/c").mkdir(parents=True)
    field.add()
    (field.root / "a/b").rename(field.root / "b")
    (field.root / "a").rename(field.root / "b/a")
    field.settle()
    field.calm()
    lines_up(field)
    field.take()
    assert_seen_at(field, "b/a/f")
    assert_seen_at(field, "b/c/f")


def test_directory_moved_to_another_tree_is_watched_there(field: Field) -> None:
    (field.root / "a/b").mkdir(parents=True)
    field.add()
    field.watcher.roots.add(8, str(field.outside), EVENTS, lambda _path, _is_directory: False)
    field.settle()
    field.take()
    (field.root / "a").rename(field.outside / "n")
    recorded = field.recorded()
    assert gone(b"a") in recorded
    assert ("record", 8, b"n/b", Kind.LIST) in recorded
    write(field.outside / "n/b/f")
    assert field.recorded() == {("record", 8, b"n/b/f", Kind.NAME)}
    field.calm()
    assert field.watched() == inodes(field.root) | inodes(field.outside)


def test_directory_replaced_by_a_symlink_is_not_followed_outside(field: Field) -> None:
    (field.root / "a/b").mkdir(parents=True)
    (field.outside / "b/c").mkdir(parents=True)
    field.add()
    shutil.rmtree(field.root / "a")
    (field.root / "a").symlink_to("../outside")
    assert name(b"a") in field.recorded()
    field.calm()
    lines_up(field)
    field.take()
    write(field.outside / "b/f")
    assert field.recorded() == set()


@pytest.mark.parametrize("moment", ["before the watch", "before the kids"])
def test_directory_replaced_by_a_symlink_during_a_walk_is_not_followed(field: Field, moment: str) -> None:
    (field.outside / "b/c").mkdir(parents=True)
    (field.root / "a/b").mkdir(parents=True)
    field.watcher.roots.add(TREE, str(field.root), EVENTS, lambda _path, _is_directory: False)
    field.clock.tick = 0.01
    while field.watcher.is_walking:
        field.watcher.work(0.001)
        if field.watcher.coverage.directories == (1 if moment == "before the watch" else 2):
            shutil.rmtree(field.root / "a", ignore_errors=True)
            if not (field.root / "a").is_symlink():
                (field.root / "a").symlink_to("../outside")
    field.clock.tick = 0
    field.calm()
    assert field.watched() == inodes(field.root)


# Excludes ------------------------------------------------------------------------------------------------


def test_excluded_entries_are_neither_watched_nor_recorded(field: Field) -> None:
    (field.root / "a/cache/deep").mkdir(parents=True)
    field.add(no_caches)
    (field.root / "b/cache/deep").mkdir(parents=True)
    write(field.root / "b/cache/f")
    write(field.root / "a/cache/f")
    assert not any(b"cache" in path for _, _, path, _ in field.recorded())
    assert field.watched() == inodes(field.root, lambda path: no_caches(path, True))


def test_directory_renamed_to_an_excluded_name_is_not_watched(field: Field) -> None:
    (field.root / "a/b").mkdir(parents=True)
    field.add(no_caches)
    (field.root / "a").rename(field.root / "cache")
    assert field.recorded() == {gone(b"a")}
    field.later(MOVE_WAIT_SECONDS * 2)
    assert field.watched() == {field.root.stat().st_ino}


def test_directory_renamed_from_an_excluded_name_is_walked(field: Field) -> None:
    (field.root / "cache/b").mkdir(parents=True)
    field.add(no_caches)
    (field.root / "cache").rename(field.root / "a")
    assert {listing(b"a"), listing(b"a/b")} <= field.recorded()
    lines_up(field)


def test_rename_that_makes_a_rule_match_below_ends_watches_there(field: Field) -> None:
    def excluded(path: bytes, _is_directory: bool) -> bool:
        return path == b"new/cache"

    (field.root / "old/cache/deep").mkdir(parents=True)
    field.add(excluded)
    (field.root / "old").rename(field.root / "new")
    field.settle()
    field.calm()
    field.take()
    write(field.root / "new/cache/deep/f")
    assert field.recorded() == set()
    assert field.watched() == inodes(field.root, lambda path: excluded(path, True))


def test_rename_that_makes_a_rule_match_no_longer_is_walked(field: Field) -> None:
    (field.root / "old/cache/deep").mkdir(parents=True)
    field.add(lambda path, _is_directory: path == b"old/cache")
    (field.root / "old").rename(field.root / "new")
    assert {listing(b"new"), listing(b"new/cache"), listing(b"new/cache/deep")} <= field.recorded()
    lines_up(field)


# Trouble -------------------------------------------------------------------------------------------------


def test_overflow_ends_in_a_walk_of_all_trees(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    (field.root / "a/b").mkdir(parents=True)
    (field.root / "c/d").mkdir(parents=True)
    (field.root / "e/f").mkdir(parents=True)
    field.add()
    (field.root / "a").rename(field.root / "n")
    shutil.rmtree(field.root / "c")
    (field.root / "new/deep").mkdir(parents=True)
    (field.root / "e").rename(field.outside / "e")
    overflow(field, monkeypatch)
    assert field.watcher.overflows == 1
    assert field.watcher.is_walking
    field.settle()
    assert field.take()[-1] == WALKED
    field.calm()
    lines_up(field)
    for path in ("n/b/f", "new/deep/f"):
        assert_seen_at(field, path)


def test_overflow_does_not_hide_that_a_directory_is_empty_now(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    (field.root / "a/b/c").mkdir(parents=True)
    field.add()
    (field.root / "a/b").rename(field.outside / "b")
    overflow(field, monkeypatch)
    field.calm()
    lines_up(field)
    write(field.outside / "b/c/f")
    assert field.recorded() == {WALKED}


def test_overflow_while_a_move_is_half_seen_is_repaired(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    (field.root / "a/b").mkdir(parents=True)
    field.add()
    (field.root / "a").rename(field.outside / "a")
    field.settle()
    (field.outside / "a").rename(field.root / "n")
    overflow(field, monkeypatch)
    field.settle()
    field.calm()
    assert WALKED in field.take()
    lines_up(field)
    assert_seen_at(field, "n/b/f")


def test_changes_during_the_walk_after_an_overflow_are_covered(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(30):
        (field.root / f"{i}/a/b").mkdir(parents=True)
    field.add()
    overflow(field, monkeypatch)
    field.clock.tick = 0.01
    moves = iter(range(30))
    while field.watcher.is_walking:
        field.watcher.work(0.05)
        for i in itertools.islice(moves, 1):
            (field.root / f"{i}/a").rename(field.root / f"{29 - i}/moved")
            write(field.root / f"{29 - i}/moved/b/f")
        field.watcher.read()
    field.clock.tick = 0
    field.calm()
    lines_up(field)


def test_rename_while_a_directory_is_scanned_is_no_second_mount(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    (field.root / "a/deep").mkdir(parents=True)
    field.add()
    open_directory = Opener.open

    def opening(self: Opener, directory: Directory) -> int:
        # Its new name is open by now; then it has its former one again.
        if directory.name == b"a" and (field.root / "b").exists():
            (field.root / "b").rename(field.root / "a")
        return open_directory(self, directory)

    (field.root / "a").rename(field.root / "b")
    with monkeypatch.context() as patch:
        patch.setattr(Opener, "open", opening)
        field.watcher._walker.rescan()
        field.watcher.work(1.0)
    assert (field.root / "a").exists()
    assert field.watcher.coverage.unwatched() == (0, "")
    field.settle()
    field.calm()
    lines_up(field)


# Depth ---------------------------------------------------------------------------------------------------


def dig(root: Path, levels: int, length: int) -> bytes:
    """Make directories within each other, with a file in the last; the path of that from the root."""
    fd = os.open(root, DIRECTORY)
    path = b""
    for level in range(levels):
        each = b"%05d" % level + b"x" * (length - 5)
        os.mkdir(each, dir_fd=fd)
        inner = os.open(each, DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = inner
        path += each + b"/"
    os.close(os.open(b"f", os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o644, dir_fd=fd))
    os.close(fd)
    return path + b"f"


@pytest.fixture
def fill(field: Field) -> Iterator[None]:
    """Removes what is too deep for others to remove."""
    yield
    for place in (field.root, field.outside):
        shutil.rmtree(place)


@pytest.mark.usefixtures("fill")
@pytest.mark.parametrize(("levels", "length"), [(300, 50), (600, 5)])
def test_tree_deeper_than_path_max_is_watched(field: Field, levels: int, length: int) -> None:
    dig(field.root, levels, length)
    field.add()
    lines_up(field)
    assert field.watcher.coverage.directories == levels + 1


@pytest.mark.usefixtures("fill")
@pytest.mark.parametrize(("levels", "length"), [(300, 50), (600, 5)])
def test_directories_made_deeper_than_path_max_are_watched(field: Field, levels: int, length: int) -> None:
    field.add()
    path = dig(field.root, levels, length)
    recorded = field.recorded()
    above = path.rpartition(b"/")[0]
    assert listing(above) in recorded
    lines_up(field)


@pytest.mark.usefixtures("fill")
def test_deep_tree_renamed_at_the_top_reports_changes_at_the_bottom(
    field: Field,
) -> None:
    path = dig(field.root, 300, 50)
    field.add()
    top, _, rest = path.partition(b"/")
    os.rename(os.fsencode(field.root) + b"/" + top, os.fsencode(field.root) + b"/top")
    field.settle()
    field.calm()
    lines_up(field)
    field.take()
    fd = os.open(field.root, DIRECTORY)
    for each in (b"top/" + rest).split(b"/")[:-1]:
        inner = os.open(each, DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(os.open(b"g", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=fd))
    os.close(fd)
    field.calm()
    assert set(field.take()) == {name(b"top/" + rest[:-1] + b"g")}


@pytest.mark.usefixtures("fill")
def test_deep_tree_needs_no_more_descriptors_than_a_flat_one(field: Field) -> None:
    path = dig(field.root, 300, 5)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 150, hard))
    try:
        field.add()
        top, _, _ = path.partition(b"/")
        os.rename(os.fsencode(field.root) + b"/" + top, os.fsencode(field.root) + b"/top")
        # A slice of the walk may begin at any depth.
        field.clock.tick = 0.001
        field.settle()
        field.clock.tick = 0
        assert field.watcher.coverage.unwatched() == (0, "")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    lines_up(field)


# Churn ---------------------------------------------------------------------------------------------------


Signature = tuple[object, ...]


class Mirror:
    """A node without rsync: keeps what it is told to look at, by the rules for names and relists."""

    def __init__(self, root: Path, clock: Clock) -> None:
        self.root = os.fsencode(root)
        self.clock = clock
        self.journal = Journal()
        self.cursor = 0
        self.entries: dict[bytes, Signature] = {}
        self.due_full = False
        self.lost_times = 0

    def record(self, change: Change, now: float) -> None:
        self.journal.record(change, now)

    def gone(self, tree: int, path: bytes, now: float, step: Step = Step.REMOVED) -> None:
        self.journal.gone(tree, path, now, step)

    def directory_left(self, _tree: int, _path: bytes) -> None:
        pass

    def renamed(self, tree: int, rename: Rename) -> None:
        self.journal.renamed(tree, rename)

    def walked(self, _tree: int, _now: float) -> None:
        self.due_full = True

    def caught_up(self, _tree: int, _now: float) -> None:
        raise AssertionError("there was no earlier process")

    def refiltered(self, _tree: int, _now: float) -> None:
        raise AssertionError("nobody has changed the rules")

    def lost(self, _tree: int, why: str) -> None:
        raise AssertionError(f"the root was never touched: {why}")

    def source(self, path: bytes) -> Signature | None:
        try:
            info = os.lstat(self.root + b"/" + path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        kind = stat.S_IFMT(info.st_mode)
        common = (kind, info.st_uid, info.st_gid)
        if kind == stat.S_IFDIR:
            return (*common, info.st_mode)
        if kind == stat.S_IFLNK:
            return (*common, os.readlink(self.root + b"/" + path))
        return (*common, info.st_mode, info.st_size, info.st_mtime_ns)

    def all_of_source(self) -> dict[bytes, Signature]:
        found: dict[bytes, Signature] = {}
        todo = [b""]
        while todo:
            above = todo.pop()
            for each in os.listdir(self.root + b"/" + above):
                path = above + b"/" + each if above else each
                signature = self.source(path)
                assert signature is not None
                found[path] = signature
                if signature[0] == stat.S_IFDIR:
                    todo.append(path)
        return found

    def sync(self) -> None:
        """Take what the journal has since the last time."""
        if self.due_full:
            self.due_full = False
            self.entries = self.all_of_source()
        changes = self.journal.since(self.cursor)
        assert changes is not None
        self.cursor = self.journal.head
        wires = current_names(
            os.fsdecode(self.root), [c.wire for c in changes], lambda _path, _is_directory: False
        )
        for wire in wires.send:
            path = wire.rstrip(b"/") if wire != b"./" else b""
            if path:
                self._one(path)
            if wire.endswith(b"/"):
                self._list(path)
        self.journal.drop_confirmed(self.cursor)

    def _one(self, path: bytes) -> None:
        signature = self.source(path)
        if signature is None or signature[0] != stat.S_IFDIR:
            self._remove(path)
        if signature is not None:
            at = path.rpartition(b"/")[0]
            while at and at not in self.entries:
                above = self.source(at)
                assert above is not None
                self.entries[at] = above
                at = at.rpartition(b"/")[0]
            self.entries[path] = signature

    def _list(self, path: bytes) -> None:
        prefix = path + b"/" if path else b""
        there = {prefix + each for each in os.listdir(self.root + b"/" + path)}
        here = [p for p in self.entries if p.startswith(prefix) and b"/" not in p[len(prefix) :]]
        for each in {*there, *here}:
            self._one(each)

    def _remove(self, path: bytes) -> None:
        for each in [p for p in self.entries if p == path or p.startswith(path + b"/")]:
            del self.entries[each]

    def differences(self) -> list[str]:
        """What is not the same on both sides."""
        source = self.all_of_source()
        return [
            f"{path!r}: source {source.get(path)} mirror {self.entries.get(path)}"
            for path in sorted(source.keys() | self.entries.keys())
            if source.get(path) != self.entries.get(path)
        ]


@pytest.mark.parametrize("operations", [150, 600])
@pytest.mark.parametrize("run", range(4))
def test_churn_ends_with_all_watched_and_a_level_mirror(
    tmp_path: Path, seed: int, operations: int, run: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(tmp_path, seed + run, operations, monkeypatch)


@pytest.mark.parametrize("run", range(4))
def test_churn_with_few_watches_ends_with_a_level_mirror(
    tmp_path: Path, seed: int, run: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL", "inosync.watch.watches")  # names are in it that pytest-xdist cannot pass on
    play(tmp_path, seed + run, 150, monkeypatch, watches=8)


def exchange_any(mirror: Mirror, churn: Churn, dice: random.Random) -> None:
    """Let two entries of the tree change places, unless one holds the other."""
    entries = sorted(mirror.all_of_source())
    if len(entries) < 2:
        return
    one, two = dice.sample(entries, 2)
    if not one.startswith(two + b"/") and not two.startswith(one + b"/"):
        exchange(mirror.root + b"/" + one, mirror.root + b"/" + two)
        churn.log.append(f"{len(churn.log)} exchange {one!r} and {two!r}")


def play(home: Path, seed: int, operations: int, monkeypatch: pytest.MonkeyPatch, watches: int = 0) -> None:
    """Change a tree while a watcher reads, walks and waits in any order; then compare."""
    print(f"churn seed {seed}")
    dice = random.Random(seed)
    field = Field(home)
    mirror = Mirror(field.root, field.clock)
    field.watcher.close()
    field.watcher = Watcher(HardLinks(mirror, field.clock), field.clock)
    churn = Churn(os.fsencode(field.root), seed, os.fsencode(field.outside))
    churn.run(40)
    if watches:
        limit(field, watches, monkeypatch)
    # Events come a few at a time, so that walks fall between any two of them.
    monkeypatch.setattr(inotify, "_READ_BYTES", dice.choice((300, 600, 4096)))
    field.watcher.roots.add(TREE, str(field.root), EVENTS, lambda _path, _is_directory: False)
    for _ in range(operations):
        if dice.random() < 0.04:
            exchange_any(mirror, churn, dice)
        else:
            churn.step()
        for _ in range(dice.choice((0, 0, 1, 2, 6))):
            field.clock.tick = 0.001
            match dice.randrange(5):
                case 0 | 1:
                    field.watcher.read()
                case 2 | 3:
                    field.watcher.work(dice.choice((0.0005, 0.003, 0.02)))
                case 4:
                    field.clock.now += dice.choice((0.0, 0.05, 0.3, 2.0, 30.0 if watches else 0.0))
                    field.watcher.run_due()
            field.clock.tick = 0
        if dice.random() < 0.05:
            mirror.sync()
    field.calm()
    if watches:
        # What is moved between places that nobody watches may be found there one round after the other.
        for _ in range(3):
            field.later(EVERY)
        mirror.sync()
        differences = mirror.differences()
        assert differences == [], "\n".join([*differences, churn.tail(operations)])
        monkeypatch.undo()
        field.later(EVERY)
        field.calm()
    mirror.sync()
    watched, existing = field.watched(), inodes(field.root)
    assert watched == existing, churn.tail(operations)
    assert field.watcher.coverage.unwatched() == (0, ""), churn.tail(operations)
    differences = mirror.differences()
    assert differences == [], "\n".join([*differences, churn.tail(operations)])
    assert field.watcher.coverage.directories == len(existing)
    field.watcher.close()
