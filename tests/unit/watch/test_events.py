"""The table of what inotify events mean."""

from __future__ import annotations

import pytest

from inosync.watch import inotify
from inosync.watch.events import (
    NOTHING,
    Close,
    Decision,
    Entry,
    Report,
    SelfDecision,
    decide,
    decide_new_file,
    decide_self,
    mask_of,
)

DEFAULT = mask_of(
    frozenset(("IN_CLOSE_WRITE", "IN_CREATE", "IN_DELETE", "IN_MOVED_FROM", "IN_MOVED_TO", "IN_ATTRIB"))
)
FILE, DIRECTORY = 0, inotify.IN_ISDIR


def row(event: str, kind: int, mirrored: Decision, excluded: Decision = NOTHING) -> object:
    """One line of the table: with the default emask, for a mirrored name and for an excluded one."""
    identifier = f"{event} of a {'directory' if kind else 'file'}"
    return pytest.param(inotify.EVENTS[event] | kind, mirrored, excluded, id=identifier)


STOP_ONLY = Decision(close=Close.STOP)
TABLE = [
    # a file                                 it is mirrored                                it is excluded
    row("IN_CREATE", FILE, Decision(close=Close.INSPECT), STOP_ONLY),
    row("IN_MODIFY", FILE, Decision(close=Close.EXPECT), Decision(close=Close.EXPECT)),
    row(
        "IN_CLOSE_WRITE",
        FILE,
        Decision(Report.CHANGED, close=Close.STOP, content=True),
        Decision(close=Close.STOP, content=True),
    ),
    row(
        "IN_ATTRIB",
        FILE,
        Decision(Report.CHANGED, close=Close.STOP, content=True),
        Decision(close=Close.STOP, content=True),
    ),
    row("IN_DELETE", FILE, Decision(Report.GONE, Entry.REMOVED, Close.STOP), STOP_ONLY),
    row("IN_MOVED_FROM", FILE, Decision(Report.GONE, Entry.MOVED_AWAY, Close.STOP), STOP_ONLY),
    row(
        "IN_MOVED_TO",
        FILE,
        Decision(Report.GONE, Entry.ARRIVED, content=True),
        Decision(close=Close.STOP, content=True),
    ),
    row("IN_OPEN", FILE, NOTHING, STOP_ONLY),
    # a directory
    row("IN_CREATE", DIRECTORY, Decision(Report.CHANGED, Entry.SEEN)),
    row("IN_ATTRIB", DIRECTORY, Decision(Report.CHANGED, Entry.SEEN)),
    row("IN_MODIFY", DIRECTORY, Decision(Report.CHANGED, Entry.SEEN)),
    row("IN_DELETE", DIRECTORY, Decision(Report.GONE, Entry.REMOVED, Close.STOP)),
    row("IN_MOVED_FROM", DIRECTORY, Decision(Report.GONE, Entry.MOVED_AWAY, Close.STOP)),
    row("IN_MOVED_TO", DIRECTORY, Decision(Report.GONE, Entry.ARRIVED)),
]


@pytest.mark.parametrize(("mask", "mirrored", "excluded"), TABLE)
def test_decide_follows_the_table(mask: int, mirrored: Decision, excluded: Decision) -> None:
    assert decide(mask, DEFAULT, False) == mirrored
    assert decide(mask, DEFAULT, True) == excluded


@pytest.mark.parametrize("mask", [inotify.IN_MODIFY, inotify.IN_CREATE | inotify.IN_ISDIR])
@pytest.mark.parametrize("kind", [FILE, DIRECTORY])
def test_decide_reports_no_event_that_is_not_wanted(mask: int, kind: int) -> None:
    assert decide(mask | kind, 0, False).report is None
    assert not decide(mask | kind, 0, False).content


def test_decide_reports_a_write_at_once_where_no_close_is_wanted() -> None:
    decision = decide(inotify.IN_MODIFY, inotify.IN_MODIFY, False)
    assert decision == Decision(Report.CHANGED, content=True)


def test_decide_reports_a_write_and_its_close_where_both_are_wanted() -> None:
    wanted = DEFAULT | inotify.IN_MODIFY
    decision = decide(inotify.IN_MODIFY, wanted, False)
    assert decision == Decision(Report.CHANGED, close=Close.EXPECT, content=True)
    assert decide(inotify.IN_MODIFY, wanted, True) == Decision(close=Close.EXPECT, content=True)


def test_decide_reports_a_write_at_once_when_too_many_files_are_open() -> None:
    decision = decide(inotify.IN_MODIFY, DEFAULT, False, can_wait=False)
    assert decision == Decision(Report.CHANGED, content=True)
    assert decide(inotify.IN_MODIFY, DEFAULT, True, can_wait=False) == Decision(content=True)


def test_decide_goes_on_waiting_after_attributes_that_are_not_wanted() -> None:
    assert decide(inotify.IN_ATTRIB, DEFAULT & ~inotify.IN_ATTRIB, False) == NOTHING


@pytest.mark.parametrize(
    ("links", "is_written", "expected"),
    [
        pytest.param(0, False, Decision(Report.CHANGED), id="fifo, symlink, or gone"),
        pytest.param(1, False, Decision(close=Close.EXPECT), id="plain file"),
        pytest.param(2, False, Decision(Report.CHANGED), id="hard link"),
        pytest.param(2, True, Decision(Report.CHANGED, close=Close.EXPECT), id="hard link of an open file"),
    ],
)
def test_decide_new_file_waits_for_what_will_be_closed(
    links: int, is_written: bool, expected: Decision
) -> None:
    assert decide_new_file(links, is_written, DEFAULT) == expected
    without_room = decide_new_file(links, is_written, DEFAULT, can_wait=False)
    assert without_room == Decision(Report.CHANGED)


def test_decide_new_file_reports_no_creation_that_is_not_wanted() -> None:
    assert decide_new_file(0, False, inotify.IN_CLOSE_WRITE) == NOTHING
    assert decide_new_file(2, False, inotify.IN_CLOSE_WRITE) == NOTHING


@pytest.mark.parametrize(
    ("event", "root", "below"),
    [
        ("IN_DELETE_SELF", SelfDecision(lost="moved or removed"), SelfDecision()),
        ("IN_MOVE_SELF", SelfDecision(lost="moved or removed"), SelfDecision()),
        ("IN_UNMOUNT", SelfDecision(lost="unmounted"), SelfDecision(walk=True)),
        (
            "IN_IGNORED",
            SelfDecision(watch_ended=True, lost="moved or removed"),
            SelfDecision(watch_ended=True),
        ),
        ("IN_ATTRIB", SelfDecision(report=True), SelfDecision()),
        ("IN_MODIFY", SelfDecision(report=True), SelfDecision()),
        ("IN_CLOSE_WRITE", SelfDecision(report=True), SelfDecision()),
        ("IN_OPEN", SelfDecision(), SelfDecision()),
    ],
)
def test_decide_self_follows_the_table(event: str, root: SelfDecision, below: SelfDecision) -> None:
    assert decide_self(inotify.EVENTS[event], DEFAULT, is_root=True) == root
    assert decide_self(inotify.EVENTS[event], DEFAULT, is_root=False) == below
