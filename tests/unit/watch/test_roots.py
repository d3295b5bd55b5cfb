"""Trees over the kernel's inotify: added, lost, found, removed, and given other rules and events."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
from support.watched_tree import (
    EVENTS,
    LOST,
    REFILTERED,
    TREE,
    WALKED,
    Field,
    assert_seen_at,
    gone,
    inodes,
    lines_up,
    listing,
    name,
    no_caches,
    overflow,
    write,
)

from inosync.watch import inotify
from inosync.watch.inotify import Inotify, InotifyError
from inosync.watch.poller import DEFAULT_INTERVAL_SECONDS as EVERY
from inosync.watch.watcher import CHECK_SECONDS

# Other rules ---------------------------------------------------------------------------------------------


def leaving_out(*paths: bytes) -> Callable[[bytes, bool], bool]:
    return lambda path, _is_directory: path in paths


def test_rules_for_anywhere_list_only_what_was_not_watched(
    field: Field,
) -> None:
    for path in ("a/b/c", "cache/b", "d/cache"):
        (field.root / path).mkdir(parents=True)
    field.add(leaving_out(b"a/b"))
    field.watcher.roots.refilter(TREE, leaving_out(b"cache", b"d/cache"), None)
    assert field.watcher.incomplete_trees == {TREE}
    field.settle()
    # What was not watched before is listed: it might change before all of it is compared.
    assert sorted(field.take()) == sorted([listing(b"a/b"), listing(b"a/b/c"), REFILTERED])
    assert field.watcher.incomplete_trees == set()
    assert field.watched() == inodes(field.root, lambda path: path in (b"cache", b"d/cache"))


def test_rules_for_some_places_are_applied_only_there(field: Field) -> None:
    for path in ("a/b/c", "cache/deep", "other", "gone"):
        (field.root / path).mkdir(parents=True)
    write(field.root / "file")
    field.add(leaving_out(b"cache", b"a/b", b"file", b"missing"))
    places = [b"cache", b"a/b", b"file", b"missing", b"gone", b"no/where", b"a/b/c"]
    field.watcher.roots.refilter(TREE, leaving_out(b"gone"), places[:-1])
    field.settle()
    recorded = field.take()
    listed = [listing(path) for path in (b"cache", b"cache/deep", b"a/b", b"a/b/c")]
    names = [name(path) for path in (b"cache", b"a/b", b"file", b"missing", b"no/where")]
    assert sorted(recorded) == sorted(listed + names)
    assert field.watched() == inodes(field.root, lambda path: path == b"gone")
    field.watcher.roots.refilter(TREE, leaving_out(b"a/b"), [b"a/b", b"gone"])
    field.settle()
    assert sorted(field.take()) == sorted([name(b"gone"), listing(b"gone")])
    assert field.watched() == inodes(field.root, lambda path: path == b"a/b")


def test_rules_may_change_while_the_tree_is_walked(field: Field) -> None:
    for number in range(20):
        (field.root / f"{number}/cache/deep").mkdir(parents=True)
    field.watcher.roots.add(TREE, str(field.root), EVENTS, no_caches)
    field.clock.tick = 0.001
    field.watcher.work(0.003)
    field.clock.tick = 0
    field.watcher.roots.refilter(TREE, lambda _path, _is_directory: False, None)
    field.settle()
    assert {WALKED, REFILTERED} <= set(field.take())
    lines_up(field)


def test_directories_moved_while_rules_change_are_listed(field: Field) -> None:
    for number in range(20):
        (field.root / f"{number}/a/b").mkdir(parents=True)
    field.add()
    field.watcher.roots.refilter(TREE, no_caches, None)
    for number in range(20):
        field.clock.tick = 0.001
        field.watcher.work(0.001)
        field.clock.tick = 0
        (field.root / f"{number}/a").rename(field.root / f"{19 - number}/moved-{number}")
        (field.root / f"{number}/cache").mkdir()
    recorded = field.recorded()
    for number in range(20):
        new = f"{19 - number}/moved-{number}".encode()
        assert {listing(new), listing(new + b"/b"), gone(b"%d/a" % number)} <= recorded
    assert field.watched() == inodes(field.root, lambda path: no_caches(path, True))


@pytest.mark.parametrize("places", [None, [b"cache"]])
def test_rules_changed_while_the_root_is_away_apply_when_it_is_back(
    field: Field, places: list[bytes] | None
) -> None:
    (field.root / "cache").mkdir()
    field.add(no_caches)
    field.root.rename(field.outside / "tree")
    assert field.recorded() == {LOST}
    field.watcher.roots.refilter(TREE, lambda _path, _is_directory: False, places)
    assert field.recorded() == set()
    (field.outside / "tree").rename(field.root)
    field.calm()
    assert field.take() == [WALKED]
    lines_up(field)


def test_overflow_while_rules_change_is_repaired(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        (field.root / f"{number}/cache/deep").mkdir(parents=True)
    field.add(no_caches)
    field.watcher.roots.refilter(TREE, lambda _path, _is_directory: False, None)
    field.clock.tick = 0.001
    field.watcher.work(0.003)
    field.clock.tick = 0
    overflow(field, monkeypatch)
    field.settle()
    assert {WALKED, REFILTERED} <= set(field.take())
    lines_up(field)


# Roots ---------------------------------------------------------------------------------------------------


def test_root_renamed_away_is_lost_and_found_when_it_is_back(field: Field) -> None:
    (field.root / "a/b").mkdir(parents=True)
    field.add()
    field.root.rename(field.outside / "elsewhere")
    assert field.recorded() == {LOST}
    field.calm()
    assert field.take() == []
    assert field.watched() == set()
    (field.outside / "elsewhere").rename(field.root)
    field.later(CHECK_SECONDS * 1.1)
    assert field.take()[-1:] == [WALKED]
    lines_up(field)
    assert_seen_at(field, "a/b/f")


def test_replaced_root_is_lost_and_the_new_one_walked(field: Field) -> None:
    (field.root / "a").mkdir()
    field.add()
    field.root.rename(field.outside / "elsewhere")
    (field.root / "b").mkdir(parents=True)
    field.settle()
    field.calm()
    assert field.take() == [LOST, WALKED]
    lines_up(field)
    assert_seen_at(field, "b/f")


def test_root_whose_parent_is_renamed_is_lost_at_the_next_check(tmp_path: Path) -> None:
    (tmp_path / "parent").mkdir()
    field = Field(tmp_path / "parent")
    (field.root / "a").mkdir()
    field.add()
    (tmp_path / "parent").rename(tmp_path / "moved")
    assert field.recorded() == set()
    field.later(CHECK_SECONDS * 1.1)
    assert field.take() == [LOST]
    (tmp_path / "moved").rename(tmp_path / "parent")
    field.later(CHECK_SECONDS * 1.1)
    assert field.take()[-1:] == [WALKED]
    lines_up(field)
    field.watcher.close()


def test_root_away_during_its_walk_is_not_reported_as_walked(tmp_path: Path) -> None:
    # Renaming a parent sends no event, so only the walk itself can notice before the next check.
    (tmp_path / "parent").mkdir()
    field = Field(tmp_path / "parent")
    for i in range(20):
        (field.root / f"{i}/kid").mkdir(parents=True)
    field.watcher.roots.add(TREE, str(field.root), EVENTS, lambda _path, _is_directory: False)
    field.clock.tick = 0.01
    while field.watcher.coverage.directories < 5:
        field.watcher.work(0.001)
    field.clock.tick = 0
    (tmp_path / "parent").rename(tmp_path / "moved")
    field.settle()
    assert WALKED not in field.take()
    (tmp_path / "moved").rename(tmp_path / "parent")
    field.settle()
    field.calm()
    assert field.take()[-1:] == [WALKED]
    lines_up(field)
    field.watcher.close()


def test_root_away_for_a_moment_loses_no_watch_for_good(tmp_path: Path) -> None:
    (tmp_path / "parent").mkdir()
    field = Field(tmp_path / "parent")
    (field.root / "a/b").mkdir(parents=True)
    field.add()
    (field.root / "a").rename(field.root / "n")
    (tmp_path / "parent").rename(tmp_path / "moved")
    field.settle()
    (tmp_path / "moved").rename(tmp_path / "parent")
    field.settle()
    field.calm()
    field.take()
    lines_up(field)
    assert_seen_at(field, "n/b/f")
    field.watcher.close()


def test_root_without_a_watch_is_polled_and_tried_again(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    (field.root / "a").mkdir()
    field.add()
    field.root.rename(field.outside / "elsewhere")
    field.settle()
    (field.outside / "elsewhere").rename(field.root)

    def refused(_self: Inotify, _directory: int, _mask: int) -> int:
        raise InotifyError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(Inotify, "add", refused)
        patch.setattr(Inotify, "add_near", lambda _self, _name, _mask: -1)
        field.calm()
        assert field.take() == [LOST, WALKED]
        assert field.watched() == set()
        field.later(EVERY)
        field.take()
        write(field.root / "a/f")
        write(field.root / "f")
        field.later(EVERY)
        assert set(field.take()) == {listing(b"a"), listing(b"")}
        field.later(EVERY + CHECK_SECONDS)
    field.later(EVERY)
    lines_up(field)
    field.take()
    assert_seen_at(field, "a/g")


def test_attributes_of_the_root_are_recorded_as_its_listing(field: Field) -> None:
    field.add()
    field.root.chmod(0o750)
    assert field.recorded() == {listing(b"")}


def test_removed_tree_is_not_watched(field: Field) -> None:
    (field.root / "a/b").mkdir(parents=True)
    field.add()
    field.watcher.roots.remove(TREE)
    field.settle()
    assert field.watched() == set()
    write(field.root / "a/f")
    field.calm()
    assert field.take() == []


def test_tree_may_be_removed_and_added_again_at_once(field: Field) -> None:
    (field.root / "a/cache/b").mkdir(parents=True)
    field.add()
    field.watcher.roots.remove(TREE)
    field.watcher.roots.add(8, str(field.root), EVENTS, no_caches)
    field.settle()
    field.calm()
    assert field.take() == [("walked", 8, b"", None)]
    assert field.watched() == inodes(field.root, lambda path: no_caches(path, True))


def test_tree_that_cannot_be_watched_is_refused(field: Field) -> None:
    with pytest.raises(FileNotFoundError):
        field.watcher.roots.add(TREE, str(field.root / "none"), EVENTS, lambda _path, _is_directory: False)
    write(field.root / "file")
    with pytest.raises(NotADirectoryError):
        field.watcher.roots.add(TREE, str(field.root / "file"), EVENTS, lambda _path, _is_directory: False)
    field.settle()
    field.calm()
    assert field.take() == []


def test_other_events_are_recorded_after_set_events(field: Field) -> None:
    (field.root / "a").mkdir()
    write(field.root / "a/f")
    field.add(events=frozenset({"IN_CLOSE_WRITE", "IN_CREATE", "IN_DELETE"}))
    (field.root / "a/f").chmod(0o600)
    assert field.recorded() == set()
    field.watcher.roots.set_events(TREE, EVENTS)
    assert {listing(b""), listing(b"a")} <= field.recorded()
    (field.root / "a/f").chmod(0o640)
    assert field.recorded() == {name(b"a/f")}
    wanted = inotify.EVENTS["IN_ATTRIB"] | inotify.EVENTS["IN_CLOSE_WRITE"] | inotify.IN_CREATE
    assert all(mask & wanted == wanted for mask in field.masks().values())
    lines_up(field)
