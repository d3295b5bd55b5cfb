"""When a flush ends, and what it says then; the nodes, the watcher and the journal are made up."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from unit.master.mirrors import mirror

from inosync.master.flush import MARK_AGAIN_SECONDS, Behind, Flush, Flushes
from inosync.nodes.node import Node
from inosync.status.far_node import FarNode
from inosync.system.loop import Loop

EVER = float("inf")


class World:
    """All that a flush looks at. What happens is in ``events``, in its order."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.now = 100.0
        self.events: list[str] = []
        self.is_walking = False
        self.incomplete_trees: set[int] = set()
        self.searching_since: float | None = None
        self.compared_at = EVER
        """What is not watched was compared then."""
        self.blind: set[int] = set()
        """Trees with directories that cannot be read."""
        self.head = 7
        self.stuck_at = EVER
        """The position from which on no node gets anything, because of the stages before it."""
        self.nodes = {name: node(name) for name in "ab"}
        self._told: Callable[[bytes], None] = lambda _name: None
        self.loop = Loop(lambda: self.now)
        self.flushes = Flushes(
            str(directory),
            mirror(nodes=self.nodes, journal=self, loop=self.loop, dispatch=SimpleNamespace(roll_out=self)),
            cast(Any, self),
            lambda: self.events.append("hasten"),
        )
        self.flushes.watch_directory()

    # As the roll-out

    def is_stuck(self, name: str, position: int) -> bool:
        return name == "b" and position >= self.stuck_at

    # As the watcher

    def watch_marks(self, path: str, seen: Callable[[bytes], None]) -> None:
        assert os.path.isdir(path)
        self.events.append("watch")
        self._told = seen

    def record_unclosed(self) -> None:
        self.events.append("settle")
        self.head += 1  # there was a file that nobody had closed

    @property
    def coverage(self) -> World:
        return self

    def has_polled(self, trees: set[int], since: float) -> bool:
        assert trees in ({1, 2}, set())
        return self.compared_at >= since

    def unreadable(self, trees: Sequence[int]) -> bool:
        return not self.blind.isdisjoint(trees)

    # What the test does

    def begin(self, names: str = "ab", deadline: float = EVER) -> list[list[str]]:
        """Begin a flush; what it says at its end will be in the list."""
        said: list[list[str]] = []
        self.flush = self.flushes.begin(
            [cast(Node, self.nodes[name]) for name in names],
            deadline,
            lambda behind: said.append([node.name for node in behind]),
        )
        return said

    def read(self) -> None:
        """The event of the newest mark is read."""
        newest = max(self.flushes._by_mark, key=lambda mark: int(mark.partition(b"-")[2]))
        self._told(newest)

    def look(self, seconds: float = 0.0) -> None:
        """Let time pass, and the loop turn."""
        self.now += seconds
        self.loop.turn(0)
        self.flushes.end_finished()

    def confirm(self) -> None:
        for node in self.nodes.values():
            node.cursor = self.head


def node(name: str) -> SimpleNamespace:
    return SimpleNamespace(
        name=name,
        cursor=0,
        paused=False,
        trees=(1, 2),
        retries=SimpleNamespace(lacks_since=lambda _since: False),
    )


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "marks")


def marks(flushes: Flushes) -> int:
    return len(flushes._by_mark)


def test_flush_ends_when_all_have_confirmed_what_was_there(world: World) -> None:
    said = world.begin()
    world.confirm()
    world.look()
    assert said == [], "the mark has not been seen"
    world.read()
    world.look()
    assert said == [], "what was settled is new"
    assert world.events == ["watch", "settle", "hasten"]
    world.nodes["a"].cursor = 8
    world.look()
    assert said == []
    world.nodes["b"].cursor = 8
    world.look()
    assert said == [[]]
    assert os.listdir(world.directory) == []


def test_flush_does_not_wait_for_later_changes(world: World) -> None:
    said = world.begin()
    world.read()
    world.look()
    world.confirm()
    world.head += 10
    world.look()
    assert said == [[]]


