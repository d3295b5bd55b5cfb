"""What has arrived of a batch, and what is left of it."""

from __future__ import annotations

import pytest

from inosync.changes import OwedNames, Part
from inosync.nodes.messages import Leftovers
from inosync.rsync.outcome import Outcome
from inosync.worker.results import Results

PART, FULL = Part(1, False, (b"a", b"b")), Part(1, True)
A, B = Part(1, False, (b"a",)), Part(1, False, (b"b",))


@pytest.mark.parametrize(
    ("part", "outcome", "arrived"),
    [
        (PART, Outcome(), [PART]),
        (PART, Outcome(reason="no", due=(A,)), [B]),
        (PART, Outcome(instead=(A,)), [B]),
        (PART, Outcome(reason="no", due=(A,), instead=(B,)), []),
        (PART, Outcome(instead=(FULL,)), []),
        (Part(1, False), Outcome(), []),
        (FULL, Outcome(), [FULL]),
        (FULL, Outcome(reason="no", due=(A,)), [FULL]),
        (FULL, Outcome(instead=(FULL,)), []),
    ],
)
def test_arrived_is_what_is_neither_due_nor_sent_again(
    part: Part, outcome: Outcome, arrived: list[Part]
) -> None:
    results = Results()
    results.came_through(part, outcome, 23)
    assert results.arrived == arrived


def test_reason_of_a_failure_outlasts_what_succeeds_after_it() -> None:
    results = Results()
    results.came_through(PART, Outcome(reason="no room", due=(A,)), 23)
    results.came_through(B, Outcome(), 0)
    assert (results.due, results.code, results.worry) == ([A], 23, "no room")
    results.failed([B], 11, "broken")
    assert (results.due, results.code, results.worry) == ([A, B], 11, "broken")


def test_leftovers_have_each_kind_in_its_place() -> None:
    results, names = Results(), ("due", "outdated", "big", "waiting", "later", "behind")
    for name in names:
        getattr(results, name).append(Part(1, False, (name.encode(),)))
    found = results.leftovers()
    assert {name: getattr(found, name)[0].names for name in names} == {n: (n.encode(),) for n in names}
    assert Results().leftovers() == Leftovers()


def test_second_look_pays_nothing_of_what_has_failed() -> None:
    owed = OwedNames(failed=(b"a", b"b"))
    cut = [Part(1, False, (b"a", b"b"), owed=owed, again=frozenset({b"a"}))]
    assert Results().lacking(cut) == OwedNames(failed=(b"a",))
