"""What a node is asked to count before it loses it, and when it may not lose so much."""

from __future__ import annotations

from pathlib import Path

import pytest

from inosync.changes import Allowance, Rename
from inosync.rsync.itemize import Difference
from inosync.rsync.names import CurrentNames
from inosync.worker import removals


def renamed(old: bytes, new: bytes) -> Rename:
    return Rename(old, new, is_directory=True)


@pytest.mark.parametrize(
    ("missing", "removing", "renames", "counted"),
    [
        ((b"a", b"b"), (), (), (b"a", b"b")),
        ((), (b"d/",), (), (b"d/",)),
        ((b"a",), (), (renamed(b"a", b"here"),), ()),
        ((b"a", b"b"), (), (renamed(b"a", b"b"), renamed(b"b", b"here")), ()),
        ((b"a", b"b"), (), (renamed(b"a", b"b"),), (b"a", b"b")),  # and then it was moved away
        ((b"a", b"b"), (), (renamed(b"a", b"b"), renamed(b"b", b"a")), (b"a", b"b")),
        ((b"a",), (), (renamed(b"here", b"there"),), (b"a",)),
    ],
)
def test_what_is_gone_and_has_no_other_name_is_counted(
    missing: tuple[bytes, ...],
    removing: tuple[bytes, ...],
    renames: tuple[Rename, ...],
    counted: tuple[bytes, ...],
) -> None:
    send = [b"here", *missing, *removing]
    current = CurrentNames(send=send, missing=set(missing), removing=set(removing))
    assert removals.to_be_counted(current, renames) == counted


def test_removed_is_what_only_the_node_has_and_what_is_not_known() -> None:
    deleted, sent, made = b"*deleting  ", b"<f+++++++++", b"cd+++++++++"
    differences = [Difference(b"x", what) for what in (deleted, sent, deleted, made)]
    assert removals.removed(differences, 0) == 2
    assert removals.removed(differences, 10) == 12


@pytest.mark.parametrize(
    ("count", "allowance", "allowed"),
    [
        (0, Allowance(0, 4.0), True),
        (10, Allowance(10, 0.0), True),
        (11, Allowance(10, 0.0), False),
        (1, Allowance(0, 4.0), True),  # one of five: 20%
        (2, Allowance(0, 4.0), False),
        (4, Allowance(0, 1.0), True),
        (5, Allowance(0, 1.0), False),
    ],
)
def test_removals_are_allowed_by_number_or_by_what_is_left(
    tmp_path: Path, count: int, allowance: Allowance, allowed: bool
) -> None:
    for name in ("a", "b", "c", "d", "excluded"):
        (tmp_path / name).touch()

    def excluded(path: bytes, _is_directory: bool) -> bool:
        return path == b"excluded"

    assert removals.are_allowed(count, allowance, str(tmp_path), excluded) is allowed


@pytest.mark.parametrize(
    ("names", "place"),
    [
        ((b"d/big",), b"d/big"),
        ((b"d/big", b"d/f"), b"d"),
        ((b"d/", b"d/e/f"), b"d"),
        ((b"a", b"b"), b""),
    ],
)
def test_place_is_the_only_name_or_the_directory_of_all(names: tuple[bytes, ...], place: bytes) -> None:
    assert removals.place(names) == place
