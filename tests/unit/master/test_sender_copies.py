"""How far the copies of senders are: what a copy that is new, or lacks something, counts for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from unit.master.mirrors import mirror

from inosync.changes import Change, Kind
from inosync.fleet.records import Arrived
from inosync.master.sender_copies import NO_COPY, SenderCopies


class World:
    """The sender ``eu`` has a copy, and ``nas`` the storage of the origin, whose journal is at 9."""

    def __init__(self) -> None:
        self.owed: list[Change] = []
        self.offered: list[Any] = []
        self.node = SimpleNamespace(
            trees=(1, 2),
            arrived=7,
            retries=SimpleNamespace(count=0),
            retry=lambda change, _now: self.owed.append(change),
        )
        self.watcher, self.guard = SimpleNamespace(incomplete_trees=set()), SimpleNamespace(halted={})
        self.copies = SenderCopies(
            mirror(
                nodes={"eu": self.node},
                journal=SimpleNamespace(head=9),
                guard=self.guard,
                dispatch=SimpleNamespace(offer_batch=self.offered.append),
                loop=SimpleNamespace(clock=lambda: 0.0),
            ),
            ("nas",),
            cast(Any, self.watcher),
            lambda: "proof",
        )

    def look(self, settled: int = 0) -> dict[str, Arrived]:
        self.copies.look("e", settled)
        return self.copies.arrived


@pytest.fixture
def world() -> World:
    world = World()
    world.copies.note("eu", "one")
    world.copies.note("nas", "disk.proof")
    return world


def test_copy_that_is_new_is_mirrored_in_full_once(world: World) -> None:
    whole = [Change(1, b"", Kind.TREE), Change(2, b"", Kind.TREE)]
    assert (world.owed, world.offered) == (whole, [world.node])
    world.copies.note("eu", "one")
    world.copies.note("eu", NO_COPY)
    world.copies.note("unknown", "one")
    assert world.owed == whole
    assert world.look()["eu"] == Arrived("e", 7, "one")
    world.copies.note("eu", "two")
    assert "eu" not in world.copies.arrived
    assert world.owed == whole * 2


@pytest.mark.parametrize(
    ("what", "copy", "shared"),
    [
        ("nothing", 7, (9, "disk")),
        ("owed", None, (9, "disk")),
        ("not all of before", None, (9, "disk")),
        ("being walked", None, (0, "disk")),
        ("another tree is walked", 7, (0, "disk")),
        ("halted", None, (9, NO_COPY)),
    ],
)
def test_what_is_missing_holds_up_what_has_arrived(
    world: World, what: str, copy: int | None, shared: tuple[int, str]
) -> None:
    match what:
        case "owed":
            world.node.retries.count = 1
        case "being walked":
            world.watcher.incomplete_trees = {2}
        case "another tree is walked":
            world.watcher.incomplete_trees = {3}
        case "halted":
            world.guard.halted = {1: "is empty"}
    found = world.look(8 if what == "not all of before" else 0)
    assert found.pop("nas") == Arrived("e", *shared)
    assert found == ({} if copy is None else {"eu": Arrived("e", copy, "one")})


def test_what_has_arrived_never_goes_back(world: World) -> None:
    positions = []
    for position in (7, 9, 8, 10):  # a worker has died after its rsync was through
        world.node.arrived = position
        positions.append(world.look()["eu"].position)
    assert positions == [7, 9, 9, 10]


@pytest.mark.parametrize(
    ("said", "copy"),
    [
        ("disk.proof", "disk"),
        ("disk", "disk"),  # as before: it is known
        ("other.proof", "other"),
        ("other.wrong", NO_COPY),
        ("other.", NO_COPY),
        ("other", NO_COPY),
        (NO_COPY, NO_COPY),
    ],
)
def test_shared_storage_counts_if_it_is_proved(world: World, said: str, copy: str) -> None:
    world.copies.note("nas", said)
    assert world.look()["nas"].copy == copy


def test_new_epoch_begins_with_nothing(world: World) -> None:
    world.look()
    world.copies.forget()
    assert (world.copies.copies, world.copies.arrived) == ({}, {})
    assert world.look() == {"nas": Arrived("e", 9, NO_COPY)}
