"""How often the titles are told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import pytest

from inosync.guard.guard import Guard
from inosync.nodes.dispatch import Dispatcher
from inosync.nodes.lifecycle import Phase, WorkerState
from inosync.nodes.node import Node
from inosync.status.state import SHOW, Overview
from inosync.status.transitions import StateLog
from inosync.system import process
from inosync.system.loop import Loop
from inosync.watch.watcher import Watcher


@dataclass(eq=False)
class World:
    """Nodes whose changes take long to count."""

    cost: float
    name: str = "n"
    now: float = 1_000.0
    looks: int = 0
    halted: frozenset[int] = frozenset()
    incomplete_trees: frozenset[int] = frozenset()
    searching_since: float | None = None
    # A node of it:
    state: WorkerState = field(default_factory=lambda: WorkerState(phase=Phase.IDLE))
    degraded_reason: str = ""
    trees: tuple[int, ...] = (1,)
    last_ok: float | None = None
    paused: bool = False

    def __len__(self) -> int:
        return 1

    def unwatched(self, _trees: object = None) -> tuple[int, str]:
        return 0, ""

    def reasons(self, _trees: object) -> list[str]:
        return []

    @property
    def backlog(self) -> World:
        return self

    def oldest(self, _node: Node) -> None:
        self.looks += 1
        self.now += self.cost

    def lag(self, _node: Node) -> float:
        return 0.0

    def pending(self, _node: Node) -> int:
        return 0

    def title_is_stale(self, _verdict: str, _why: str, _behind: object) -> bool:
        return False


def made(w: World, nodes: dict[str, Node]) -> tuple[Overview, Loop]:
    loop, log = Loop(lambda: w.now), StateLog(None, lambda: w.now)
    parts = cast(Dispatcher, w), cast(Watcher, w), cast(Guard, w)
    return Overview("f", nodes, *parts, log, 10.0, loop), loop


@pytest.mark.parametrize(("cost", "looks"), [(0.0, 100 / SHOW), (0.01, 500), (0.5, 10)])
def test_looking_at_the_nodes_takes_a_small_share_of_the_time(
    monkeypatch: pytest.MonkeyPatch, cost: float, looks: float
) -> None:
    monkeypatch.setattr(process, "set_title", lambda _title: None)
    w = World(cost)
    node = {"n": cast(Node, w)}
    overview, loop = made(w, node)
    until = w.now + 100
    while w.now < until:
        overview.refresh()
        loop.turn(0)
        w.now += 0.01
    assert looks * 0.6 <= w.looks <= looks * 1.2


def test_nodes_without_a_worker_are_named_in_the_masters_title(monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []
    monkeypatch.setattr(process, "set_title", titles.append)
    crashed = WorkerState(phase=Phase.DOWN, deaths=3, reason="worker ended with exit code 1")
    worlds = [World(0, name=f"n{number}", state=crashed) for number in range(5)] + [World(0)]
    w = worlds[-1]
    nodes = {each.name: cast(Node, each) for each in worlds}
    overview, loop = made(w, nodes)
    overview.refresh()
    loop.turn(0)
    told = [f"n{number}: worker ended with exit code 1, 3 times in a row" for number in range(3)]
    assert titles == [
        f"inosync: master f [6 nodes: 5 retrying, 1 starting] 1 dirs, {'; '.join(told)}; 2 more"
    ]
    for each in worlds:
        each.state = WorkerState(phase=Phase.IDLE)
    overview.refresh()
    w.now += 1
    loop.turn(0)
    assert titles[-1] == "inosync: master f [6 nodes: 6 starting] 1 dirs"
