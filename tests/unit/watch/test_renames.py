"""Which renames the watcher reports, from the kernel's own events."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.watched_tree import TREE, Field

from inosync.changes import WORTHWHILE_BYTES, Rename
from inosync.watch.renames import MAX_WAITING, RenamePairs

LARGE, SMALL = bytes(WORTHWHILE_BYTES), bytes(WORTHWHILE_BYTES - 1)


@pytest.fixture
def field(tmp_path: Path) -> Field:
    return Field(tmp_path)


def test_pairs_join_events_by_cookie_and_tree() -> None:
    pairs = RenamePairs()
    pairs.left(7, 1, b"a")
    pairs.left(8, 1, b"b")
    assert pairs.arrived(8, 1) == b"b"
    assert pairs.arrived(8, 1) is None, "a cookie is used up"
    assert pairs.arrived(7, 2) is None, "another tree"
    assert pairs.arrived(9, 1) is None, "it came from outside"


def test_pairs_forget_what_left_long_ago() -> None:
    pairs = RenamePairs()
    for cookie in range(MAX_WAITING + 1):
        pairs.left(cookie, 1, b"%d" % cookie)
    assert pairs.arrived(0, 1) is None
    assert pairs.arrived(1, 1) == b"1"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("d", "e", (b"d", b"e", True)),
        ("d", "other/deep/d", (b"d", b"other/deep/d", True)),
        ("d/sub", "d2", (b"d/sub", b"d2", True)),
        ("large", "other/deep/l", (b"large", b"other/deep/l", False)),
        ("large", "small", (b"large", b"small", False)),
        ("small", "s", None),
        ("link", "l", None),
        ("fifo", "f", None),
        ("ex/d", "new", None),
        ("d", "ex/new", None),
        ("hidden", "shown", None),
        ("large", "hidden", None),
    ],
)
def test_rename_is_reported_if_it_may_pay(
    field: Field, old: str, new: str, expected: tuple[bytes, bytes, bool] | None
) -> None:
    for directory in ("d/sub", "other/deep", "ex/d"):
        (field.root / directory).mkdir(parents=True)
    for name, content in (("large", LARGE), ("small", SMALL), ("hidden", LARGE)):
        (field.root / name).write_bytes(content)
    (field.root / "link").symlink_to("d")
    os.mkfifo(field.root / "fifo")
    field.add(excluded=lambda path, _is_directory: path in (b"ex", b"hidden"))
    (field.root / old).rename(field.root / new)
    field.settle()
    assert field.listener.renames == ([expected] if expected else [])
    assert field.listener.departures == ([old.encode()] if old in ("d", "d/sub") else [])


def test_rename_over_the_edge_of_the_tree_is_no_rename(field: Field) -> None:
    (field.root / "d").mkdir()
    (field.outside / "o").mkdir()
    field.add()
    (field.root / "d").rename(field.outside / "d")
    (field.outside / "o").rename(field.root / "o")
    (field.root / "o").rmdir()
    field.settle()
    assert field.listener.renames == []
    assert field.listener.departures == [b"d"]


def test_rename_between_two_trees_is_no_rename(field: Field) -> None:
    (field.root / "d").mkdir()
    field.add()
    field.watcher.roots.add(
        TREE + 1, str(field.outside), frozenset(("IN_MOVED_FROM", "IN_MOVED_TO")), lambda _path, _is: False
    )
    field.settle()
    (field.root / "d").rename(field.outside / "d")
    field.settle()
    assert field.listener.renames == []


def test_rename_comes_after_both_names_were_reported(field: Field) -> None:
    (field.root / "d").mkdir()
    field.add()
    seen: list[list[bytes]] = []

    def renamed(tree: int, rename: Rename) -> None:
        assert (tree, rename.new) == (TREE, b"e")
        seen.append([call[2] for call in field.listener.calls])

    field.links.renamed = renamed
    (field.root / "d").rename(field.root / "e")
    field.settle()
    assert [each[:2] for each in seen] == [[b"d", b"e"]]


def test_rename_into_a_new_directory_is_found_by_the_walk(field: Field) -> None:
    (field.root / "d/sub").mkdir(parents=True)
    field.add()
    (field.root / "new/deep").mkdir(parents=True)
    (field.root / "d").rename(field.root / "new/deep/e")
    field.settle()
    assert field.listener.renames == [(b"d", b"new/deep/e", True)]


def test_renames_of_a_deployment_are_reported_in_order(field: Field) -> None:
    for name in ("site", "site.new"):
        (field.root / name).mkdir()
    field.add()
    (field.root / "site").rename(field.root / "site.old")
    (field.root / "site.new").rename(field.root / "site")
    field.settle()
    assert field.listener.renames == [(b"site", b"site.old", True), (b"site.new", b"site", True)]


def test_rename_counts_only_where_moves_are_a_change(field: Field) -> None:
    (field.root / "d").mkdir()
    field.add(events=frozenset(("IN_CLOSE_WRITE", "IN_CREATE", "IN_DELETE")))
    (field.root / "d").rename(field.root / "e")
    field.settle()
    assert field.listener.renames == []
