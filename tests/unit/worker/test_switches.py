"""What is sent for links that a batch switches to, and when it is too late for them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inosync.changes import Part, Step
from inosync.rsync.argv import TransferSettings
from inosync.worker.switches import MAX_UNKNOWN, Switch

NAMES = (b"current", b"page")
SWITCHED = Part(1, False, NAMES, step=Step.SWITCHED)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree/releases/2").mkdir(parents=True)
    (tmp_path / "tree/current").symlink_to("releases/2")
    (tmp_path / "tree/page").write_text("2")
    return tmp_path / "tree"


def copied(tree: Path, *extra: str) -> Switch:
    switch, place = Switch(), str(tree.parent / "copies")
    switch.copy(TransferSettings("rsync", str(tree), "n:", extra=extra), NAMES, place)
    return switch


@pytest.mark.parametrize(
    ("part", "found"),
    [
        (SWITCHED, NAMES),
        (Part(1, False, (b"page", b"new"), step=Step.SWITCHED), (b"page",)),
        (Part(1, False, NAMES, step=Step.REMOVED), ()),
        (Part(1, False, NAMES, step=Step.SWITCHED, ignore_times=True), ()),
    ],
)
def test_copies_are_sent_in_their_step_alone(tree: Path, part: Part, found: tuple[bytes, ...]) -> None:
    switch = copied(tree)
    assert switch.copied(part) == found
    is_whole = found == part.names
    assert switch.source(part) == (str(tree.parent / "copies") if is_whole else "")
    switch.end()
    assert not (tree.parent / "copies").exists()


def test_nothing_is_copied_where_a_copy_is_not_as_good(tree: Path) -> None:
    assert copied(tree, "-X").source(SWITCHED) == ""
    assert not (tree.parent / "copies").exists()


def test_few_of_what_is_only_looked_at_again_are_copied(tree: Path) -> None:
    names = tuple(b"releases/2/%d" % number for number in range(MAX_UNKNOWN + 1))
    for name in names:
        (tree / os.fsdecode(name)).write_text("x")
    part, switch = Part(1, False, (*names, *NAMES), step=Step.SWITCHED), Switch()
    switch.again = frozenset(names)
    switch.copy(TransferSettings("rsync", str(tree), "n:"), part.names, str(tree.parent / "copies"))
    assert switch.copied(part) == (*names[:MAX_UNKNOWN], *NAMES)


def test_link_leads_to_where_its_copy_leads(tree: Path) -> None:
    switch = copied(tree)
    (tree / "current").unlink()
    (tree / "current").symlink_to("releases/3")
    assert switch.led_to(str(tree), SWITCHED) == {b"current": b"releases/2", b"page": None}
    assert Switch().led_to(str(tree), SWITCHED)[b"current"] == b"releases/3"


def test_basis_is_asked_for_once(tree: Path) -> None:
    switch = Switch()
    assert switch.has_its_basis(str(tree)), "there was nothing before it"
    switch.note_basis(str(tree), [b"current"], [b"releases/2/"])
    os.rmdir(tree / "releases/2")
    assert not switch.has_its_basis(str(tree))
    assert switch.has_its_basis(str(tree))
