"""When nothing is sent to any node, and what ends that; the nodes and the flushes are made up."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from inosync.master.hold import RELEASE_SECONDS, Hold
from inosync.nodes.lifecycle import Phase
from inosync.state.document import State
from inosync.system.loop import Loop


class World:
    """All that a hold looks at."""

    def __init__(self) -> None:
        self.now = 100.0
        self.loop = Loop(lambda: self.now)
        self.held: list[float | None] = []
        self.replaced: list[str] = []
        self.flush: Any = None
        """The flush that the release has begun: its nodes, its deadline, and what it calls."""
        self.cancelled = 0
        self.sent = 0
        self.is_disk_full = False
        self.nodes = {name: self.node(phase) for name, phase in PHASES.items()}
        self.dispatch = SimpleNamespace(held_until=None, hold=self._hold)
        pool = SimpleNamespace(
            loop=self.loop,
            dispatch=self.dispatch,
            nodes=self.nodes,
            mirror=SimpleNamespace(journal=[1, 2]),
            publisher=SimpleNamespace(publish_soon=lambda: None),
            is_stopping=False,
            replace_worker=self._replace,
        )
        flushes = SimpleNamespace(begin=self._begin, cancel=self._cancel, release=self._send)
        self.hold = Hold(cast(Any, pool), cast(Any, flushes))

    @staticmethod
    def node(phase: Phase) -> SimpleNamespace:
        return SimpleNamespace(worker=SimpleNamespace(state=SimpleNamespace(phase=phase)))

    def _hold(self, until: float | None) -> None:
        self.dispatch.held_until = until
        self.held.append(until)

    def _replace(self, node: SimpleNamespace) -> None:
        self.replaced += [name for name, one in self.nodes.items() if one is node]
        node.worker.state.phase = Phase.STOPPING

    def _begin(self, nodes: Sequence[Any], deadline: float, done: Any) -> Any:
        if self.is_disk_full:
            raise OSError
        self.flush = (tuple(nodes), deadline, done)
        return self.flush

    def _cancel(self, flush: Any) -> None:
        assert flush is self.flush
        self.flush = None
        self.cancelled += 1

    def _send(self) -> None:
        assert self.dispatch.held_until is None, "it is sent when nothing is held any more"
        self.sent += 1

    def all_is_known(self) -> None:
        self.flush[2](())

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.loop.turn(0)


PHASES = {"idle": Phase.IDLE, "busy": Phase.BUSY, "waiting": Phase.WAITING, "away": Phase.AWAY}


@pytest.fixture
def world() -> World:
    return World()


def test_hold_lasts_until_all_that_was_written_is_known(world: World) -> None:
    world.hold.begin(50.0)
    assert world.held == [150.0]
    assert world.hold.release()
    assert world.flush[:2] == ((), 100.0 + RELEASE_SECONDS)
    assert (world.held, world.sent) == ([150.0], 0), "events may not have been read yet"
    assert world.hold.release(), "asked for twice, it is one release"
    world.all_is_known()
    assert (world.held, world.sent) == ([150.0, None], 1)
    world.wait(1000.0)
    assert world.sent == 1, "its longest time means nothing any more"
    assert not world.hold.release()


def test_hold_has_a_longest_time(world: World) -> None:
    world.hold.begin(50.0)
    world.wait(49.9)
    assert world.flush is None
    world.wait(0.1)
    world.all_is_known()
    assert (world.held, world.sent) == ([150.0, None], 1)


def test_second_hold_takes_the_place_of_the_first(world: World) -> None:
    world.hold.begin(50.0)
    world.wait(40.0)
    world.hold.begin(50.0)
    world.wait(10.0)
    assert (world.held, world.flush) == ([150.0, 190.0], None)


def test_hold_during_a_release_takes_it_back(world: World) -> None:
    world.hold.begin(50.0)
    world.hold.release()
    world.hold.begin(50.0)
    assert (world.cancelled, world.sent, world.dispatch.held_until) == (1, 0, 150.0)
    assert world.hold.release()
    world.all_is_known()
    assert world.sent == 1


def test_release_without_room_for_a_mark_is_at_once(world: World) -> None:
    world.hold.begin(50.0)
    world.is_disk_full = True
    assert world.hold.release()
    assert (world.held, world.sent) == ([150.0, None], 1)


def test_batches_that_would_be_tried_again_are_taken_back(world: World) -> None:
    world.hold.stop_retries()
    assert world.replaced == [], "nothing is held"
    world.hold.begin(50.0)
    assert world.replaced == ["waiting"]
    world.nodes["busy"].worker.state.phase = Phase.WAITING
    world.hold.stop_retries()
    world.hold.stop_retries()
    assert world.replaced == ["waiting", "busy"]


@pytest.mark.parametrize(
    ("held_until", "wall", "expected"),
    [
        (None, 5_000.0, []),
        (4_000.0, 5_000.0, []),
        (5_060.0, 5_000.0, [160.0]),
        (5_060.0, 2_000.0, [160.0]),  # the time was set back meanwhile
    ],
)
def test_hold_survives_a_restart(
    world: World, held_until: float | None, wall: float, expected: list[float]
) -> None:
    state = State("", 5_000.0, "", 0.0, True, held_until=held_until)
    world.hold.restore(state, wall)
    assert world.held == expected
    World().hold.restore(None, wall)
