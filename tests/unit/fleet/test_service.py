"""Service: what a sender may send to a node that it holds."""

from __future__ import annotations

import pytest

from inosync.fleet.records import Arrived, JournalSpan, NodeRecord, OriginPosition
from inosync.fleet.service import (
    Level,
    SendChanges,
    SendFull,
    Service,
    Wait,
    begun,
    bound,
    confirmed,
    is_untidy,
    may_send,
    next_service,
)

E = "epoch"
SPAN = JournalSpan(E, floor=5, appended=50)
SINCE = OriginPosition(1, E, head=30)


def copy_at(position: int, epoch: str = E, copy: str = "disk") -> Arrived:
    return Arrived(epoch, position, copy)


@pytest.mark.parametrize(
    ("arrived", "since", "record", "span", "expected"),
    [
        (copy_at(40), SINCE, NodeRecord(E, 20, 30), SPAN, SendChanges(20, 40)),
        (copy_at(60), SINCE, NodeRecord(E, 20, 30), SPAN, SendChanges(20, 50)),
        (copy_at(40), SINCE, NodeRecord(E, 40, 40), SPAN, Level()),
        (copy_at(60), SINCE, NodeRecord(E, 50, 50), SPAN, Level()),
        (copy_at(60), SINCE, NodeRecord(E, 55, 55), SPAN, Level()),
        (copy_at(30), SINCE, NodeRecord(E, 5, 5), SPAN, SendChanges(5, 30)),
        (copy_at(40), SINCE, NodeRecord(E, 4, 4), SPAN, SendFull(40)),
        (copy_at(40), SINCE, NodeRecord(E, None, 35), SPAN, SendFull(40)),
        (copy_at(40), SINCE, None, SPAN, SendFull(40)),
        (copy_at(60), SINCE, None, SPAN, SendFull(50)),
        (copy_at(40), SINCE, NodeRecord("old", 999, 999), SPAN, SendFull(40)),
        (copy_at(40), SINCE, None, JournalSpan(E, 41, 50), "behind the journal"),
        (copy_at(40), SINCE, None, JournalSpan(E, 40, 50), SendFull(40)),
        (copy_at(29), SINCE, NodeRecord(E, 20, 25), SPAN, "older than what the node may have"),
        (copy_at(40), SINCE, NodeRecord(E, 20, 41), SPAN, "older than what the node may have"),
        (copy_at(29), SINCE, None, SPAN, "older than what the node may have"),
        (copy_at(40), None, NodeRecord(E, 20, 20), SPAN, "the origin has not said"),
        (copy_at(40), OriginPosition(1, "old", 3), NodeRecord(E, 20, 20), SPAN, "the origin has begun anew"),
        (copy_at(40, epoch="old"), SINCE, NodeRecord(E, 20, 20), SPAN, "not complete"),
        (copy_at(40, copy="empty mount point"), SINCE, NodeRecord(E, 20, 20), SPAN, "not complete"),
        (None, SINCE, NodeRecord(E, 20, 20), SPAN, "not complete"),
    ],
)
def test_node_is_sent(
    arrived: Arrived | None,
    since: OriginPosition | None,
    record: NodeRecord | None,
    span: JournalSpan,
    expected: Service | str,
) -> None:
    found = next_service(arrived, "disk", since, record, span)
    if isinstance(expected, str):
        assert isinstance(found, Wait)
        assert expected in found.reason
        assert found.ask == ("begun anew" in expected)
    else:
        assert found == expected


@pytest.mark.parametrize(("answer", "counts"), [(None, False), (4, False), (5, True), (6, True)])
def test_answer_counts_if_it_came_after_the_question(answer: int | None, counts: bool) -> None:
    given = None if answer is None else OriginPosition(answer, E, 10)
    assert bound(5, given) == (given if counts else None)


def test_copy_is_good_for_its_own_epoch_and_place_only() -> None:
    assert may_send(copy_at(1), "disk", SPAN)
    assert not may_send(copy_at(1), "other disk", SPAN)
    assert not may_send(copy_at(1, epoch="old"), "disk", SPAN)


@pytest.mark.parametrize(
    ("record", "changed", "untidy"),
    [
        (None, False, False),
        (None, True, False),
        (NodeRecord(E, 1, 1, tidy=True), False, False),
        (NodeRecord(E, 1, 1, tidy=True), True, True),
        (NodeRecord(E, 1, 1), False, True),
        (NodeRecord(E, 1, 2), False, True),
    ],
)
def test_node_is_untidy_unless_handed_over(record: NodeRecord | None, changed: bool, untidy: bool) -> None:
    assert is_untidy(record, changed) is untidy


def test_record_of_a_batch_is_written_before_and_after_it() -> None:
    before = begun(NodeRecord(E, 3, 5, tidy=True), E, 8)
    assert before == NodeRecord(E, 3, 8)
    assert confirmed(before, 8) == NodeRecord(E, 8, 8)
    assert begun(None, E, 8) == NodeRecord(E, None, 8)
    assert begun(NodeRecord("old", 90, 90), E, 8) == NodeRecord(E, None, 8)


def test_record_never_goes_back() -> None:
    assert begun(NodeRecord(E, 9, 9), E, 8) == NodeRecord(E, 9, 9)
    assert confirmed(NodeRecord(E, 9, 10), 8) == NodeRecord(E, 9, 10)
