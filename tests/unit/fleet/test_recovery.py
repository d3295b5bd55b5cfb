"""Recovery: what the origin writes when it meets Redis again, and what Redis may forget."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from inosync.fleet.records import JournalSpan, NodeRecord
from inosync.fleet.recovery import (
    MAX_POSITION,
    RESERVED_POSITIONS,
    OwnBooks,
    Recovery,
    disposable,
    recover,
    reserved,
)

E = "epoch"
AT_8 = {"n": NodeRecord(E, 8, 8)}


def span(floor: int, appended: int, epoch: str = E) -> JournalSpan:
    return JournalSpan(epoch, floor, appended)


@pytest.mark.parametrize(
    ("what", "floor", "there", "nodes", "expected"),
    [
        ("level", 5, span(5, 20), AT_8, Recovery(False, 20, span(5, 20), {})),
        ("away", 5, span(5, 12), AT_8, Recovery(False, 12, span(5, 20), {})),
        ("a second lost", 5, span(2, 12), {"n": NodeRecord(E, 4, 6)}, Recovery(False, 12, span(2, 20), AT_8)),
        # Not in memory any more, because every node has it.
        ("more lost", 8, span(2, 6), {"n": NodeRecord(E, 4, 6)}, Recovery(False, 8, span(8, 20), AT_8)),
        ("empty", 5, None, {}, Recovery(True, 5, span(5, 20), AT_8)),
        ("other epoch", 5, span(0, 99, "old"), {}, Recovery(True, 5, span(5, 20), AT_8)),
        (
            "other epoch's records",
            5,
            span(0, 99, "old"),
            {"n": NodeRecord("old", 70, 70)},
            Recovery(True, 5, span(5, 20), AT_8),
        ),
        (
            "cursors beyond what was seen",
            5,
            span(5, 20),
            {"n": NodeRecord(E, 15, 15)},
            Recovery(False, 20, span(5, 20), {}),
        ),
        ("another origin", 5, span(5, 21), AT_8, None),
    ],
)
def test_origin_writes_what_is_missing(
    what: str,
    floor: int,
    there: JournalSpan | None,
    nodes: Mapping[str, NodeRecord],
    expected: Recovery | None,
) -> None:
    assert recover(OwnBooks(E, 20, floor, AT_8), there, nodes) == expected, what


def test_origin_that_begins_an_epoch_restores_nothing_of_older_ones() -> None:
    found = recover(OwnBooks("new", 0, 0, {}), span(5, 20), AT_8)
    assert found == Recovery(True, 0, span(0, 0, "new"), {})


@pytest.mark.parametrize(
    ("records", "arrived", "expected"),
    [
        ({}, [30], 30),
        ({}, [], 5),
        ({"n": NodeRecord(E, 20, 25)}, [30], 20),
        ({"n": NodeRecord(E, 20, 25), "m": NodeRecord(E, 10, 10)}, [30, 28], 10),
        ({"n": NodeRecord(E, 20, 25)}, [30, 12], 12),
        ({"n": NodeRecord(E, 20, 25)}, [], 5),
        # Full mirrors under way, and such as are to come: those begin at the position of a sender.
        ({"n": NodeRecord(E, None, 12)}, [30], 12),
        ({"n": NodeRecord(E, 3, 12)}, [30], 12),
        ({"n": NodeRecord(E, 3, 4)}, [30], 30),
        ({"n": NodeRecord("old", 3, 4)}, [30], 30),
        ({"not configured": NodeRecord(E, 6, 6)}, [30], 30),
        ({"n": NodeRecord(E, 5, 5)}, [30], 5),
    ],
)
def test_journal_keeps_what_any_node_lacks(
    records: Mapping[str, NodeRecord], arrived: list[int], expected: int
) -> None:
    assert disposable(E, ["n", "m"], records, arrived, floor=5) == expected


def test_origin_keeps_a_position_far_ahead_and_rarely() -> None:
    kept = reserved(0, 0)
    assert kept == RESERVED_POSITIONS
    assert reserved(RESERVED_POSITIONS // 2 - 1, kept) == kept
    assert reserved(RESERVED_POSITIONS // 2, kept) > kept
    assert reserved(MAX_POSITION // 2, 0) < MAX_POSITION
