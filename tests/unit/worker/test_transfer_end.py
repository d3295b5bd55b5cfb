"""What follows from the end of a transfer: the table."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inosync.rsync.exit_codes import NO_CONNECTION, REFUSED
from inosync.worker.transfer_end import STALE_SECONDS, Then, TransferEnd, decide

DONE = TransferEnd(0, has_failed=False, fed_for=9.0)
PARTIAL = replace(DONE, code=23)
FAILED = replace(DONE, code=12, has_failed=True)
OTHER = replace(FAILED, code=11)
UNFED = replace(DONE, has_failed=True, fed_for=None)

CASES = {
    "1 everything arrived": (DONE, Then.DONE),
    "2 what could arrive has arrived": (PARTIAL, Then.DONE),
    "3 it failed": (FAILED, Then.BACK_OFF),
    "4 it ended with 0 before it was fed": (UNFED, Then.BACK_OFF),
    "5 its worker ends, and ended it": (replace(FAILED, is_ending=True), Then.NOTHING),
    "6 its worker ends, and it had its time": (replace(DONE, is_ending=True), Then.DONE),
    "7 its root is not what it has to be": (replace(FAILED, is_held=True), Then.HOLD),
    "8 its root changed while it came through": (replace(DONE, is_held=True), Then.HOLD),
    "9 held, but its worker ends": (replace(FAILED, is_held=True, is_ending=True), Then.NOTHING),
    "10 another limit holds": (replace(FAILED, is_superseded=True), Then.SAME_AGAIN),
    "11 another limit holds, too late": (replace(DONE, is_superseded=True), Then.DONE),
    "12 held and superseded": (replace(FAILED, is_superseded=True, is_held=True), Then.HOLD),
    "13 an option was refused": (replace(FAILED, is_explained=True), Then.ADAPT),
    "14 an option was refused, with exit 0": (replace(DONE, is_explained=True), Then.DONE),
    "15 warm, and at once": (replace(FAILED, was_warm=True, fed_for=0.1), Then.RETRY_COLD),
    "16 warm, with any code": (replace(OTHER, was_warm=True, fed_for=0.1), Then.RETRY_COLD),
    "17 warm, but after a while": (
        replace(FAILED, was_warm=True, fed_for=STALE_SECONDS),
        Then.BACK_OFF,
    ),
    "18 cold, at once": (replace(FAILED, fed_for=0.1), Then.BACK_OFF),
    "19 no connection beside warm ones": (replace(FAILED, has_warm=True), Then.RETRY_WITHOUT_WARM),
    "20 warm ones, but another failure": (replace(OTHER, has_warm=True), Then.BACK_OFF),
    "21 no connection beside a comparison": (
        replace(FAILED, has_comparison=True),
        Then.RETRY_WITHOUT_COMPARISON,
    ),
    "22 a comparison, but another failure": (replace(OTHER, has_comparison=True), Then.BACK_OFF),
    "24 refused beside the other lane": (
        replace(UNFED, code=REFUSED, has_other_lane=True),
        Then.RETRY_ALONE,
    ),
    "25 the other lane, but another failure": (
        replace(UNFED, code=12, has_other_lane=True),
        Then.BACK_OFF,
    ),
    "26 the other lane, but it was fed": (
        replace(FAILED, code=REFUSED, has_other_lane=True),
        Then.BACK_OFF,
    ),
    "27 the other lane and warm ones": (
        replace(UNFED, code=REFUSED, has_other_lane=True, has_warm=True),
        Then.RETRY_WITHOUT_WARM,
    ),
    "23 beside both": (replace(FAILED, has_comparison=True, has_warm=True), Then.RETRY_WITHOUT_WARM),
}


@pytest.mark.parametrize(("end", "expected"), CASES.values(), ids=CASES.keys())
def test_end_of_a_transfer_decides_what_is_next(end: TransferEnd, expected: Then) -> None:
    assert decide(end) is expected


FLAGS = st.booleans()
ENDS = st.builds(
    TransferEnd,
    code=st.sampled_from([0, 1, 11, 20, 23, 25, -9, *sorted(NO_CONNECTION)]),
    has_failed=FLAGS,
    is_held=FLAGS,
    is_superseded=FLAGS,
    is_explained=FLAGS,
    was_warm=FLAGS,
    fed_for=st.none() | st.floats(0, 100),
    has_warm=FLAGS,
    has_comparison=FLAGS,
    has_other_lane=FLAGS,
    is_ending=FLAGS,
)


@given(ENDS)
def test_failed_part_is_never_done(end: TransferEnd) -> None:
    if end.has_failed:
        assert decide(end) is not Then.DONE


@given(ENDS)
def test_part_of_a_tree_that_is_held_is_never_sent_again(end: TransferEnd) -> None:
    if end.is_held:
        assert decide(end) in (Then.HOLD, Then.NOTHING)


@given(ENDS)
def test_retries_at_once_come_to_an_end(end: TransferEnd) -> None:
    """Each of them takes away what it blames: without that the next failure is followed by a pause."""
    plain = replace(
        end,
        is_superseded=False,
        is_explained=False,
        was_warm=False,
        has_warm=False,
        has_comparison=False,
        has_other_lane=False,
    )
    assert decide(plain) in (
        Then.NOTHING,
        Then.HOLD,
        Then.DONE,
        Then.BACK_OFF,
    )