@pytest.mark.parametrize(
    ("hold", "let"),
    [
        (lambda w: setattr(w, "is_walking", True), lambda w: setattr(w, "is_walking", False)),
        (lambda w: w.incomplete_trees.add(5), lambda w: w.incomplete_trees.clear()),
        (lambda w: setattr(w, "searching_since", w.now), lambda w: setattr(w, "searching_since", None)),
        (lambda w: setattr(w, "searching_since", w.now), lambda w: setattr(w, "searching_since", w.now + 1)),
        (lambda w: setattr(w, "compared_at", w.now - 1), lambda w: setattr(w, "compared_at", w.now)),
    ],
    ids=["busy", "walking", "searching", "searching for what came later", "not compared"],
)
def test_flush_waits_for_what_is_not_known_yet(
    world: World, hold: Callable[[World], None], let: Callable[[World], None]
) -> None:
    said = world.begin()
    hold(world)
    world.read()
    world.confirm()
    world.look()
    assert world.events == ["watch"]
    let(world)
    world.look()
    assert world.events == ["watch", "settle", "hasten"]
    world.confirm()
    world.look()
    assert said == [[]]


def test_flush_waits_for_a_search_that_unclosed_files_begin(world: World) -> None:
    said = world.begin()
    world.read()
    settle = world.record_unclosed

    def found_more() -> None:
        settle()
        world.searching_since = world.now

    world.record_unclosed = found_more  # type: ignore[method-assign]
    world.look()
    assert world.events == ["watch", "settle"]
    world.searching_since = None
    world.record_unclosed = settle  # type: ignore[method-assign]
    world.look()
    world.confirm()
    world.look()
    assert said == [[]]


def test_mark_dropped_by_the_kernel_is_made_again(world: World) -> None:
    said = world.begin()
    assert marks(world.flushes) == 1
    world.look(MARK_AGAIN_SECONDS / 2)
    assert marks(world.flushes) == 1
    assert world.loop.next_timer == 100.0 + MARK_AGAIN_SECONDS
    world.look(MARK_AGAIN_SECONDS / 2)
    assert marks(world.flushes) == 2
    world.read()
    world.look()
    world.confirm()
    world.look()
    assert said == [[]]
    assert marks(world.flushes) == 0


def test_cleared_run_directory_is_made_and_watched_again(world: World) -> None:
    shutil.rmtree(world.directory)
    world.begin()
    assert world.events == ["watch", "watch"]
    assert marks(world.flushes) == 1


def test_mark_that_cannot_be_made_is_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.begin()
    with monkeypatch.context() as patch:

        def full(*_: object, **__: object) -> int:
            raise OSError(28, "No space left on device")

        patch.setattr(os, "open", full)
        world.look(MARK_AGAIN_SECONDS)
        with pytest.raises(OSError, match="No space"):
            world.begin()
    assert len(world.flushes._waiting) == 1, "who could not begin is told, and not waited for"
    world.look(MARK_AGAIN_SECONDS)
    world.read()
    world.look()
    assert "settle" in world.events


def test_deadline_names_the_nodes_that_lack_something(world: World) -> None:
    said = world.begin(deadline=105.0)
    world.look(5)
    assert said == [["a", "b"]], "nothing is known of them"
    said = world.begin(deadline=110.0)
    world.read()
    world.look()
    world.nodes["a"].cursor = world.head
    world.look(5)
    assert said == [["b"]]


def test_flush_waits_for_retries_that_were_due_by_then(world: World) -> None:
    owed = [101.0]
    world.nodes["b"].retries.lacks_since = lambda since: any(at <= since for at in owed)
    said = world.begin()
    world.now = 101.0
    world.read()
    world.look(1)
    world.confirm()
    world.look()
    assert said == []
    owed[:] = [103.0]  # tried, and something else that came later
    world.look(2)
    assert said == [[]]


