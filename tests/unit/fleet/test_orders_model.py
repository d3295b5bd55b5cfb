"""Orders under fire: none is lost, none is done for ever, and a pause holds, whatever happens between.

The origin and the senders are real. Redis loses the last writes, nodes change hands, the origin restarts.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from inosync.fleet.orders import orders_of
from inosync.master.fleet_orders import FleetOrders, NotReached
from inosync.master.fleet_tasks import SenderTasks

NODES = ("a", "b", "c")
SENDERS = ("s", "t")
Data = dict[str, dict[str, bytes]]


class Sender:
    """A machine that serves nodes."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.nodes: dict[str, Any] = {}
        self.tasks = SenderTasks(cast(Any, self.nodes), lambda: cast(Any, self))

    def serve(self, name: str) -> None:
        """Begin to serve a node, of which this sender knows nothing that was owed to it."""
        node = SimpleNamespace(
            name=name, paused=False, retries=SimpleNamespace(count=0), outstanding=None, second=None, since=0
        )
        node.set_paused = lambda paused: setattr(node, "paused", paused)
        self.tasks.prepare(cast(Any, node), self.world.redis["orders"].get(name))
        self.nodes[name] = node

    def resync(self, node: Any) -> None:
        self.world.begun += 1
        node.retries.count, node.since = 1, self.world.clock

    def pause(self, node: Any) -> None:
        node.paused = True

    def resume(self, node: Any) -> None:
        node.paused = False

    def round(self) -> None:
        redis = self.world.redis
        finish = self.tasks.finished(dict.fromkeys(self.nodes, b"v"))
        redis["done"] |= {name: numbers for name, (_, numbers, _) in finish.items()}
        if self.world.rng.random() < 0.8:  # else the answer is lost
            self.tasks.written(finish)
        self.tasks.take(tuple(self.nodes), redis["orders"], redis["done"])


class World:
    """A fleet, and what was ordered."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.clock = self.begun = 0
        self.redis: Data = {"orders": {}, "done": {}}
        self.kept: list[Data] = []
        """What Redis held a moment ago."""
        self.disk: dict[str, str] = {}
        """What the origin has on its disk."""
        self.ordered: dict[str, int] = {}
        """When a node was ordered to be compared in full last."""
        self.compared: dict[str, int] = dict.fromkeys(NODES, 0)
        """When the last comparison that came through has begun."""
        self.origin = self.new_origin()
        self.senders = {name: Sender(self) for name in SENDERS}
        for name in NODES:
            self.senders["s"].serve(name)

    def new_origin(self) -> FleetOrders:
        wanted = orders_of({name: text.encode() for name, text in self.disk.items()})
        loop = SimpleNamespace(clock=lambda: 0.0, call_at=lambda _when, _call: None)
        return FleetOrders(NODES, cast(Any, loop), wanted, knows_pauses=True)

    def order(self, name: str, command: str) -> None:
        try:
            self.origin.give([name], command)
        except NotReached:
            return
        self.disk = self.origin.texts
        if command == "resync":
            self.ordered[name] = self.clock

    def origin_round(self) -> None:
        given = dict(self.origin.pending)
        self.redis["orders"] |= given
        self.origin.given(given)
        self.origin.note(dict(self.redis["orders"]), dict(self.redis["done"]), {})

    def hand_over(self, name: str) -> None:
        for sender in self.senders.values():
            sender.nodes.pop(name, None)
        self.senders[self.rng.choice(SENDERS)].serve(name)

    def send(self, name: str) -> None:
        """Let a node get what it is owed."""
        for sender in self.senders.values():
            node = sender.nodes.get(name)
            if node is not None and node.retries.count and not node.paused:
                node.retries.count, self.compared[name] = 0, node.since

    def lose(self) -> None:
        """Let Redis come back as it was a moment ago, or empty."""
        empty: Data = {"orders": {}, "done": {}}
        found = self.rng.choice([*self.kept, empty])
        self.redis = {key: dict(values) for key, values in found.items()}
        self.origin.lost()

    def restart(self) -> None:
        """Restart the origin, with the state of a moment ago: it is written at once only for an order."""
        self.origin = self.new_origin()

    def step(self, faults: float) -> None:
        self.clock += 1
        self.kept = [*self.kept[-3:], {key: dict(values) for key, values in self.redis.items()}]
        name, rng = self.rng.choice(NODES), self.rng
        if rng.random() < faults:
            acts: list[Callable[[], None]] = [self.lose, self.restart, lambda: self.hand_over(name)]
            rng.choice(acts)()
            return
        works: list[Callable[[], None]] = [
            lambda: self.order(name, rng.choice(("pause", "resume", "resync", "resync"))),
            self.origin_round,
            self.origin_round,
            *(sender.round for sender in self.senders.values()),
            lambda: self.send(name),
        ]
        rng.choice(works)()

    def settle(self) -> None:
        """Let everything do its work, with no node paused, and look that all was done, and comes to rest."""
        for _ in range(3):
            self.origin_round()
        for sender in self.senders.values():
            sender.round()
        served = {name: node for sender in self.senders.values() for name, node in sender.nodes.items()}
        assert [name for name in NODES if served[name].paused] == self.origin.paused
        for name in NODES:
            self.order(name, "resume")
        for _ in range(8):
            self.quiet_round()
        for name, when in self.ordered.items():
            assert self.compared[name] >= when, (
                f"{name}: ordered at {when}, compared at {self.compared[name]}"
            )
        before = self.begun
        for _ in range(8):
            self.quiet_round()
        assert self.begun == before, "what was done is done again and again"
        assert not any(self.origin.is_owed(name) for name in NODES)
        assert not self.origin.pending

    def quiet_round(self) -> None:
        self.origin_round()
        for sender in self.senders.values():
            sender.round()
        for name in NODES:
            self.send(name)


@pytest.mark.slow
@pytest.mark.parametrize("faults", [0.0, 0.1, 0.4])
def test_orders_come_through_in_storms(faults: float) -> None:
    for seed in range(300):
        world = World(seed)
        try:
            for _ in range(3):
                for _ in range(world.rng.randrange(60)):
                    world.step(faults)
                world.settle()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
