"""A search finds the names of files by their inode numbers, in the trees and nowhere else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inosync.watch.inode_search import Inode, InodeSearch, inode_of
from inosync.watch.tree import Directory, Name, Root, join, locate


class World:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.root = Root(1, str(home), 0, lambda path, _is_directory: path.endswith(b".tmp"))
        self.found: list[bytes] = []
        self.search = InodeSearch(self.note)

    def note(self, inode: Inode, name: Name) -> None:
        place = locate(name[0])
        assert place is not None
        assert inode in self.search.wanted
        self.found.append(join(place[1], name[1]))

    def known(self, path: str) -> Directory:
        """Make a directory that is watched."""
        (self.home / path).mkdir(parents=True)
        directory: Directory = self.root
        for part in path.encode().split(b"/"):
            directory = directory.kid(part) or directory.new_kid(part)
        return directory

    def inode(self, path: str) -> Inode:
        return inode_of(os.lstat(self.home / path))

    def run(self, *paths: str) -> set[bytes]:
        """Search for files; return the names that were found."""
        self.search.begin({self.inode(path): 100.0 for path in paths}, [self.root])
        while self.search.step():
            self.search.end_slice()
        assert list(self.search.end()) == [self.inode(path) for path in paths]
        found, self.found = set(self.found), []
        return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.known("a/b")
    for path in ("one", "other", "a/alone"):
        (tmp_path / path).touch()
    os.link(tmp_path / "one", tmp_path / "a/b/two")
    os.link(tmp_path / "other", tmp_path / "a/more")
    return made


def test_search_finds_every_name_of_the_files_it_is_for(world: World) -> None:
    assert world.run("one") == {b"one", b"a/b/two"}
    assert world.run("one", "other") == {b"one", b"a/b/two", b"other", b"a/more"}
    assert world.run("a/alone") == {b"a/alone"}


def test_search_leaves_out_excluded_names_and_unwatched_directories(world: World) -> None:
    (world.home / "new").mkdir()
    os.link(world.home / "one", world.home / "new/three")
    os.link(world.home / "one", world.home / "four.tmp")
    assert world.run("one") == {b"one", b"a/b/two"}


def test_search_takes_no_directory_and_no_symlink_for_a_file(world: World) -> None:
    (world.home / "link").symlink_to("one")
    assert world.run("link") == set()
    assert world.run("a") == set()


def test_search_passes_over_directories_that_have_gone(world: World) -> None:
    world.known("c")
    (world.home / "c").rmdir()
    (world.home / "a/b").rename(world.home / "moved")
    assert world.run("one") == {b"one"}


def test_search_that_is_ended_finds_nothing_more(world: World) -> None:
    world.search.begin({world.inode("one"): 100.0}, [world.root])
    world.search.end()
    assert not world.search.step()
    assert world.found == []
    assert world.search.wanted == {}
