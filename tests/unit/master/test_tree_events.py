"""What follows from what the watcher and the guard say; journal and table are real, the rest is made up."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.recorder import Recorder
from unit.master.mirrors import mirror

from inosync.changes import Change, Kind, Step
from inosync.journal.journal import Journal
from inosync.master import resume
from inosync.master.tree_events import TreeEvents
from inosync.master.trees import TreeTable

NOW = 7.0


def whole(tree: int) -> Change:
    return Change(tree, b"", Kind.TREE)


class World:
    """Node a is sent trees 1 and 2, node b only tree 2."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.halted: dict[int, str] = {}
        self.found, self.recovered = True, [2]
        self.doubts: dict[str, str] = {}
        self.full_mirror_of = 0
        self.a, self.b = self.node("a", (1, 2)), self.node("b", (2,))
        self.guard = Recorder(
            self.calls,
            halted=self.halted,
            root_found=lambda _tree: self.found,
            removed=lambda _tree, path: path == b"one/too/many",
            needs_acceptance=lambda _tree: self.halted.get(1) == "has lost 4 entries",
            recovered=lambda: self.recovered,
            accept_loss=lambda: [tree for tree in list(self.halted) if self.halted.pop(tree)],
        )
        self.table = TreeTable(numbers={"/one": 1, "/two": 2})
        self.events = TreeEvents(
            mirror(
                nodes={"a": self.a, "b": self.b},
                table=self.table,
                guard=self.guard,
                journal=Journal(),
                dispatch=Recorder(self.calls, roll_out=SimpleNamespace(is_staged=False)),
                loop=SimpleNamespace(clock=lambda: NOW),
            ),
            cast(Any, Recorder(self.calls)),
            cast(Any, Recorder([], take_doubts=lambda _wpath: self.doubts)),
            lambda: self.calls.append(("publish_soon",)),
        )

    def node(self, name: str, trees: tuple[int, ...]) -> Recorder:
        return Recorder(
            self.calls,
            name=name,
            trees=trees,
            is_full_mirroring=lambda tree: tree in trees and tree == self.full_mirror_of,
        )


@pytest.fixture
def world() -> World:
    return World()


def test_change_in_a_halted_tree_is_recorded_and_told_to_the_guard(world: World) -> None:
    world.events.record(Change(1, b"x", Kind.NAME), NOW)
    assert world.calls == []
    world.halted[1] = "is empty"
    world.events.record(Change(1, b"y", Kind.NAME), NOW)
    world.events.gone(1, b"z", NOW)
    assert world.calls == [("touched", 1), ("removed", 1, b"z"), ("touched", 1)]
    assert world.events.mirror.journal.head == 3


def test_walked_tree_is_compared_on_the_nodes_that_are_sent_it(world: World) -> None:
    world.events.walked(1, NOW)
    assert world.calls == [
        ("root_found", 1),
        ("retry", whole(1), NOW),
        ("offer_batch", world.a),
        ("disturbed", 1),
    ]


def test_walked_tree_that_the_guard_holds_is_not_compared(world: World) -> None:
    world.found = False
    world.events.walked(2, NOW)
    assert world.calls == [("root_found", 2)]


