"""What is kept of a fleet: the time of the newest mark that Redis and every node have."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from inosync.changes import Change, Kind
from inosync.fleet.records import NodeRecord
from inosync.fleet.recovery import RESERVED_POSITIONS
from inosync.journal.journal import Journal
from inosync.master.fleet_state import FleetState
from inosync.state.marks import Mark
from inosync.state.saved_fleet import SavedFleet

PAST = SavedFleet("c", "e", 2_000_000, 3, 5.0, (("/w", b"open"),), {"eu": "old"}, {})


class World:
    def __init__(self, past: SavedFleet | None = None) -> None:
        self.journal = Journal()
        self.origin = SimpleNamespace(
            journal=self.journal,
            epoch="e",
            appended=10,
            records={},
            copies={"eu": "one"},
            fleet=SimpleNamespace(fingerprint="c"),
            orders=SimpleNamespace(texts={"far": "1 0 0 0"}),
        )
        self.state = FleetState(cast(Any, self.origin), past)


@pytest.mark.parametrize(
    ("cursors", "floor", "expected"),
    [
        ([], 0, 10),
        ([12, 11], 0, 10),
        ([12, 4], 0, 4),
        ([None, 7], 0, 7),
        ([2, 7], 5, 7),
    ],
)
def test_lowest_cursor_says_what_is_needed(cursors: list[int | None], floor: int, expected: int) -> None:
    world = World()
    world.journal.floor = floor
    world.origin.records = {str(at): NodeRecord("e", at, 20) for at in cursors}
    assert world.state.needs_after() == expected


def test_time_is_that_of_the_mark() -> None:
    world = World()
    world.origin.records = {"n": NodeRecord("e", 8, 9, tidy=True)}
    saved = world.state.saved(Mark(7, 50.0, frozenset({(1, b"a"), (9, b"gone")})), {1: "/w"}, True)
    assert saved == SavedFleet(
        "c", "e", RESERVED_POSITIONS, 7, 50.0, (("/w", b"a"),), {"eu": "one"}, world.origin.records
    )


def test_without_a_mark_what_was_true_at_the_start_is_kept() -> None:
    world = World(PAST)
    saved = world.state.saved(None, {}, True)
    assert saved is not None
    assert (saved.floor, saved.time, saved.unclosed) == (3, 5.0, PAST.unclosed)
    assert saved.copies == {"eu": "one"}
    assert world.state.saved(None, {}, False) is None, "files with old times may have come in since"
    world.origin.epoch = "new"
    assert world.state.saved(None, {}, True) is None
    assert World().state.saved(None, {}, True) is None


def test_position_is_kept_far_ahead_and_seldom() -> None:
    world = World()
    first = world.state.reserved
    world.journal.head = RESERVED_POSITIONS // 2 - 1
    assert world.state.reserved == first
    world.journal.head += 1
    assert world.state.reserved == world.journal.head + RESERVED_POSITIONS


def test_state_of_before_a_walk_gets_the_new_position_only() -> None:
    world = World(PAST)
    world.journal.head = 3_000_000
    found = world.state.before_walk(PAST)
    assert found is not None
    assert (found.reserved, found.floor, found.copies) == (4_000_000, 3, {"eu": "old"})
    assert world.state.before_walk(None) is None
    world.origin.epoch = "new"
    assert world.state.before_walk(PAST) is None


def test_cursor_of_a_node_is_reason_enough_to_write() -> None:
    world = World()
    before = world.state.books(None)
    assert world.state.books(None) == before
    assert world.state.books(Mark(7, 50.0)) != before
    world.origin.records["n"] = NodeRecord("e", 8, 9)
    assert world.state.books(None) != before


def test_start_goes_on_and_records_what_was_open() -> None:
    world, went_on = World(PAST), []
    world.origin.go_on = lambda *known: went_on.append(known)
    world.state.go_on()
    assert went_on == [("e", {}, {"eu": "old"})]
    assert (world.journal.head, world.journal.floor) == (2_000_000, 3)
    world.state.record_unclosed({"/w": 1}, 1.0)
    world.state.record_unclosed({"/other": 1}, 1.0)
    assert world.journal.entries_after(0) == [(2_000_001, Change(1, b"open", Kind.NAME))]
