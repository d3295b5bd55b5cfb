"""Names that no transfer can send as they stand: the node gets what it can have, and is owed no more."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from support.rsyncd import MakeRsyncd
from support.warm import OK, MakeWarm, Warm

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs a node as another user")

UNCONVERTIBLE = "\U0001f60d"
"""A name that ISO 8859-1 does not have."""


@pytest.fixture
def latin(warm: MakeWarm) -> Warm:
    w = warm({"a": ""}, extra="--iconv=UTF-8,ISO-8859-1")
    w.change("stays")  # an empty tree would be a loss
    w.daemon.start()
    w.until_level()
    return w


def test_unconvertible_name_is_owed_while_it_exists(latin: Warm) -> None:
    latin.change(UNCONVERTIBLE)
    latin.until_title("a", r"\[degraded\] cannot convert filename: .*")
    latin.change("other")
    latin.until_arrived("a", "other")
    (latin.tree() / UNCONVERTIBLE).unlink()
    latin.until_title("a", OK)
    latin.until_level()


def test_link_waits_for_a_name_below_its_target_that_was_owed_before(latin: Warm) -> None:
    tree, copy = latin.tree(), latin.copy("a")

    def publish(release: str) -> None:
        (latin.home / "fresh-link").symlink_to(f"releases/{release}")
        (latin.home / "fresh-link").rename(tree / "current")

    for release in "12":
        (tree / "releases" / release).mkdir(parents=True)
    publish("1")
    latin.until_level()
    (tree / "releases/2" / UNCONVERTIBLE).touch()
    latin.until_title("a", r"\[degraded\] cannot convert filename: .*")
    publish("2")
    latin.until_title("a", r"\[degraded\] .*; 1 name waits for that, such as current")
    (tree / "stays").write_text("an ordinary change")
    latin.until_arrived("a", "stays", "an ordinary change")
    latin.change("other")  # what was moved to its place waits, but not for ever
    latin.until_arrived("a", "other")
    assert os.readlink(copy / "current") == "releases/1"
    (tree / "releases/2" / UNCONVERTIBLE).unlink()
    latin.until_level()
    assert os.readlink(copy / "current") == "releases/2"


def test_unconvertible_names_of_a_directory_are_paid_when_it_goes(latin: Warm) -> None:
    for name in (UNCONVERTIBLE, "directory"):
        (latin.tree() / name / UNCONVERTIBLE).mkdir(parents=True)
    latin.change("directory/file")
    latin.until_arrived("a", "directory/file")
    latin.until_title("a", r"\[degraded\] cannot convert filename: .*")
    for name in (UNCONVERTIBLE, "directory"):
        shutil.rmtree(latin.tree() / name)
    latin.until_title("a", OK)
    latin.until_level()


def test_renamed_unconvertible_name_arrives(latin: Warm) -> None:
    latin.change(UNCONVERTIBLE, "the content")
    latin.until_title("a", r"\[degraded\] cannot convert filename: .*")
    (latin.tree() / UNCONVERTIBLE).rename(latin.tree() / "plain")
    latin.until_arrived("a", "plain", "the content")
    latin.until_title("a", OK)


def lock(directory: Path) -> None:
    """Take the write permission from a tree, as Go's module cache does."""
    for path in (directory, *directory.rglob("*")):
        path.chmod(0o555)


def unlock(directory: Path) -> None:
    for path in (directory, *directory.rglob("*")):
        path.chmod(0o755)


@pytest.fixture
def locked(warm: MakeWarm, rsyncd: MakeRsyncd, tmp_path: Path) -> Warm:
    """A node of an ordinary user that has a tree without write permission."""
    home = tmp_path / "nodes/a"
    server = rsyncd({"a": home}, options={"uid": "65534", "gid": "65534", "use chroot": "no"})
    os.chown(home, 65534, 65534)
    w = warm({"a": server.url("a")}, extra=["--no-owner", "--no-group"])
    (w.tree() / "mod/b/c").mkdir(parents=True)
    for name in ("mod/b/f", "mod/b/c/g"):
        (w.tree() / name).write_text("content")
    lock(w.tree() / "mod/b")
    w.daemon.start()
    w.until_title("a", OK)
    assert (w.copy("a") / "mod/b/c/g").exists()
    return w


@needs_root
@pytest.mark.parametrize("what", ["mod/b", "mod", "mod/b/c", "mod/b/f"])
def test_read_only_directory_is_removed_on_a_node_of_a_user(locked: Warm, what: str) -> None:
    path = locked.tree() / what
    if path.is_dir():
        shutil.rmtree(path)  # root needs no permission for that
    else:
        path.unlink()
    locked.change("after")
    locked.until_arrived("a", "after")
    locked.until_title("a", OK)
    assert not (locked.copy("a") / what).exists()
    assert locked.daemon.log().count("full mirror in ") == 1


@needs_root
@pytest.mark.parametrize("by", ["a file", "a link", "another directory"])
def test_read_only_directory_is_replaced_on_a_node_of_a_user(locked: Warm, by: str) -> None:
    path = locked.tree() / "mod/b"
    shutil.rmtree(path)
    if by == "a file":
        path.write_text("new")
    elif by == "a link":
        (locked.tree() / "new").write_text("new")
        path.symlink_to("../new")
    else:
        path.mkdir()
        (path / "new").write_text("new")
    locked.change("after")
    locked.until_arrived("a", "after")
    locked.until_title("a", OK)
    copy = locked.copy("a") / "mod/b"
    new = copy / "new" if by == "another directory" else copy
    assert new.read_text() == "new"
    assert copy.is_symlink() is (by == "a link")
    assert not (copy / "f").exists()


@needs_root
def test_read_only_directories_are_replaced_by_links_of_odd_names(locked: Warm) -> None:
    names = ["a*b", "a\\b", "[x]\\", "a?", "new\nline", "x!#:+"]
    for name in names:
        (locked.tree() / "mod" / name / "d").mkdir(parents=True)
        lock(locked.tree() / "mod" / name)
    (locked.tree() / "mod/axb").mkdir()
    locked.change("mod/axb/stays")
    locked.until_arrived("a", "mod/axb/stays")
    locked.until_title("a", OK)
    for name in names:
        shutil.rmtree(locked.tree() / "mod" / name)
        (locked.tree() / "mod" / name).symlink_to("axb")
    locked.change("after")
    locked.until_arrived("a", "after")
    locked.until_title("a", r"\[degraded\] .*")  # popt cannot have the last of the names in a rule
    locked.until_arrived("a", "mod/axb/stays")
    for name in names[:-1]:
        assert (locked.copy("a") / "mod" / name).is_symlink(), name


@needs_root
def test_read_only_directory_moved_away_and_changed_is_mirrored(locked: Warm) -> None:
    unlock(locked.tree() / "mod/b")
    (locked.tree() / "mod/b/c").rename(locked.tree() / "moved")
    lock(locked.tree() / "mod/b")
    locked.until_arrived("a", "moved/g")
    locked.until_title("a", OK)
    assert not (locked.copy("a") / "mod/b/c").exists()
