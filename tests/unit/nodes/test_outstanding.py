"""The batch on its way: which reports are about it, and which changes it holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from inosync.changes import Change, Kind, Part, Step
from inosync.nodes.messages import Batch, Done, Failed, Leftovers, Progress, SlotRequest
from inosync.nodes.outstanding import Outstanding, leftovers
from inosync.system import spool

PARTS = (Part(1, False, (b"a/f", b"b/", b"./")), Part(2, True), Part(3, False, (b"x",), ignore_times=True))
CHANGES = {
    Change(1, b"a/f", Kind.NAME),
    Change(1, b"b", Kind.LIST),
    Change(1, b"", Kind.LIST),
    Change(2, b"", Kind.TREE),
    Change(3, b"x", Kind.NAME, ignore_times=True),
}


def outstanding(*parts: Part) -> Outstanding:
    payload, _ = spool.pack(parts, "")
    return Outstanding(Batch(7, 3, False, payload), upto=15, since=0.0, sent_at=0.0)


@pytest.mark.parametrize(
    "report", [Progress(7, 40), Failed(7, 1, 12, "no", 1.0), SlotRequest(7), Done(7, 0.1)]
)
def test_report_is_about_the_batch_with_its_number(
    report: Progress | Failed | SlotRequest | Done,
) -> None:
    assert outstanding().is_meant_by(report)
    assert not Outstanding(Batch(8, 1, False), 15, 0.0, 0.0).is_meant_by(report)


def test_changes_are_those_of_the_wanted_trees() -> None:
    batch = outstanding(*PARTS)
    assert batch.changes((1, 2, 3)) == CHANGES
    assert batch.changes((3,)) == {Change(3, b"x", Kind.NAME, ignore_times=True)}


def test_changes_are_the_whole_trees_if_the_file_is_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gone = str(tmp_path / "gone")
    batch = Outstanding(Batch(7, 3, False, b"", gone), 15, 0.0, 0.0)
    assert batch.changes((1, 2)) == {Change(tree, b"", Kind.TREE) for tree in (1, 2)}
    assert "No such file" in caplog.text
    left = leftovers(Done(7, 0.1, file=gone), (1, 2))
    assert left == Leftovers(due=tuple(Part(tree, True, ignore_times=True) for tree in (1, 2)))


def test_full_trees_are_those_of_full_parts(tmp_path: Path) -> None:
    payload, _ = spool.pack(PARTS, "")
    assert Outstanding(Batch(7, 3, True, payload), 15, 0.0, 0.0).full_trees() == {2}
    assert outstanding(*PARTS).full_trees() == set(), "it says so of itself"
    assert Outstanding(Batch(7, 3, True, b"", str(tmp_path / "gone")), 15, 0.0, 0.0).full_trees() == set()


def test_second_look_is_at_the_names_and_their_directories() -> None:
    batch = outstanding(Part(1, False, (b"a/f", b"b/c/")), Part(2, False, (b"a/g",)))
    listed = ((1, b"b/c"), (1, b"a"), (1, b"b"), (2, b"a"))
    assert batch.second_look((1, 2)) == {
        *(Change(tree, path, Kind.NAME, is_again=True) for tree, path in ((1, b"a/f"), (2, b"a/g"))),
        *(Change(tree, path, Kind.LIST, is_again=True) for tree, path in listed),
    }
    assert outstanding(Part(2, True)).second_look((2,)) == {Change(2, b"", Kind.TREE)}


@pytest.mark.parametrize("step", Step)
def test_nothing_is_new_to_a_second_look(step: Step) -> None:
    found = outstanding(Part(1, False, (b"a/f", b"b/"), step=step)).second_look((1,))
    steps = {change.wire: change.step for change in found}
    own = max(step, Step.SWITCHED)
    assert steps == {b"a/f": own, b"b/": own, b"a/": Step.SWITCHED, b"./": Step.SWITCHED}


def test_second_look_that_was_cut_off_stays_one() -> None:
    batch = outstanding(Part(1, False, (b"a/", b"b/"), again=frozenset({b"a/"})))
    assert {change.path for change in batch.changes((1,)) if change.is_again} == {b"a"}
