"""The tree of directory objects, and opening them where others rename and replace them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from inosync.system import entries
from inosync.watch import tree
from inosync.watch.tree import Directory, Opener, Replaced, Root, join, locate, open_kid, status_at


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """A root with the known directories a/b/c, which exist."""
    (tmp_path / "root/a/b/c").mkdir(parents=True)
    made = Root(1, str(tmp_path / "root"), 0, lambda _path, _is_directory: False)
    made.new_kid(b"a").new_kid(b"b").new_kid(b"c")
    return made


@pytest.fixture
def opener() -> Iterator[Opener]:
    made, before = Opener(), len(os.listdir("/proc/self/fd"))
    yield made
    made.close()
    assert len(os.listdir("/proc/self/fd")) == before


def at(root: Root, path: bytes) -> Directory:
    found = root.at(path)
    assert found is not None
    return found


def test_locate_follows_renames_and_knows_what_is_detached(root: Root) -> None:
    c = at(root, b"a/b/c")
    assert locate(c) == (root, b"a/b/c")
    assert locate(root) == (root, b"")
    root.attach(at(root, b"a/b"), b"n")
    assert locate(c) == (root, b"n/c")
    assert root.at(b"a/b") is None
    at(root, b"n").detach()
    assert locate(c) is None
    assert root.at(b"n/c") is None


def test_detached_directory_leaves_its_successor_in_place(root: Root) -> None:
    a = at(root, b"a")
    successor = Directory(b"a")
    root.attach(successor, b"a")
    a.detach()
    assert root.kid(b"a") is successor


def test_release_kids_detaches_all_of_them(root: Root) -> None:
    a, other = at(root, b"a"), root.new_kid(b"other")
    assert root.release_kids() == [a, other]
    assert root.kids is None
    assert a.parent is other.parent is None


def test_join_and_status_at_take_the_root_as_the_empty_path(root: Root) -> None:
    assert (join(b"", b"f"), join(b"a", b"f")) == (b"f", b"a/f")
    status = status_at(root, b"a/b")
    assert status is not None
    assert status.st_ino == os.stat(f"{root.path}/a/b").st_ino
    assert status_at(root, b"none") is None


def test_opener_opens_what_the_path_leads_to(root: Root, opener: Opener) -> None:
    for path in (b"a/b/c", b"", b"a"):
        found = os.fstat(opener.open(at(root, path)))
        assert found.st_ino == os.stat(os.path.join(os.fsencode(root.path), path)).st_ino


def test_opener_follows_no_symlink_below_the_root(root: Root, opener: Opener, tmp_path: Path) -> None:
    (tmp_path / "root/a").rename(tmp_path / "away")
    (tmp_path / "root/a").symlink_to(tmp_path / "away")
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        opener.open(at(root, b"a/b"))


def test_opener_follows_a_symlink_to_the_root(root: Root, opener: Opener, tmp_path: Path) -> None:
    (tmp_path / "root").rename(tmp_path / "real")
    (tmp_path / "root").symlink_to("real")
    assert opener.open(at(root, b"a/b")) >= 0


def test_opener_refuses_another_root(root: Root, opener: Opener, tmp_path: Path) -> None:
    root.identity = entries.identity(root.path)
    assert opener.open(root) >= 0
    opener.close()
    (tmp_path / "root").rename(tmp_path / "away")
    with pytest.raises(Replaced, match="No such file"):
        opener.open(at(root, b"a"))
    (tmp_path / "root/a").mkdir(parents=True)
    with pytest.raises(Replaced, match="is another directory now"):
        opener.open(at(root, b"a"))


def test_opener_refuses_what_is_detached(root: Root, opener: Opener) -> None:
    a = at(root, b"a")
    a.detach()
    with pytest.raises(FileNotFoundError):
        opener.open(a)
    with pytest.raises(FileNotFoundError):
        open_kid(b"a", -1)


def test_opener_holds_no_more_than_its_limit(
    root: Root, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "_MAX_HELD", 2)
    before = len(os.listdir("/proc/self/fd"))
    assert os.fstat(opener.open(at(root, b"a/b/c"))).st_ino == os.stat(f"{root.path}/a/b/c").st_ino
    assert len(os.listdir("/proc/self/fd")) == before + 2