def test_removed_node_and_its_successor_are_not_waited_for(world: World) -> None:
    said = world.begin()
    world.read()
    world.look()
    world.nodes["a"].cursor = world.head
    world.nodes["b"] = node("b")
    world.look()
    assert said == [[]]


def test_paused_nodes_end_a_flush_that_waits_for_no_other(world: World) -> None:
    world.nodes["b"].paused = True
    said = world.begin()
    world.look()
    assert said == [], "what it lacks is not known"
    world.read()
    world.look()
    assert said == []
    world.nodes["a"].cursor = world.head
    world.look()
    assert said == [["b"]]


def test_held_nodes_end_a_flush_of_what_does_not_come(world: World) -> None:
    world.record_unclosed = lambda: None  # type: ignore[method-assign]
    world.stuck_at = world.head
    said = world.begin()
    world.read()
    world.look()
    assert said == []
    world.nodes["a"].cursor = world.head
    world.look()
    assert said == [["b"]]


def test_held_node_is_waited_for_as_long_as_it_may_come(world: World) -> None:
    world.record_unclosed = lambda: None  # type: ignore[method-assign]
    world.stuck_at = world.head + 1
    world.nodes["a"].cursor = world.head
    said = world.begin()
    world.read()
    world.look()
    world.look()
    assert said == [], "what it lacks has passed"
    world.nodes["b"].cursor = world.head
    world.nodes["b"].retries.lacks_since = lambda _since: True
    world.look()
    assert said == []
    world.head += 1
    world.look()
    assert said == [["b"]], "what it is owed has changed again, and that was refused"


def test_paused_node_that_lacks_nothing_is_not_named(world: World) -> None:
    world.record_unclosed = lambda: None  # type: ignore[method-assign]
    world.nodes["b"].paused = True
    world.confirm()
    said = world.begin("b")
    world.look()
    assert said == [], "whether it does is not known yet"
    world.read()
    world.look()
    assert said == [[]]


def test_node_with_unreadable_directories_lacks_something(world: World) -> None:
    world.blind = {2}
    said = world.begin("a", deadline=101.0)
    world.read()
    world.look()
    world.confirm()
    world.look()
    assert said == []
    world.look(1)
    assert said == [["a"]]


def test_cancelled_flush_says_nothing(world: World) -> None:
    said = world.begin(deadline=101.0)
    gone: Flush = world.flush
    other = world.begin("a")
    world.flushes.cancel(gone)
    assert marks(world.flushes) == 1
    world.look(2)
    assert said == []
    world.read()
    world.look()
    world.confirm()
    world.look()
    assert other == [[]]


def test_flush_of_no_node_ends_when_all_changes_are_known(world: World) -> None:
    world.compared_at = EVER
    said: list[Behind] = []
    world.is_walking = True
    world.flush = world.flushes.begin((), EVER, said.append)
    world.look()
    world.read()
    world.look()
    assert said == [], "what is walked may be new"
    world.is_walking = False
    world.look()
    assert said == [[]]
    assert world.events[-2:] == ["settle", "hasten"]


def test_flush_waits_for_a_far_node_and_for_what_was_ordered_for_it(world: World) -> None:
    far = FarNode("far", 0, {}, is_owed=True)
    world.flushes.elsewhere = lambda: [far, FarNode("other", 0, {})]
    said: list[list[str]] = []
    world.flushes.begin((), EVER, lambda behind: said.append([node.name for node in behind]), ["far"])
    world.read()
    world.look()
    assert said == []
    far = replace(far, cursor=world.head)
    world.look()
    assert said == [], "it is still to be compared in full"
    far = replace(far, is_owed=False)
    world.look()
    assert said == [[]]


def test_flush_does_not_wait_for_a_far_node_that_is_paused(world: World) -> None:
    world.flushes.elsewhere = lambda: [FarNode("far", 0, {}, paused=True, is_owed=True)]
    said: list[list[str]] = []
    world.flushes.begin((), EVER, lambda behind: said.append([node.name for node in behind]), ["far"])
    world.read()
    world.look()
    assert said == [["far"]]
