"""A fleet under fire: no machine, clock or Redis makes a node older, and all nodes are level in the end."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from unit.fleet.machines import LINKS, PATHS, SENDERS
from unit.fleet.model import World

senders = st.sampled_from(SENDERS)
EXAMPLES = int(os.environ.get("INOSYNC_EXAMPLES", "100"))


class FleetUnderFire(RuleBasedStateMachine):
    """Faults of all kinds between random steps of machines that do their work."""

    @initialize(seed=st.integers(0, 1 << 32), works=st.booleans())
    def start(self, seed: int, works: bool) -> None:
        self.world = World(seed)
        if works:
            self.world.settle()

    @rule(path=st.sampled_from(PATHS), relist=st.booleans())
    def change(self, path: str, relist: bool) -> None:
        self.world.change(path, relist)

    @rule(steps=st.integers(1, 200), faults=st.sampled_from((0.0, 0.02, 0.1)), seed=st.integers(0, 1 << 32))
    def work(self, steps: int, faults: float, seed: int) -> None:
        self.world.rng.seed(seed)
        self.world.storm(steps, faults)

    @rule(rounds=st.integers(1, 12))
    def time_passes(self, rounds: int) -> None:
        for _ in range(rounds):
            self.world.healthy_round(2.0)

    @rule(seconds=st.floats(0.1, 40))
    def machines_stand_still(self, seconds: float) -> None:
        self.world.now += seconds

    @rule(sender=senders, link=st.sampled_from(LINKS))
    def sender_link(self, sender: str, link: str) -> None:
        self.world.senders[sender].link = link

    @rule(link=st.sampled_from(LINKS))
    def origin_link(self, link: str) -> None:
        self.world.origin.link = link

    @rule(sender=senders, reached=st.booleans())
    def sender_is_reached(self, sender: str, reached: bool) -> None:
        self.world.senders[sender].is_reached = reached

    @rule()
    def redis_executes_what_is_late(self) -> None:
        self.world.deliver()

    @rule(how=st.sampled_from(("whole", "older", "empty")))
    def redis_restarts(self, how: str) -> None:
        self.world.restart_redis(how)

    @rule(down=st.booleans())
    def redis_goes_or_comes(self, down: bool) -> None:
        self.world.redis.is_down = down

    @rule(sender=senders)
    def sender_dies(self, sender: str) -> None:
        self.world.kill_sender(sender)

    @rule(sender=senders)
    def sender_starts(self, sender: str) -> None:
        self.world.senders[sender].is_up = True

    @rule(sender=senders, whole=st.booleans())
    def copy_is_replaced(self, sender: str, whole: bool) -> None:
        self.world.replace_copy(sender, whole)

    @rule(up=st.booleans())
    def origin_goes_or_comes(self, up: bool) -> None:
        self.world.origin.is_up = up

    @rule(with_state=st.booleans())
    def origin_restarts(self, with_state: bool) -> None:
        self.world.restart_origin(with_state)

    @rule()
    def everything_heals(self) -> None:
        self.world.settle()

    @invariant()
    def nothing_is_wrong(self) -> None:
        if hasattr(self, "world"):
            self.world.check()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.settle()


TestFleetUnderFire = FleetUnderFire.TestCase
TestFleetUnderFire.settings = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def level_world() -> World:
    """A fleet in which s0 and s1 alone may serve n1, and s0 does; all is level."""
    world = World(3, drift=0.0)
    world.change("a/1", relist=False)
    world.kill_sender("s1")
    for _ in range(20):
        world.healthy_round(2.0)
    world.heal()
    for _ in range(20):
        world.healthy_round(2.0)
    assert world.is_level()
    assert world.redis.data.arrived["s1"].position == 1
    assert "n1" in world.senders["s0"].held
    return world


def finish_mirror(world: World, name: str) -> None:
    """Let the origin send all to a sender, and say so."""
    for _ in range(2 * len(PATHS) + 6):
        world.mirror(name)
    world.origin_beat()


def takes_over(world: World) -> bool:
    """Let s0 die, and time pass, while the origin does not reach s1; return whether s1 has the node then."""
    world.kill_sender("s0")
    for _ in range(15):
        world.healthy_round(2.0)
    return "n1" in world.senders["s1"].held


def test_sender_with_an_older_copy_waits_after_a_takeover() -> None:
    """A copy is newer than its position: the origin has sent a file that has changed once more."""
    world = level_world()
    world.change("b/1", relist=True)
    for name in ("s0", "s1"):
        finish_mirror(world, name)
    world.senders["s1"].is_reached = False
    world.change("b/1", relist=False)
    while world.senders["s0"].files["b/1"] != 3:
        world.mirror("s0")
    world.sender_beat("s0")
    for _ in PATHS:
        world.send("s0", "n1")
        if world.nodes["n1"]["b/1"] == 3:
            break
    assert world.nodes["n1"]["b/1"] == 3
    assert takes_over(world)
    assert world.nodes["n1"]["b/1"] == 3
    world.settle()


def test_sender_with_an_empty_copy_deletes_nothing() -> None:
    world = level_world()
    world.change("a/2", relist=True)
    finish_mirror(world, "s1")
    world.senders["s1"].is_reached = False
    world.replace_copy("s1", whole=False)
    world.senders["s1"].files = dict.fromkeys(PATHS, 0)
    takes_over(world)
    assert world.nodes["n1"]["a/1"] == 1
    world.settle()


def test_fleet_is_level_after_a_hundred_storms() -> None:
    for seed in range(100):
        world = World(seed)
        for _ in range(4):
            for _ in range(world.rng.randrange(10)):
                world.healthy_round(2.0)
            world.storm(world.rng.randrange(200), faults=world.rng.choice((0, 0.02, 0.1)))
        world.settle()


def test_fleet_settles_without_a_second_full_mirror() -> None:
    world = World(1)
    world.change("b/1", relist=False)
    world.settle()
    assert world.fulls == 3
    world.change("a/1", relist=False)
    world.settle()
    for how in ("whole", "older", "empty"):
        world.restart_redis(how)
        world.change("a/1", relist=True)
        world.settle()
    world.restart_origin(with_state=True)
    world.kill_sender("s1")
    world.change("b/2", relist=False)
    world.settle()
    assert world.fulls == 3
