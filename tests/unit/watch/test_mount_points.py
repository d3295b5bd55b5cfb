"""Which watched directories are looked at when the mount points change. Table and walker are played."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import pytest

from inosync.watch.mount_points import MountPoints
from inosync.watch.tree import Directory, Root


class World:
    """One root with the directories a, a/b and c, and mount points that the test moves."""

    def __init__(self, home: Path) -> None:
        self.home = os.fsencode(home)
        self.root = Root(1, str(home), 0, lambda _path, _is_directory: False)
        self.root.identity = 1, 2
        self.a, self.c = self.root.new_kid(b"a"), self.root.new_kid(b"c")
        self.b = self.a.new_kid(b"b")
        self.known: set[bytes] = set()
        self.before: set[bytes] = set()
        self.looked_at: list[bytes] = []
        """Paths at which a walk was begun if another directory is there."""
        self.walked: list[Root] = []
        self.is_replaced = True
        self.heard = 0
        played = cast(Any, self)
        self.points = MountPoints(played, played, played, played)

    def below(self, *paths: str) -> set[bytes]:
        return {self.home + b"/" + os.fsencode(path) for path in paths}

    def after(self, mounted: set[bytes]) -> list[bytes]:
        """Return which paths are looked at once these are the mount points."""
        self.looked_at.clear()
        self.known = mounted
        self.points.check()
        return sorted(self.looked_at)

    # As the table

    def take(self, has_changed: bool) -> set[bytes]:
        before, self.before = self.before, set(self.known)
        return before | self.known if has_changed or before != self.known else set()

    # As the roots, the walker and the listener

    def present(self) -> list[Root]:
        return [self.root] if self.root.identity else []

    def walk_if_replaced(self, root: Root, path: bytes) -> bool:
        assert root is self.root
        self.looked_at.append(path)
        return self.is_replaced

    def walk_tree(self, root: Root) -> None:
        self.walked.append(root)

    def directories_changed(self) -> None:
        self.heard += 1


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize(
    ("mounted", "looked_at"),
    [
        ([], []),
        (["a/b"], [b"a/b"]),
        (["a", "a/b", "not/known"], [b"a", b"a/b", b"not/known"]),
        (["", "../elsewhere", "../beside", "../"], []),
    ],
)
def test_what_is_mounted_below_a_root_is_looked_at(
    world: World, mounted: list[str], looked_at: list[bytes]
) -> None:
    assert world.after({os.path.normpath(path) for path in world.below(*mounted)}) == looked_at
    assert world.heard == len(looked_at)
    assert world.points.known == world.known


def test_path_with_the_same_beginning_is_not_below_the_root(world: World) -> None:
    assert world.after({world.home + b"x/a"}) == []


def test_directory_in_its_place_is_no_news(world: World) -> None:
    world.is_replaced = False
    assert world.after(world.below("a")) == [b"a"]
    assert world.heard == 0


def test_what_was_unmounted_is_looked_at_once_more(world: World) -> None:
    assert world.after(world.below("a/b")) == [b"a/b"]
    assert world.after(set()) == [b"a/b", b"a/b"], "by its former point, and as what was mounted"
    assert world.after(set()) == []
    assert world.walked == []


def test_table_that_has_not_changed_is_not_followed(world: World) -> None:
    world.after(world.below("a/b"))
    world.looked_at.clear()
    world.points.check(has_changed=False)
    assert world.looked_at == []


def test_mount_that_was_renamed_above_is_found_at_its_new_place(world: World) -> None:
    world.after(world.below("a/b"))
    world.c.attach(world.a, b"moved")
    assert b"c/moved/b" in world.after(set())


@pytest.mark.parametrize("is_parent_known", [True, False])
def test_mount_that_has_left_with_its_parent_has_all_walked(world: World, is_parent_known: bool) -> None:
    world.after(world.below("a/b"))
    gone: Directory = world.b if is_parent_known else world.a
    gone.detach()
    if not is_parent_known:
        world.b.detach()
    world.after(set())
    assert world.walked == ([] if is_parent_known else [world.root])


def test_root_that_is_lost_is_left_alone(world: World) -> None:
    world.after(world.below("a/b"))
    world.root.identity = None
    assert world.after(world.below("a")) == []
    assert world.walked == []
