"""The titles of the master and of idle workers, and how often they are made."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import cast

import pytest

from inosync.guard.guard import Guard
from inosync.nodes.counters import Counters
from inosync.nodes.dispatch import Dispatcher
from inosync.nodes.lifecycle import Phase, WorkerState
from inosync.nodes.node import Node
from inosync.nodes.retries import RetrySet
from inosync.nodes.roll_out import RollOut
from inosync.status.far_node import FarNode
from inosync.status.publisher import MIN_PAUSE_SECONDS, StatePublisher
from inosync.status.state import NodeStates
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
    held_until: float | None = None
    roll_out: RollOut = field(default_factory=RollOut)
    # A node of it:
    state: WorkerState = field(default_factory=lambda: WorkerState(phase=Phase.IDLE))
    problem: str = ""
    retries: RetrySet = field(default_factory=lambda: RetrySet((1.0, 2.0)))
    trees: tuple[int, ...] = (1,)
    last_ok: float | None = None
    paused: bool = False
    verified_at: float | None = None
    differences: int = 0
    second: object = None
    behind: int = 0
    counters: Counters = field(default_factory=Counters)
    directories: int = 1

    def unwatched(self, _trees: object = None) -> tuple[int, str]:
        return 0, ""

    def unseen_since(self, _trees: object) -> None:
        return None

    def reasons(self, _trees: object) -> list[str]:
        return []

    @property
    def backlog(self) -> World:
        return self

    @property
    def coverage(self) -> World:
        return self

    @property
    def worker(self) -> World:
        return self

    def oldest(self, _node: Node) -> None:
        self.looks += 1
        self.now += self.cost

    def lag(self, _node: Node) -> float:
        return 0.0

    def pending(self, _node: Node) -> int:
        return self.behind

    # Its title:
    title: str = ""
    sent: list[str] = field(default_factory=list)

    @property
    def shows_sent_title(self) -> bool:
        return self.state.phase in (Phase.IDLE, Phase.WAITING, Phase.AWAY)

    def send_title(self, text: str) -> None:
        self.title = text
        self.sent.append(text)


def made(w: World, *others: World) -> tuple[StatePublisher, Loop]:
    nodes = {each.name: cast(Node, each) for each in (*others, w)}
    loop, log = Loop(lambda: w.now), StateLog(None, lambda: w.now)
    watcher = cast(Watcher, w)
    states = NodeStates(nodes, cast(Dispatcher, w), watcher, cast(Guard, w), 10.0, loop.clock)
    return StatePublisher("f", states, log, loop), loop


@pytest.mark.parametrize(
    ("cost", "last_ok", "looks"),
    [
        (0.0, 1.0, 100 / MIN_PAUSE_SECONDS),
        (0.01, 1.0, 500),
        (0.5, 1.0, 10),
        (0.0, None, 10_000),  # it starts, and is shown as ok as soon as it is
        (0.01, None, 500),
    ],
)
def test_rounds_take_a_small_share_of_the_time(
    monkeypatch: pytest.MonkeyPatch, cost: float, last_ok: float | None, looks: float
) -> None:
    monkeypatch.setattr(process, "set_title", lambda _title: None)
    w = World(cost, last_ok=last_ok)
    publisher, loop = made(w)
    until = w.now + 100
    while w.now < until:
        publisher.publish_soon()
        loop.turn(0)
        w.now += 0.01
    assert looks * 0.6 <= w.looks <= looks * 1.2


def test_master_title_names_nodes_without_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []
    monkeypatch.setattr(process, "set_title", titles.append)
    crashed = WorkerState(phase=Phase.DOWN, deaths=3, reason="worker ended with exit code 1")
    worlds = [World(0, name=f"n{number}", state=crashed) for number in range(5)] + [World(0)]
    w = worlds[-1]
    publisher, loop = made(w, *worlds[:-1])
    publisher.publish_soon()
    loop.turn(0)
    troubles = [f"n{number}: worker ended with exit code 1, 3 times in a row" for number in range(3)]
    assert titles == [
        f"inosync: master f [6 nodes: 5 retrying, 1 starting] 1 dirs, {'; '.join(troubles)}; 2 more"
    ]
    for each in worlds:
        each.state = WorkerState(phase=Phase.IDLE)
    publisher.publish_soon()
    w.now += 1
    loop.turn(0)
    assert titles[-1] == "inosync: master f [6 nodes: 6 starting] 1 dirs"


AT = r"\d\d:\d\d:\d\d"
IDLE = WorkerState(phase=Phase.IDLE)
WAITING = WorkerState(phase=Phase.WAITING, wake_at=1_001.0, attempt=2, reason="refused")
AWAY = replace(WAITING, phase=Phase.AWAY)
QUEUED = replace(WAITING, wake_at=float("inf"))


@pytest.mark.parametrize(
    ("node", "title"),
    [
        (World(0, state=IDLE), r"inosync: n \[starting\]"),
        (World(0, state=IDLE, last_ok=999.0), rf"inosync: n \[ok\] synced {AT}"),
        (
            World(0, state=IDLE, last_ok=999.0, verified_at=998.0, differences=1),
            rf"inosync: n \[ok\] synced {AT}, verified {AT} \(1 difference\)",
        ),
        (World(0, state=IDLE, last_ok=999.0, problem="lost"), r"inosync: n \[degraded\] lost"),
        (World(0, state=IDLE, paused=True, behind=3), r"inosync: n \[paused\] by the operator, 3 behind"),
        (World(0, state=WAITING, behind=3), rf"inosync: n \[retry 2 at {AT}\] refused, 3 behind"),
        (World(0, state=WAITING, paused=True), rf"inosync: n \[retry 2 at {AT}\] refused, 0 behind"),
        (World(0, state=AWAY), rf"inosync: n \[retry 2 at {AT}\] refused, 0 behind"),
        (World(0, state=QUEUED), r"inosync: n \[retry 2 waits for a slot\] refused, 0 behind"),
        (World(0, state=WorkerState(phase=Phase.BUSY)), None),
        (World(0, state=WorkerState(phase=Phase.DOWN)), None),
    ],
)
def test_title_is_sent_to_a_worker_that_runs_no_transfer(node: World, title: str | None) -> None:
    publisher, _ = made(node)
    publisher.publish_node(cast(Node, node))
    assert len(node.sent) == (title is not None)
    assert title is None or re.fullmatch(title, node.sent[0])


def test_title_is_sent_again_only_when_it_differs() -> None:
    node = World(0, last_ok=999.0)
    publisher, _ = made(node)
    publisher.publish_node(cast(Node, node))
    publisher.publish_node(cast(Node, node))
    assert len(node.sent) == 1
    node.paused = True
    for node.behind in range(1, 101):
        publisher.publish_node(cast(Node, node))
    counts = [int(title.split()[-2]) for title in node.sent[1:]]
    assert counts == [1, 2, 4, 7, 11, 17, 26, 40, 61, 92]


def test_title_counts_the_nodes_of_senders(monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []
    monkeypatch.setattr(process, "set_title", titles.append)
    w = World(0)
    publisher, loop = made(w)
    publisher._elsewhere = lambda: [FarNode(name, 1, {"state": "paused"}) for name in "fg"]
    publisher.publish_soon()
    loop.turn(0)
    assert "2 paused" in titles[-1]
    assert titles[-1].startswith("inosync: master f [3 nodes: ")
    assert publisher.summary in titles[-1]
