"""What is in a batch, which nodes share it, and when its file goes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.filters import excludes

from inosync.changes import Allowance, Change, Kind, Lane, OwedNames, Part, Rename, Source, Step
from inosync.filters.rules import Rules
from inosync.guard.guard import Guard
from inosync.journal.journal import Journal
from inosync.journal.subscription import Subscription
from inosync.nodes.batches import HEAVY_CHANGES, BatchCutter, SharedBatch, TreeHalted
from inosync.nodes.retries import RetrySet
from inosync.system import spool

EVERYTHING = Subscription({1: Rules(()), 2: Rules(())}, frozenset(), everything=True)
WHOLE = Change(1, b"", Kind.TREE)


class World:
    """A journal, a guard that does what the test says, and the cutter between them."""

    def __init__(self, directory: Path) -> None:
        self.journal = Journal()
        self.halted: dict[int, str] = {}
        self.lost: set[int] = set()
        """Trees that the guard halts at the next check."""
        self.checks: list[int] = []
        self.generation = 0
        self.departed_at = 0
        """Where in the journal a directory was moved out of a tree."""
        self.directory = directory
        self.cutter = BatchCutter(self.journal, str(directory), cast(Guard, self))

    # The guard

    def check(self, tree: int) -> bool:
        self.checks.append(tree)
        if tree in self.lost:
            self.halted[tree] = "gone"
            self.generation += 1
        return tree not in self.halted

    def source(self, tree: int, full: bool) -> Source | None:
        return Source((tree, self.generation), full)

    def allowance(self, _tree: int, cursor: int) -> Allowance | None:
        return Allowance(3, 0.0) if cursor < self.departed_at else None

    # What the test does

    def change(self, *paths: bytes, tree: int = 1) -> None:
        for path in paths:
            self.journal.record(Change(tree, path, Kind.NAME), 0.0)

    def node(self, cursor: int = 0, subscription: Subscription = EVERYTHING, second: object = None) -> Any:
        return SimpleNamespace(
            cursor=cursor,
            subscription=subscription,
            trees=subscription.trees,
            second=second,
            retries=RetrySet((1.0, 100.0)),
        )

    def cut(self, node: Any, *retries: Change) -> SharedBatch:
        batch = self.cutter.cut(node, retries)
        assert batch is not None
        return batch

    @property
    def files(self) -> list[str]:
        return os.listdir(self.directory)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "spool")


def parts(batch: SharedBatch) -> tuple[Part, ...]:
    return cast(tuple[Part, ...], spool.unpack(batch.payload, batch.file))


def names(batch: SharedBatch) -> set[bytes]:
    return {name for part in parts(batch) for name in part.names}


def test_names_that_a_listing_of_their_directory_covers_are_left_out(world: World) -> None:
    world.journal.record(Change(1, b"d", Kind.LIST), 0.0)
    world.change(b"d/x", b"d/e/y", b"d", b"other/x", b"dd/x")
    world.change(b"d/x", tree=2)
    again = Change(1, b"d/x", Kind.NAME, ignore_times=True)
    batch = world.cut(world.node(), again)
    one, by_content, two = parts(batch)
    assert set(one.names) == {b"d/", b"d/e/y", b"other/x", b"dd/x"}
    assert (by_content.names, by_content.ignore_times, two.names) == ((b"d/x",), True, (b"d/x",))
    assert (batch.count, batch.changes) == (6, 7)


@pytest.mark.parametrize("listing", Step)
@pytest.mark.parametrize("name", Step)
def test_name_of_another_step_than_the_listing_is_sent_in_its_own(
    world: World, listing: Step, name: Step
) -> None:
    changes = Change(1, b"d", Kind.LIST, step=listing), Change(1, b"d/x", Kind.NAME, step=name)
    is_covered = name is listing and name < Step.SWITCHED
    assert names(world.cut(world.node(), *changes)) == ({b"d/"} if is_covered else {b"d/", b"d/x"})


@pytest.mark.parametrize("step", [Step.NEW, Step.CHANGED, Step.UNKNOWN, Step.SWITCHED])
def test_relist_that_only_removes_becomes_one_that_sends(world: World, step: Step) -> None:
    world.journal.record(Change(1, b"d", Kind.LIST, step=step), 0.0)
    (part,) = parts(world.cut(world.node(), Change(1, b"d", Kind.LIST, step=Step.REMOVED)))
    assert (part.names, part.step) == ((b"d/",), step)


def test_nodes_whose_retries_have_other_steps_share_no_batch(world: World) -> None:
    removes, sends = (Change(1, b"d", Kind.LIST, step=step) for step in (Step.REMOVED, Step.CHANGED))
    assert removes == sends
    steps = [part.step for change in (removes, sends) for part in parts(world.cut(world.node(), change))]
    assert steps == [Step.REMOVED, Step.CHANGED]


def test_second_look_covers_no_name_and_gives_way_to_a_listing(world: World) -> None:
    again = Change(1, b"d", Kind.LIST, is_again=True)
    (part,) = parts(world.cut(world.node(), again, Change(1, b"d/x", Kind.NAME)))
    assert (set(part.names), part.again) == ({b"d/", b"d/x"}, frozenset({b"d/"}))
    world.journal.record(Change(1, b"d", Kind.LIST), 0.0)
    (part,) = parts(world.cut(world.node(), again))
    assert (part.names, part.again) == ((b"d/",), frozenset())


def test_second_look_shares_no_batch_with_a_listing(world: World) -> None:
    again, once = Change(1, b"d", Kind.LIST, is_again=True), Change(1, b"d", Kind.LIST)
    found = [part.again for change in (again, once) for part in parts(world.cut(world.node(), change))]
    assert found == [{b"d/"}, set()]


@pytest.mark.parametrize(
    ("kind", "other", "found", "is_again"),
    [
        (Kind.NAME, None, Step.SWITCHED, True),
        (Kind.NAME, Step.NEW, Step.NEW, False),
        (Kind.NAME, Step.REMOVED, Step.REMOVED, False),
        (Kind.LIST, None, Step.SWITCHED, True),
        (Kind.LIST, Step.UNKNOWN, Step.UNKNOWN, False),
        (Kind.LIST, Step.REMOVED, Step.SWITCHED, True),
    ],
)
def test_second_look_leaves_the_step_to_another_that_is_due(
    world: World, kind: Kind, other: Step | None, found: Step, is_again: bool
) -> None:
    again = Change(1, b"d", kind, step=Step.SWITCHED, is_again=True)
    once = [] if other is None else [Change(1, b"d", kind, step=other)]
    for changes in ([again, *once], [*once, again]):
        (part,) = parts(world.cut(world.node(), *changes))
        assert (part.step, bool(part.again)) == (found, is_again)


def test_names_in_the_root_are_left_out_when_it_is_listed(world: World) -> None:
    world.journal.record(Change(1, b"", Kind.LIST), 0.0)
    world.change(b"x", b"d/x")
    assert names(world.cut(world.node())) == {b"./", b"d/x"}


def test_names_beside_a_big_file_that_is_under_way_go_by_themselves(world: World) -> None:
    world.journal.record(Change(1, b"d", Kind.LIST), 0.0)
    world.change(b"d/x")
    assert names(world.cut(world.node())) == {b"d/"}
    assert names(world.cut(world.node(second=object()))) == {b"d/", b"d/x"}


def test_batch_says_what_its_node_is_owed_apart_from_it(world: World) -> None:
    world.change(b"a")
    world.journal.gone(1, b"b", 0.0)
    world.change(b"a", tree=2)
    node, failed = world.node(), Change(1, b"failed", Kind.NAME)
    node.retries.settle([failed], [], 0.0, 0.0, 0.0)
    owed = OwedNames(failed=(b"failed",))
    found = parts(world.cut(node))
    assert [part.owed for part in found] == [owed, OwedNames(), OwedNames()], (
        "with the first part of the tree"
    )
    assert world.cut(node) is world.cut(node)
    assert world.cut(world.node()) is not world.cut(node), "another node has that"
    assert not any(part.owed.failed for part in parts(world.cut(node, failed))), "it is tried again"
    batch = world.cutter.cut(node, [failed], Lane.SECOND)
    assert batch is not None
    assert [part.owed for part in parts(batch)] == [OwedNames()], "big files wait for nothing"


def test_many_changes_are_heavy_though_a_listing_covers_them(world: World) -> None:
    world.journal.record(Change(1, b"d", Kind.LIST), 0.0)
    world.change(*(b"d/%d" % number for number in range(HEAVY_CHANGES - 1)))
    batch = world.cut(world.node())
    assert (batch.count, batch.is_heavy) == (1, True)


def test_batch_holds_the_changes_after_the_cursor(world: World) -> None:
    world.change(b"a", b"b", b"c")
    batch = world.cut(world.node(1))
    assert parts(batch) == (Part(1, False, (b"b", b"c"), Source((1, 0), False)),)
    assert (batch.count, batch.full, batch.is_heavy, batch.file) == (2, False, False, "")


def test_batch_is_a_full_mirror_if_the_cursor_fell_off_the_journal(world: World) -> None:
    batch = world.cut(world.node(-1))
    assert parts(batch) == tuple(Part(tree, True, (), Source((tree, 0), True)) for tree in (1, 2))
    assert (batch.count, batch.full, batch.is_heavy) == (0, True, True)


def test_batch_holds_retries_each_name_once(world: World) -> None:
    world.change(b"a", b"b")
    retries = (Change(1, b"b", Kind.NAME), Change(1, b"a", Kind.NAME, ignore_times=True))
    first, second = parts(world.cut(world.node(), *retries))
    assert (first.names, first.ignore_times) == ((b"a", b"b"), False)
    assert (second.names, second.ignore_times) == ((b"a",), True)


def test_batch_says_what_was_renamed_to_nodes_that_have_it(world: World) -> None:
    world.change(b"a")
    rename = Rename(b"d", b"e", is_directory=True)
    for path in (rename.old, rename.new):
        world.journal.gone(1, path, 0.0)
    world.journal.renamed(1, rename)
    world.change(b"b", tree=2)
    retries = (Change(1, b"a", Kind.NAME, ignore_times=True),)
    found = parts(world.cut(world.node(), *retries))
    assert [part.renames for part in found if part.renames] == [(rename,)]
    # The first part has them, whatever its step.
    assert found[0].renames
    assert not any(part.renames for part in parts(world.cut(world.node(2)))), "the old name is gone there"
    assert all(not part.renames for part in parts(world.cut(world.node(-1))))


def test_content_that_is_to_be_compared_is_compared_under_the_new_name(world: World) -> None:
    node = world.node()
    paths = (b"d/x", b"dd", b"f", b"gone")
    debts = [Change(1, path, Kind.NAME, ignore_times=True) for path in paths]
    node.retries.add_second_look(debts, 100.0)
    node.retries.add(Change(1, b"d/failed", Kind.NAME), 0.0)
    for rename in (
        Rename(b"d", b"e", is_directory=True),
        Rename(b"f", b"g", is_directory=False),
        Rename(b"g", b"e/h", is_directory=False),
    ):
        for path in (rename.old, rename.new):
            world.journal.gone(1, path, 0.0)
        world.journal.renamed(1, rename)
    found = parts(world.cut(node))
    assert [set(part.names) for part in found if part.ignore_times] == [{b"e/x", b"e/h"}]
    # What is gone by now waits for its removal; until then its debt is known.
    [part] = [part for part in parts(world.cut(node, *(gone(debt) for debt in debts))) if part.ignore_times]
    assert set(part.names) == {b"e/x", b"e/h"}


def gone(change: Change) -> Change:
    return replace(change, step=Step.REMOVED)


def test_content_of_what_is_gone_is_not_compared(world: World) -> None:
    change = Change(1, b"a", Kind.NAME, ignore_times=True)
    [part] = parts(world.cut(world.node(), change))
    assert (part.names, part.ignore_times) == ((b"a",), True)
    [part] = parts(world.cut(world.node(), gone(change)))
    assert (part.names, part.ignore_times, part.step) == ((b"a",), False, Step.REMOVED)


def test_whole_tree_covers_its_names_but_not_those_to_be_read(world: World) -> None:
    world.change(b"a")
    found = parts(world.cut(world.node(), WHOLE, Change(1, b"a", Kind.NAME, ignore_times=True)))
    assert [(part.full, part.names) for part in found] == [(True, ()), (False, (b"a",))]


def test_whole_tree_without_regard_to_times_covers_all_of_its_names(world: World) -> None:
    world.change(b"a")
    anew = Change(1, b"", Kind.TREE, ignore_times=True)
    found = parts(world.cut(world.node(), WHOLE, anew, Change(1, b"a", Kind.NAME, ignore_times=True)))
    assert [(part.full, part.names, part.ignore_times) for part in found] == [(True, (), True)]


@pytest.mark.parametrize(("count", "heavy"), [(HEAVY_CHANGES - 1, False), (HEAVY_CHANGES, True)])
def test_batch_of_many_names_is_heavy(world: World, count: int, heavy: bool) -> None:
    world.change(*(b"%d" % number for number in range(count)))
    assert world.cut(world.node()).is_heavy is heavy


def test_batch_is_not_cut_if_no_change_concerns_the_node(world: World) -> None:
    world.change(b"x.tmp")
    subscription = Subscription({1: Rules(excludes(("*.tmp",)))}, frozenset({1}), everything=False)
    assert world.cutter.cut(world.node(0, subscription), ()) is None
    assert world.checks == []
    world.change(b"y")
    assert [part.names for part in parts(world.cut(world.node(0, subscription)))] == [(b"y",)]


def test_halted_tree_is_left_out(world: World) -> None:
    world.halted[1] = "gone"
    world.change(b"a")
    world.change(b"b", tree=2)
    assert [part.tree for part in parts(world.cut(world.node()))] == [2]


def test_tree_that_is_halted_when_it_is_checked_is_not_cut(world: World) -> None:
    world.change(b"a")
    world.change(b"b", tree=2)
    world.lost = {1}
    with pytest.raises(TreeHalted):
        world.cutter.cut(world.node(), ())
    assert [part.tree for part in parts(world.cut(world.node()))] == [2]


def test_batch_is_shared_by_nodes_that_are_alike(world: World) -> None:
    world.change(b"a", b"b")
    other = Subscription({1: Rules(())}, frozenset(), everything=False)
    batch = world.cut(world.node())
    assert world.cut(world.node()) is batch
    assert world.checks == [1], "the root is checked once, too"
    for node, retries in ((world.node(1), ()), (world.node(0, other), ()), (world.node(), (WHOLE,))):
        assert world.cut(node, *retries) is not batch


@pytest.mark.parametrize(
    "happens",
    [lambda world: world.change(b"new"), lambda world: setattr(world, "generation", 1)],
    ids=["a change", "another look of the guard"],
)
def test_batch_is_not_shared_with_what_came_later(world: World, happens: Callable[[World], None]) -> None:
    world.change(b"a")
    batch = world.cut(world.node())
    happens(world)
    assert world.cut(world.node()) is not batch


def test_file_is_written_once_and_goes_with_the_last_node(world: World) -> None:
    world.change(*(b"%0100d" % number for number in range(100)))
    batches = [world.cut(world.node()) for _ in range(3)]
    assert len(world.files) == 1
    for batch in batches:
        batch.users += 1
    for batch in batches:
        assert len(world.files) == 1
        world.cutter.release(batch.file)
    assert world.files == []
    assert world.cut(world.node()).file != batches[0].file, "it is written again for who comes later"


def test_file_of_a_batch_that_no_node_takes_is_removed(world: World) -> None:
    world.change(*(b"%0100d" % number for number in range(100)))
    batch = world.cut(world.node())
    batch.users = 1
    world.cutter.discard_unused(batch)
    assert len(world.files) == 1
    batch.users = 0
    world.cutter.discard_unused(batch)
    assert world.files == []


def test_node_is_told_to_count_until_it_has_confirmed_the_departure(world: World) -> None:
    world.change(b"a", b"b")
    world.departed_at = 2
    (part,) = parts(world.cut(world.node(1)))
    assert part.allowance == Allowance(3, 0.0)
    world.change(b"c")
    (part,) = parts(world.cut(world.node(2)))
    assert part.allowance is None
    (part,) = parts(world.cut(world.node(1), WHOLE))
    assert part.full
    assert part.allowance is None
