"""What a report can say of what a batch has left: it is one message, and the run directory may be full."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from inosync.changes import Part
from inosync.nodes.messages import MAX_REASON_BYTES, Done, Leftovers
from inosync.nodes.outstanding import leftovers
from inosync.system import spool
from inosync.system.channel import MAX_MESSAGE_BYTES
from inosync.worker.leftovers import MAX_HELD, packed, without_excess

NAMES = tuple(b"%06d" % number for number in range(1000))


def reported(left: Leftovers, path: Path, trees: int, held: tuple[int, ...] = ()) -> Leftovers:
    """Return what the master reads of it in the longest report, if its node has so many trees."""
    payload, file = packed(left, str(path))
    done = Done(2**40, 1.5, 23, "r" * MAX_REASON_BYTES, payload, file, held, rename_problem="p" * 200)
    assert len(pickle.dumps(done, pickle.HIGHEST_PROTOCOL)) <= MAX_MESSAGE_BYTES
    return leftovers(done, range(1, trees + 1))


def test_nothing_left_is_nothing_reported(tmp_path: Path) -> None:
    assert packed(Leftovers(), str(tmp_path / "due")) == (b"", "")


def test_long_leftovers_go_by_a_file(tmp_path: Path) -> None:
    left = Leftovers(due=(Part(1, False, NAMES),), outdated=(Part(2, False, NAMES),))
    assert packed(left, str(tmp_path / "due")) == (b"", str(tmp_path / "due"))
    assert reported(left, tmp_path / "due", 2) == left
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", [1, 80, 107, 120, 1000])
@pytest.mark.parametrize("kind", ["due", "outdated"])
def test_trees_are_due_as_a_whole_if_no_file_can_be_written(tmp_path: Path, count: int, kind: str) -> None:
    parts = tuple(Part(tree, False, NAMES) for tree in range(1, count + 1))
    (tmp_path / "file").touch()  # in the place of the run directory
    left = reported(Leftovers(**{kind: parts}), tmp_path / "file/due", count)
    assert {part.tree for part in left.due} == set(range(1, count + 1))
    assert all(part.full for part in left.due)
    # Outdated files differ in content alone.
    assert kind == "due" or all(part.ignore_times for part in left.due)


@pytest.mark.parametrize("count", [0, MAX_HELD, MAX_HELD + 1, 3000])
def test_held_trees_beyond_a_report_are_due_as_a_whole(tmp_path: Path, count: int) -> None:
    first, numbers = Part(9, False, (b"x",)), tuple(range(10**6, 10**6 + count))
    left, held = without_excess(Leftovers(due=(first,)), numbers)
    assert held == numbers[:MAX_HELD]
    assert left.due == (first, *(Part(tree, True) for tree in numbers[MAX_HELD:]))
    assert reported(left, tmp_path / "due", 1, held) == left
    (tmp_path / "file").touch()
    assert reported(left, tmp_path / "file/due", 10, held).due


def test_report_without_leftovers_removes_no_file(tmp_path: Path) -> None:
    payload, file = spool.pack(NAMES, str(tmp_path / "due"))
    assert (payload, file) == (b"", str(tmp_path / "due"))
    assert reported(Leftovers(), tmp_path / "due", 1) == Leftovers()
    assert (tmp_path / "due").exists()
