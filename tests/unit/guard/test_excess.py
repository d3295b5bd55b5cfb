"""When removals are too many, and how that is said; over a real directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from inosync.config.checks import Share
from inosync.guard.excess import RemovalLimit, TreeRemovals
from inosync.system import entries


def nothing(_path: bytes, _is_directory: bool) -> bool:
    return False


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Eight entries; behind the symlink are more, which are not of the tree."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root/cache/deep").mkdir(parents=True)
    for number in range(20):
        (tmp_path / f"elsewhere/{number}").touch()
    for name in ("a", "b", "cache/c", "cache/deep/d", "cache/deep/e.tmp"):
        (tmp_path / "root" / name).touch()
    (tmp_path / "root/link").symlink_to("../elsewhere")
    return tmp_path / "root"


@pytest.mark.parametrize(
    ("excluded", "most", "found"),
    [
        ((), 100, 8),
        ((b"cache",), 100, 3),
        ((b"cache/deep/e.tmp", b"b"), 100, 6),
        ((), 1, 4),  # of the first directory
    ],
)
def test_entries_below_a_directory_are_counted_as_far_as_needed(
    root: Path, excluded: tuple[bytes, ...], most: int, found: int
) -> None:
    (root.parent / "wpath").symlink_to("root")
    for path in (root, root.parent / "wpath"):
        assert entries.count_below(str(path), lambda path, _is_directory: path in excluded, most) == found


@pytest.mark.parametrize(("removed", "excess"), [(2, False), (3, True)])
def test_share_is_of_what_was_there_before(root: Path, removed: int, excess: bool) -> None:
    limit, made = RemovalLimit(Share(20), 10.0), TreeRemovals()
    for _ in range(removed):
        made.add(b"x", 0.0, limit, False)
    assert bool(made.excess(str(root), nothing, 0.0, limit)) is excess


def test_share_of_a_tree_that_cannot_be_read_is_exceeded(tmp_path: Path) -> None:
    limit, made = RemovalLimit(Share(99), 10.0), TreeRemovals()
    assert made.add(b"x", 0.0, limit, False)
    assert made.excess(str(tmp_path / "gone"), nothing, 0.0, limit)


def test_excess_names_the_directory_and_is_said_once_for_each_number() -> None:
    limit, made = RemovalLimit(1, 10.0), TreeRemovals()
    assert not made.add(b"d/\xff/1", 0.0, limit, False)
    assert made.excess("/www", nothing, 0.0, limit) == ""
    assert made.further("/www", 0.0, limit) == ""
    assert made.add(b"d/\xff/2", 0.0, limit, False)
    text = "has lost {} entries, in {}, more than rmaxdelete (1) allows"
    assert made.excess("/www", nothing, 0.0, limit) == text.format(2, "/www/d/\udcff")
    assert made.further("/www", 0.0, limit) == ""
    made.add(b"d/3", 99.0, limit, True)
    assert made.further("/www", 99.0, limit) == text.format(3, "/www/d")
    assert made.further("/www", 99.0, limit) == ""
