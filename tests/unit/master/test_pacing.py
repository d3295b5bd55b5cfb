"""When changes are handed out; the journal is real, the rest is made up."""

from __future__ import annotations

from math import inf
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.recorder import Recorder

from inosync.journal import debounce
from inosync.journal.journal import Journal
from inosync.master.pacing import Pacing
from inosync.messages import Change, Kind


class World:
    def __init__(self) -> None:
        self.now = 100.0
        self.calls: list[tuple[Any, ...]] = []
        self.watcher = SimpleNamespace(is_walking=False)
        self.journal = Journal()
        self.pacing = Pacing(
            cast(Any, {"a": "node a", "b": "node b"}),
            self.journal,
            cast(Any, Recorder(self.calls)),
            cast(Any, self.watcher),
            debounce.start(1.0, 10.0),
            lambda: self.now,
        )

    def change(self, name: bytes) -> None:
        self.journal.record(Change(1, name, Kind.NAME), self.now)
        self.pacing.release_if_due()

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.pacing.release_if_due()


@pytest.fixture
def world() -> World:
    return World()


RELEASED = [("release_changes",), ("offer_batch", "node a"), ("offer_batch", "node b")]


def test_changes_are_released_to_all_nodes_after_a_quiet_moment(world: World) -> None:
    assert world.pacing.due == inf
    world.change(b"x")
    assert world.pacing.due == 101.0
    world.wait(0.9)
    assert world.calls == []
    world.wait(0.1)
    assert world.calls == RELEASED
    assert world.pacing.due == inf


def test_changes_wait_for_a_walk_but_no_longer_than_the_delay(world: World) -> None:
    world.watcher.is_walking = True
    world.change(b"x")
    world.wait(9.9)
    assert world.calls == []
    world.wait(0.1)
    assert world.calls == RELEASED


def test_release_at_once_leaves_nothing_to_wait_for(world: World) -> None:
    world.change(b"x")
    world.pacing.release()
    assert world.calls == RELEASED
    world.wait(10)
    assert world.calls == RELEASED


def test_other_settings_are_followed_at_once(world: World) -> None:
    world.change(b"x")
    world.pacing.configure(5.0, 20.0)
    assert world.pacing.due == 105.0
