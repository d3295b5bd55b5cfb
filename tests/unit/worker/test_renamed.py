"""What of a batch is sent before renames are followed, and what is left to send after them."""

from __future__ import annotations

import pytest

from inosync.changes import Part, Rename, Step
from inosync.worker import renamed


def test_directories_for_renames_are_those_that_are_entered() -> None:
    renames = [Rename(b"a", b"x/y/b", True), Rename(b"f", b"x/z/f", False), Rename(b"g", b"h", False)]
    assert renamed.directories_for(renames) == (b"x", b"x/y", b"x/y/b", b"x/z")


@pytest.mark.parametrize(
    ("name", "is_before"),
    [
        (b"new", False),
        (b"new/", False),
        (b"new/f", False),
        (b"x/old", False),
        (b"x/old/f", False),
        (b"x/", False),
        (b"./", False),
        (b"x", True),
        (b"w", False),
        (b"newer", True),
        (b"x/older", True),
        (b"page", True),
    ],
)
def test_name_is_sent_before_a_rename_is_followed(name: bytes, is_before: bool) -> None:
    # w is a file, or a link, where the directory was that held an old name.
    renames = [Rename(b"x/old", b"new", True), Rename(b"w/f", b"x/f", False)]
    found = renamed.around([name], renames, (b"new", b"x"))
    assert found == (((name,), ()) if is_before else ((), (name,)))


@pytest.mark.parametrize(
    ("deletes", "step", "left"),
    [
        (True, Step.NEW, [b"x", b"./"]),
        (True, Step.REMOVED, [b"x", b"./"]),
        (False, Step.NEW, [b"x", b"./", b"new/", b"new/d/"]),
        (False, Step.REMOVED, [b"x", b"./", b"new", b"new/", b"new/f", b"new/d/"]),
    ],
)
def test_names_left_by_a_rename(deletes: bool, step: Step, left: list[bytes]) -> None:
    names = (b"x", b"./", b"new", b"new/", b"new/f", b"new/d/")
    (kept,), (gone,) = renamed.without([Part(1, False, names, step=step)], 1, {b"new": deletes})
    assert list(kept.names) == left
    assert sorted((*kept.names, *gone.names)) == sorted(names)


@pytest.mark.parametrize(
    "part",
    [
        Part(2, False, (b"new",)),
        Part(1, True),
        Part(1, False, (b"new",), ignore_times=True),
    ],
)
def test_renames_leave_other_trees_and_contents_to_be_sent(part: Part) -> None:
    assert renamed.without([part], 1, {b"new": True}) == ([part], [])


def test_directories_are_made_with_what_renames_do_not_touch() -> None:
    part = Part(1, False, (b"page", b"new", b"old"), step=Step.NEW)
    renames = (Rename(b"old", b"new", True),)
    first, rest = renamed.in_two(part, renames, (b"new",), is_copied=False)
    assert first == Part(1, False, (b"new", b"page"), step=Step.NEW)
    assert rest == Part(1, False, (b"new", b"old"), step=Step.NEW, renames=renames)


def test_directories_are_made_by_themselves_before_copies_are_sent() -> None:
    part = Part(1, False, (b"page", b"site"), step=Step.SWITCHED)
    renames = (Rename(b"site.new", b"site", True),)
    first, rest = renamed.in_two(part, renames, (b"site",), is_copied=True)
    assert first == Part(1, False, (b"site",), step=Step.CHANGED)
    assert rest == Part(1, False, (b"page", b"site"), step=Step.SWITCHED, renames=renames)
