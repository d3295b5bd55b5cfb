"""One turn of the loop after the other; the parts are made up."""

from __future__ import annotations

import signal
from collections.abc import Callable
from math import inf
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.recorder import Recorder

from inosync.master.groups import Calls
from inosync.master.master import AHEAD_SECONDS, READ_SECONDS, WALK_SECONDS, Master
from inosync.worker import worker


class World:
    """What the parts say, and what they were called for, in order."""

    def __init__(self, once: bool = False) -> None:
        self.now = 100.0
        self.calls: list[tuple[Any, ...]] = []
        self.events = 0
        """How many reads of the kernel's queue find something."""
        self.caught: list[int] = []
        self.turns = 0
        self.level = False
        self.hook: SimpleNamespace | None = None
        self.pool: Any = Recorder(self.calls, has_ended=False, is_stopping=False)
        self.watcher: Any = Recorder(
            self.calls,
            is_idle=True,
            is_catching_up=False,
            incomplete_trees={1},
            mounts=SimpleNamespace(descriptors=lambda: [7], check=None),
            deadline=lambda: self.now + 5,
            read=self.read,
        )
        self.pacing: Any = Recorder(self.calls, due=inf)
        self.loop = Recorder(self.calls, clock=lambda: self.now, turn=self.turn)
        done = Recorder(self.calls, is_done=lambda: self.level, outcome={"nodes": []})
        reloader: Any = Recorder(self.calls)
        signals = Recorder([], caught=lambda: self.caught)
        reloader.config = SimpleNamespace(on_sync=None)
        self.reloader = reloader
        self.master = Master(
            cast(Any, SimpleNamespace(loop=self.loop, signals=signals, manager=Recorder(self.calls))),
            cast(
                Any,
                SimpleNamespace(watcher=self.watcher, events=Recorder(self.calls), pacing=self.pacing),
            ),
            cast(Any, SimpleNamespace(pool=self.pool, staging=Recorder([]))),
            cast(
                Any,
                SimpleNamespace(
                    flushes=Recorder(self.calls),
                    reloader=reloader,
                    commands=Recorder(self.calls),
                    once=done if once else None,
                ),
            ),
            cast(Any, Recorder(self.calls, summary="1 node: 1 ok")),
            Calls((), [lambda: self.calls.append(("tick",))], [lambda: self.calls.append(("close",))]),
        )

    def read(self) -> int:
        self.now += READ_SECONDS / 4
        self.events -= 1
        return max(self.events + 1, 0)

    def turn(self, _timeout: float) -> None:
        self.turns += 1
        if self.turns == 2:
            self.pool.has_ended = True

    def run(self) -> list[str]:
        self.master.run()
        left_out = ("clock", "deadline", "on_readable", "on_change")
        return [call[0] for call in self.calls if call[0] not in left_out]


def test_run_turns_until_the_pool_has_ended_and_closes_everything() -> None:
    world = World()
    called = world.run()
    assert called[:2] == ["start", "call_every"]
    assert called.count("turn") == 2
    assert called[-2:] == ["abandon", "close"]


@pytest.mark.parametrize("is_catching_up", [True, False])
def test_walk_begins_before_workers_start_if_files_are_looked_at(is_catching_up: bool) -> None:
    world = World()
    world.watcher.is_catching_up = is_catching_up

    def start(before_workers: Callable[[], None]) -> None:
        before_workers()
        world.calls.append(("forked",))

    world.reloader.start = start
    world.master.run()
    before = world.calls[: world.calls.index(("forked",))]
    assert (("work", AHEAD_SECONDS) in before) is is_catching_up


def test_turn_walks_reads_releases_and_ends_flushes() -> None:
    called = World().run()
    turn = called[called.index("turn") : called.index("set_status")]
    assert turn == ["turn", "work", "read", "events_read", "release_if_due", "end_finished"]


def test_turn_waits_until_something_is_due_and_not_while_there_is_work() -> None:
    world = World()
    world.master._turn()
    world.pacing.due = 101.0
    world.now = 100.0
    world.master._turn()
    world.watcher.is_idle = False
    world.master._turn()
    assert [call[1] for call in world.calls if call[0] == "turn"] == [5.0, 1.0, 0.0]
    assert ("work", WALK_SECONDS) in world.calls


def test_reading_ends_though_events_are_made_faster_than_they_are_read() -> None:
    world = World()
    world.events = 1_000_000
    world.master._read_events()
    assert 3 <= [call[0] for call in world.calls].count("read") <= 5


def test_manager_is_told_of_the_start_when_all_trees_are_walked() -> None:
    world = World()
    world.master._turn()
    assert ("ready",) not in world.calls
    world.watcher.incomplete_trees = set()
    world.master._turn()
    assert ("ready",) in world.calls
    assert ("set_status", "1 node: 1 ok") in world.calls


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (signal.SIGHUP, ("reload",)),
        (signal.SIGUSR1, ("reopen_log",)),
        (signal.SIGUSR2, ("accept_loss",)),
        (signal.SIGTERM, ("stop", "SIGTERM")),
        (signal.SIGINT, ("stop", "SIGINT")),
    ],
)
def test_signal_has_its_command_done(number: int, expected: tuple[str, ...]) -> None:
    world = World()
    world.caught = [number]
    world.master._take_signals()
    assert world.calls == [expected]


@pytest.mark.parametrize(("timeout", "grace"), [(None, worker.GRACE_SECONDS), (60.0, 60.0)])
def test_once_stops_when_all_is_mirrored_and_gives_hooks_their_time(
    timeout: float | None, grace: float
) -> None:
    world = World(once=True)
    if timeout is not None:
        world.reloader.config.on_sync = SimpleNamespace(timeout=timeout)
    world.master._turn()
    assert "stop" not in [call[0] for call in world.calls]
    world.level = True
    world.master._turn()
    assert ("stop", "everything was mirrored, once", grace) in world.calls
    assert world.master.outcome == {"nodes": []}
