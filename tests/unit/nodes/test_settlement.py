"""What a node is owed once a batch is done, by the kind of what it has left."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from inosync.changes import Change, Kind, Lane, Part, Step
from inosync.nodes.messages import Batch, Done, Leftovers
from inosync.nodes.outstanding import Outstanding
from inosync.nodes.retries import BEHIND_SECONDS, Retry, RetrySet
from inosync.nodes.settlement import SECOND_LOOK_SECONDS, WAIT_SECONDS, settle
from inosync.rsync.coarse_times import SETTLE_SECONDS
from inosync.system import spool

SINCE, NOW, FIRST = 3.0, 10.0, 1.0
NAME = Change(1, b"d/f", Kind.NAME)
PART = Part(1, False, (b"d/f",))


def outstanding(*parts: Part, full: bool = False) -> Outstanding:
    payload, _ = spool.pack(parts, "")
    return Outstanding(Batch(7, 1, full, payload), 5, SINCE, 4.0)


def settled(sent: Outstanding, left: Leftovers | None = None, **facts: object) -> tuple[RetrySet, list[int]]:
    payload = spool.pack(left, "")[0] if left is not None else b""
    retries = RetrySet((FIRST, 60.0))
    done = Done(7, 0.1, payload=payload, **facts)  # type: ignore[arg-type]
    return retries, settle(retries, done, sent, (1, 2), NOW, 0.0)


@pytest.mark.parametrize(
    ("kind", "retry"),
    [
        ("due", Retry(1, NOW + FIRST, SINCE)),
        ("outdated", Retry(0, NOW + SETTLE_SECONDS, SINCE)),
        ("big", Retry(0, NOW, SINCE, Lane.SECOND)),
        ("later", Retry(0, NOW, SINCE)),
        ("waiting", Retry(0, NOW + WAIT_SECONDS, SINCE, is_waiting=True)),
        ("behind", Retry(0, NOW + BEHIND_SECONDS, SINCE, is_behind=True)),
    ],
)
def test_each_kind_of_leftovers_has_its_time(kind: str, retry: Retry) -> None:
    retries, held = settled(outstanding(PART), Leftovers(**{kind: (PART,)}))
    assert (retries.waiting, held) == ({NAME: retry}, [])


def test_clean_batch_leaves_nothing() -> None:
    retries, held = settled(outstanding(PART))
    assert (retries.waiting, held) == ({}, [])


def test_batch_that_was_cut_off_is_looked_at_again_with_its_directories() -> None:
    retries, _ = settled(outstanding(PART), cut_off=True)
    again = Retry(0, NOW + SECOND_LOOK_SECONDS, math.inf)
    listing = Change(1, b"d", Kind.LIST, is_again=True)
    assert retries.waiting == {replace(NAME, is_again=True): again, listing: again}


def test_held_trees_are_owed_as_a_whole_if_the_node_has_them() -> None:
    retries, held = settled(outstanding(PART), held=(2, 3))
    assert held == [2]
    assert retries.waiting == {Change(2, b"", Kind.TREE): Retry(1, NOW + FIRST, SINCE)}


def test_leftovers_of_a_tree_that_the_node_gets_no_longer_are_dropped() -> None:
    other = Part(9, False, (b"f",))
    retries, _ = settled(outstanding(PART, other), Leftovers(due=(other,), outdated=(other,)))
    assert retries.waiting == {}


def test_full_mirror_pays_what_had_failed_of_its_tree() -> None:
    retries = RetrySet((FIRST, 60.0))
    retries.settle([NAME, Change(2, b"x", Kind.NAME)], (), 0.0, 0.0, 0.0)
    settle(retries, Done(7, 0.1), outstanding(Part(1, True), full=True), (1, 2), NOW, 0.0)
    assert list(retries.waiting) == [Change(2, b"x", Kind.NAME)]


def test_second_look_stays_due_when_what_it_is_at_waits_for_something_else() -> None:
    new = Part(1, False, (b"d/",), step=Step.NEW)
    retries, _ = settled(
        outstanding(new), Leftovers(waiting=(replace(new, step=Step.REMOVED),)), cut_off=True
    )
    listing = Change(1, b"d", Kind.LIST)
    found = {(change.step, retry.at) for change, retry in retries.items() if change.path == listing.path}
    assert found == {(Step.REMOVED, NOW + WAIT_SECONDS), (Step.SWITCHED, NOW + SECOND_LOOK_SECONDS)}
