"""Which renamed directories may have other contents on a node than sizes and times say."""

from __future__ import annotations

import pytest

from inosync.changes import Part, Rename
from inosync.worker.sent_directories import (
    MAX_DIRECTORIES,
    MAX_REMEMBERED,
    MERGE_SECONDS,
    SLACK_SECONDS,
    SentDirectories,
)

TREE = 1


def remembered(*names: bytes, full: bool = False, tree: int = TREE, at: float = 100.0) -> SentDirectories:
    """What a worker remembers that has started long ago, after one transfer."""
    sent = SentDirectories(0.0)
    sent.ended(Part(tree, full, ()), names, at)
    return sent


def renamed(old: bytes, at: float = 100.0) -> Rename:
    return Rename(old, b"elsewhere", True, at)


@pytest.mark.parametrize(
    ("names", "old", "expected"),
    [
        ([b"a/f"], b"a", True),
        ([b"a/b/f"], b"a", True),
        ([b"a/"], b"a", True),
        ([b"a/b/"], b"a", True),
        ([b"x", b"y/z", b"a/b/"], b"a", True),
        # The attributes of a directory, or the files beside it.
        ([b"a"], b"a", False),
        ([b"f", b"./"], b"a", False),
        ([b"a/", b"a/f"], b"a/b", False),
        ([b"ab/f", b"b/a/f"], b"a", False),
        ([], b"a", False),
    ],
)
def test_directory_counts_if_its_files_were_listed(names: list[bytes], old: bytes, expected: bool) -> None:
    assert remembered(*names).may_hide_others(TREE, renamed(old)) is expected


def test_full_mirror_and_very_many_names_are_all_of_the_tree() -> None:
    assert remembered(b"", full=True).may_hide_others(TREE, renamed(b"a/b"))
    many = [b"%d/f" % number for number in range(MAX_DIRECTORIES + 1)]
    assert remembered(*many).may_hide_others(TREE, renamed(b"a/b"))


def test_transfer_of_another_tree_does_not_count() -> None:
    assert not remembered(b"a/f", tree=2).may_hide_others(TREE, renamed(b"a"))


@pytest.mark.parametrize(
    ("at", "expected"), [(0.0, True), (100 + SLACK_SECONDS - 0.1, True), (100 + SLACK_SECONDS, False)]
)
def test_rename_counts_until_its_event_must_have_been_read(at: float, expected: bool) -> None:
    assert remembered(b"a/f").may_hide_others(TREE, renamed(b"a", at)) is expected


def test_transfers_of_an_earlier_worker_are_unknown() -> None:
    sent = SentDirectories(100.0)
    assert sent.may_hide_others(TREE, renamed(b"a", 100.0))
    assert not sent.may_hide_others(TREE, renamed(b"a", 100.0 + SLACK_SECONDS))


def test_run_that_follows_a_rename_has_read_all_of_the_new_directory() -> None:
    sent = SentDirectories(0.0)
    sent.rename_ended(TREE, Rename(b"a", b"b/c", True), 100.0)
    found = {old: sent.may_hide_others(TREE, renamed(old)) for old in (b"a", b"b", b"b/c", b"b/c/d", b"b/cd")}
    assert found == {b"a": False, b"b": True, b"b/c": True, b"b/c/d": True, b"b/cd": False}


def test_many_transfers_at_once_are_one_and_the_oldest_are_forgotten() -> None:
    sent = SentDirectories(0.0)
    for number in range(MAX_REMEMBERED * 100):
        sent.ended(Part(TREE, False, ()), [b"%d/f" % (number % 7)], 100 + number * MERGE_SECONDS / 100)
    assert not sent.may_hide_others(TREE, renamed(b"a")), "so few are remembered whole"
    assert all(sent.may_hide_others(TREE, renamed(b"%d" % number)) for number in range(7))
    for number in range(MAX_REMEMBERED):
        sent.ended(Part(TREE, False, ()), [b"x/f"], 200 + number * 2 * MERGE_SECONDS)
    assert sent.may_hide_others(TREE, renamed(b"a")), "what is forgotten may have been anything"
    assert not sent.may_hide_others(TREE, renamed(b"a", 300.0 + SLACK_SECONDS))


def test_directories_of_all_transfers_together_are_bounded() -> None:
    sent, half = SentDirectories(0.0), MAX_DIRECTORIES // 2
    for start in range(3):
        names = [b"%d/%d/f" % (start, number) for number in range(half)]
        sent.ended(Part(TREE, False, ()), names, 100.0 + 10 * start)
    hidden = {start: sent.may_hide_others(TREE, renamed(b"%d" % start, 110.0)) for start in range(3)}
    assert hidden == {0: False, 1: True, 2: True}, "those from the first are forgotten"
    assert sent.may_hide_others(TREE, renamed(b"x", 104.0)), "what is forgotten may have been anything"
