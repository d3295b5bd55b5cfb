"""Changes in the form in which rsync reads names, and back."""

from __future__ import annotations

import pytest

from inosync.changes import Change, Kind, Step, from_wire


@pytest.mark.parametrize(
    ("change", "wire"),
    [
        (Change(1, b"a/b", Kind.NAME), b"a/b"),
        (Change(1, b"a/b", Kind.LIST), b"a/b/"),
        (Change(1, b"", Kind.LIST), b"./"),
        (Change(1, b"a", Kind.NAME, ignore_times=True), b"a"),
    ],
)
def test_change_comes_back_from_its_name(change: Change, wire: bytes) -> None:
    assert change.wire == wire
    assert from_wire(1, wire, change.ignore_times) == change


def test_content_of_a_listing_is_never_compared() -> None:
    assert not from_wire(1, b"a/", ignore_times=True).ignore_times
    assert not from_wire(1, b"./", ignore_times=True).ignore_times


def test_step_is_no_part_of_what_a_change_is() -> None:
    one, other = (Change(1, b"a", Kind.NAME, step=step) for step in (Step.NEW, Step.REMOVED))
    assert one == other
    assert len({one, other}) == 1