def test_tree_that_was_caught_up_with_is_compared_on_doubted_nodes_only(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world.doubts = {"b": "its extra has changed"}
    world.events.mirror.journal.record(Change(2, b"x", Kind.NAME), NOW)
    world.events.caught_up(2, NOW)
    assert world.calls == [
        ("root_found", 2),
        ("retry", whole(2), NOW),
        ("offer_batch", world.b),
        ("disturbed", 2),
        ("publish_soon",),
    ]
    assert "/two: 1 change since the last process, for 1 node" in caplog.text
    assert "/two: full mirror to b, because its extra has changed" in caplog.text


def test_journal_that_has_overflowed_meanwhile_is_a_full_mirror(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world.events.mirror.journal.floor = 5
    world.events.caught_up(2, NOW)
    assert [call[:2] for call in world.calls if call[0] == "retry"] == [("retry", whole(2))] * 2
    reason = "more has changed meanwhile than the journal holds"
    assert f"/two: full mirror to all nodes, because {reason}" in caplog.text


def test_refiltered_tree_is_compared_on_the_nodes_that_wait_for_it(world: World) -> None:
    world.table.refiltering[2] = {"b", "removed meanwhile"}
    world.events.refiltered(2, NOW)
    assert world.calls == [("retry", whole(2), NOW), ("offer_batch", world.b), ("disturbed", 2)]
    assert world.table.refiltering == {}


@pytest.mark.parametrize("how", ["lost", "halted"])
def test_loss_ends_what_is_sent_and_is_logged(
    world: World, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    getattr(world.events, how)(1, "/one is gone")
    assert "/one is gone; nothing of it is mirrored until" in caplog.text
    sent = [call for call in world.calls if call[0] not in ("root_lost", "needs_acceptance")]
    assert sent == [("retry", whole(1), NOW), ("halt_tree", 1), ("disturbed", 1), ("publish_soon",)]
    assert (("root_lost", 1, "/one is gone") in world.calls) is (how == "lost")


def test_root_that_loses_an_entry_is_checked_while_it_is_mirrored_in_full(world: World) -> None:
    def checks() -> int:
        world.events.check_emptied()
        return world.calls.count(("check", 1))

    world.events.gone(1, b"x", NOW)
    assert checks() == 0, "no full mirror deletes what is gone"
    world.full_mirror_of = 1
    world.events.gone(1, b"deep/x", NOW)
    assert checks() == 0
    world.events.gone(1, b"x", NOW)
    assert checks() == 1
    assert checks() == 1


def test_tree_that_loses_too_much_is_checked_when_the_events_are_read(world: World) -> None:
    world.events.gone(1, b"one/too/many", NOW)
    assert ("check", 1) not in world.calls
    world.events.events_read(5)
    world.events.events_read(6)
    assert world.calls.count(("check", 1)) == 1


def test_tree_that_loses_too_much_and_is_removed_is_not_checked(world: World) -> None:
    world.events.gone(1, b"one/too/many", NOW)
    del world.table.numbers["/one"]
    world.events.events_read(5)
    assert ("check", 1) not in world.calls


def test_what_is_moved_in_is_no_removal(world: World) -> None:
    world.events.gone(1, b"one/too/many", NOW, Step.SWITCHED)
    world.events.events_read(5)
    assert world.calls[0] == ("moved_in", 1)
    assert ("check", 1) not in world.calls


def test_nodes_are_offered_what_they_lack_once_all_changes_are_known(world: World) -> None:
    offers = [("offer_batch", world.a), ("offer_batch", world.b)]
    for at, found in ((0, []), (5, offers), (6, offers)):
        world.events.events_read(at)
        assert [call for call in world.calls if call[0] == "offer_batch"] == found


def test_tree_that_has_lost_too_much_waits_for_the_operator(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.halted[1] = "has lost 4 entries"
    world.events.halted(1, "/one has lost 4 entries")
    assert "/one has lost 4 entries; nothing of it is mirrored until that is accepted: " in caplog.text


def test_recovered_tree_is_compared_everywhere(world: World) -> None:
    world.events.resume_recovered()
    assert [call for call in world.calls if call[0] == "offer_batch"] == [
        ("offer_batch", world.a),
        ("offer_batch", world.b),
    ]
    assert world.calls[-1] == ("publish_soon",)


def test_accepted_loss_is_mirrored_and_named(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert world.events.accept_loss() == []
    assert "nothing is halted" in caplog.text
    world.halted[2] = "/two is empty"
    assert world.events.accept_loss() == ["/two"]
    assert ("retry", whole(2), NOW) in world.calls


def test_far_nodes_are_compared_only_if_they_are_doubted(world: World) -> None:
    world.events.is_shared = True
    world.doubts = {"b": "its extra has changed"}
    world.events.caught_up(2, NOW)
    assert world.events.mirror.journal.entries_after(0) == []
    world.doubts = {resume.FAR: "it is not known what they have"}
    world.events.caught_up(2, NOW)
    assert world.events.mirror.journal.entries_after(0) == [(1, whole(2))]
    world.events.walked(2, NOW)
    assert world.events.mirror.journal.entries_after(0) == [(2, whole(2))]


def test_far_nodes_are_compared_if_too_much_has_changed(world: World) -> None:
    world.events.is_shared = True
    world.events.mirror.journal.go_on(100, 50)
    world.events.caught_up(2, NOW)
    assert world.events.mirror.journal.entries_after(0) == [], "what is below the start was not dropped here"
    world.events.mirror.journal.floor = 101
    world.events.caught_up(2, NOW)
    assert world.events.mirror.journal.entries_after(0) == [(101, whole(2))]
