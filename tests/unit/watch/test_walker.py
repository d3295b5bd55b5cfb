"""What counts as walking, in which order directories are walked, and when an end is reported."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.watched_tree import REFILTERED, TREE, WALKED, Clock, Recorder, listing

from inosync.watch.inotify import Inotify
from inosync.watch.poller import Poller
from inosync.watch.scan import Scanner
from inosync.watch.tree import Root, locate
from inosync.watch.walker import Walker
from inosync.watch.watches import Watches


class World:
    """A walker over a real directory, and a rule that excludes all names that end with "x"."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.clock, self.recorder, self.inotify = Clock(), Recorder(), Inotify()
        self.watches = Watches(self.inotify)
        self.replaced: list[str] = []
        self.scanner = Scanner(
            self.watches, self.recorder, lambda _root, why: self.replaced.append(why), self.clock
        )
        poller = Poller(self.scanner, self.watches.unwatched, self.clock, lambda: 0.0)
        self.walker = Walker(self.watches, self.scanner, poller, self.recorder, self.clock)
        self.root = Root(TREE, str(home), 0, lambda path, _is_directory: path.endswith(b"x"))

    def watched(self) -> set[str]:
        """Return the paths that are watched, from the root."""
        places = [locate(directory) for directory in self.watches.by_wd.values()]
        return {os.fsdecode(place[1]) or "." for place in places if place}

    def work(self) -> None:
        while not self.walker.is_idle:
            self.walker.work(1.0)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    for path in ("a/b", "a/x/deep", "c"):
        (tmp_path / path).mkdir(parents=True)
    made = World(tmp_path)
    made.walker.add(made.root)
    yield made
    made.inotify.close()


def test_walk_of_a_new_tree_reports_its_end_and_no_directory(world: World) -> None:
    assert world.walker.is_walking
    assert world.walker.incomplete_trees == {TREE}
    world.work()
    assert world.recorder.take() == [WALKED]
    assert not world.walker.is_walking
    assert world.walker.incomplete_trees == set()
    assert world.watched() == {".", "a", "a/b", "c"}


def test_walk_of_a_directory_lists_it_and_all_below_it(world: World) -> None:
    world.work()
    world.recorder.take()
    a = world.root.at(b"a")
    assert a is not None
    world.walker.walk(a)
    assert world.walker.is_walking
    assert world.walker.incomplete_trees == set(), "one directory is not the tree"
    world.work()
    assert world.recorder.take() == [listing(b"a"), listing(b"a/b")]


def test_walk_at_applies_the_rules_at_one_path_only(world: World) -> None:
    world.work()
    world.recorder.take()
    world.root.excluded = lambda path, _is_directory: path == b"c"
    world.walker.walk_at(world.root, b"a/x")
    world.walker.walk_at(world.root, b"c")
    world.walker.walk_at(world.root, b"none/deep")
    world.work()
    assert set(world.recorder.take()) == {listing(b"a/x"), listing(b"a/x/deep")}
    assert world.watched() == {".", "a", "a/b", "a/x", "a/x/deep"}


def test_walk_if_replaced_finds_another_directory_at_the_path(world: World) -> None:
    world.work()
    assert not world.walker.walk_if_replaced(world.root, b"a/b")
    assert not world.walker.is_walking
    (world.home / "a/b").rename(world.home / "a/old")
    (world.home / "a/b").mkdir()
    assert world.walker.walk_if_replaced(world.root, b"a/b")
    assert world.walker.is_walking


def test_refilter_reports_its_end_and_lists_only_what_is_new(world: World) -> None:
    world.work()
    world.recorder.take()
    world.root.excluded = lambda path, _is_directory: path == b"c"
    world.walker.refilter(world.root)
    assert world.walker.incomplete_trees == {TREE}
    world.work()
    calls = world.recorder.take()
    assert calls[-1] == REFILTERED
    assert set(calls[:-1]) == {listing(b"a/x"), listing(b"a/x/deep")}
    assert world.watched() == {".", "a", "a/b", "a/x", "a/x/deep"}


def test_rescan_forgets_a_walk_that_is_under_way(world: World) -> None:
    world.clock.tick = 0.001
    world.walker.work(0.001)
    world.clock.tick = 0
    world.walker.rescan()
    world.work()
    assert world.recorder.take() == [WALKED]
    assert world.watched() == {".", "a", "a/b", "c"}


def test_abandoned_root_is_neither_watched_nor_walked(world: World) -> None:
    world.clock.tick = 0.001
    world.walker.work(0.003)
    world.clock.tick = 0
    world.walker.abandon(world.root)
    world.work()
    assert world.watches.by_wd == {}
    assert world.recorder.take() == []


def test_root_that_is_replaced_during_its_walk_is_reported(world: World) -> None:
    moved = world.home.with_name("moved")
    world.home.rename(moved)
    world.home.mkdir()
    world.walker.work(1.0)
    assert world.replaced == [f"{world.home} is another directory now"]
