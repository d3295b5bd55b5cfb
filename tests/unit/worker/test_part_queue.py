"""How names move between the parts of a batch, and out of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inosync.changes import Lane, Part, Rename, Step
from inosync.rsync.names import CurrentNames
from inosync.worker.lanes import UnderWay
from inosync.worker.part_queue import PartQueue

FIRST = Part(1, False, (b"a", b"b"), step=Step.CHANGED)
LAST = Part(1, False, (b"d/",), step=Step.REMOVED)
OTHER = Part(2, False, (b"x",))


def queue(*parts: Part, lane: Lane = Lane.FIRST) -> PartQueue:
    return PartQueue(parts, lane, is_ahead=False)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        pytest.param(
            Step.SWITCHED,
            [FIRST, Part(1, False, (b"b",), step=Step.SWITCHED), LAST, OTHER],
            id="a step between",
        ),
        pytest.param(
            Step.REMOVED, [FIRST, replace(LAST, names=(b"d/", b"b")), OTHER], id="a step that is there"
        ),
    ],
)
def test_added_names_go_with_their_step(step: Step, expected: list[Part]) -> None:
    found = queue(FIRST, LAST, OTHER)
    found.add_names(step, [b"b"])
    assert found.parts == expected


def test_names_that_are_left_take_their_renames_with_them() -> None:
    renames = (Rename(b"old", b"a", False), Rename(b"older", b"b", False))
    found = queue(replace(FIRST, renames=renames))
    found.leave_names({b"a"}, found.results.behind)
    assert found.part == replace(FIRST, names=(b"b",), renames=renames[1:])
    assert found.results.behind == [replace(FIRST, names=(b"a",), step=Step.REMOVED)]
    found.leave_names((), found.results.behind)
    assert len(found.results.behind) == 1


def test_names_that_wait_keep_whether_they_may_be_new() -> None:
    found = queue(FIRST)
    found.let_wait([b"a", b"b"], frozenset({b"b", b"c"}))
    assert [(part.step, part.names) for part in found.results.waiting] == [
        (Step.UNKNOWN, (b"b",)),
        (Step.REMOVED, (b"a",)),
    ]


@pytest.mark.parametrize("lane", Lane)
def test_what_belongs_to_the_other_lane_is_put_aside(lane: Lane) -> None:
    renames = tuple(Rename(old, b"new", False) for old in (b"c", b"d"))
    names = (b"a", b"b", b"c")
    found = queue(Part(1, False, names, renames=renames), lane=lane)
    current = CurrentNames([b"a", b"c"], missing={b"c"}, big=[b"b"])
    found.put_aside(current, UnderWay(1, frozenset({b"c"}), frozenset()))
    assert (current.send, current.missing, found.part.names) == ([b"a"], set(), (b"a",))
    assert found.part.renames == renames[1:]
    big, blocked = Part(1, False, (b"b",)), Part(1, False, (b"c",))
    expected = ([big], [blocked]) if lane is Lane.FIRST else ([], [big, blocked])
    assert (found.results.big, found.results.later) == expected


@pytest.mark.parametrize(
    ("tree", "is_running", "parts", "held"),
    [
        (1, False, [OTHER], [1]),
        (1, True, [FIRST, OTHER], [1]),
        (2, True, [FIRST, LAST], [2]),
        (3, False, [FIRST, LAST, OTHER], []),
    ],
)
def test_tree_is_held_but_for_what_runs(
    tree: int, is_running: bool, parts: list[Part], held: list[int]
) -> None:
    found = queue(FIRST, LAST, OTHER)
    found.hold_tree(tree, is_running)
    assert (found.parts, list(found.results.held)) == (parts, held)


@pytest.mark.parametrize("lane", Lane)
def test_first_lane_sends_what_takes_the_place_of_a_part(lane: Lane) -> None:
    found = queue(FIRST, LAST, lane=lane)
    found.replace_part((OTHER,))
    expected = ([OTHER, LAST], []) if lane is Lane.FIRST else ([LAST], [OTHER])
    assert (found.parts, found.results.later) == expected
