"""What a node shows is whole after each step of each run of rsync, whatever happens and fails meanwhile."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from unit.worker.arrival_model import RETRY_BOUNDS, World

from inosync.changes import Lane
from inosync.nodes.settlement import SECOND_LOOK_SECONDS

EXAMPLES = int(os.environ.get("INOSYNC_EXAMPLES", "60"))
OPERATIONS = ("release", "release", "page", "swap", "other")
KINDS = (0, 1, 2, 4, 8, 9, 9, 13)
STEPS = """
    begin begin begin begin go_on go_on go_on go_on read read read finish_batch finish_batch
    work work work work work work fail kill wait wait resync restart
"""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Workers die by the hundred here."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def publish(world: World, rng: random.Random) -> None:
    """Do a little at the source."""
    for _ in range(rng.choice((0, 0, 1, 3))):
        operation = rng.choice(OPERATIONS)
        world.site.begin(operation, rng.choice(KINDS))
        world.site.go_on(operation, rng.randint(1, 12))


def storm(world: World, rng: random.Random, steps: int) -> None:
    """Do so much at the source, in the master and in the worker, in any order."""
    for _ in range(steps):
        site, operation, lane = world.site, rng.choice(OPERATIONS), rng.choice(list(Lane))
        match rng.choice(STEPS.split()):
            case "begin":
                site.begin(operation, rng.choice(KINDS))
                site.go_on(operation, rng.randint(1, 12))
                world.log.append(f"{operation} begins or goes on, version {site.version}")
            case "go_on":
                world.log.append(f"{operation} goes on")
                site.go_on(operation, rng.randint(1, 12))
            case "read":
                world.read()
            case "work":
                world.work(lane, rng.randint(1, 30))
            case "finish_batch":
                world.work(lane, 1000)
            case "fail":
                name = rng.choice(sorted(path for path, entry in world.tree().items() if entry[0] == "file"))
                world.copy.failing[name] = rng.randint(1, 3)
                world.log.append(f"{name!r} cannot be changed {world.copy.failing[name]} times")
            case "resync":
                world.log.append("resync")
                world.resync()
            case "kill":
                world.kill_worker()
            case "restart":
                world.restart(lambda: publish(world, rng))
            case "wait":
                world.wait(rng.choice((0.06, *RETRY_BOUNDS, SECOND_LOOK_SECONDS)))


@pytest.mark.slow
@given(
    seed=st.integers(0, 1 << 32),
    steps=st.sampled_from((15, 30, 60)),
    is_late=st.booleans(),
    is_coarse=st.booleans(),
)
@example(seed=416, steps=60, is_late=False, is_coarse=False)
@example(seed=428, steps=60, is_late=False, is_coarse=False)
@example(seed=902, steps=60, is_late=True, is_coarse=False)
@example(seed=93146231, steps=30, is_late=False, is_coarse=False)
@example(seed=20794582, steps=60, is_late=False, is_coarse=False)
@settings(max_examples=EXAMPLES, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_node_is_whole_at_each_step_and_level_in_the_end(
    seed: int, steps: int, is_late: bool, is_coarse: bool
) -> None:
    world = World()
    world.is_late, world.is_coarse = is_late, is_coarse
    try:
        storm(world, random.Random(seed), steps)
        world.finish()
    finally:
        world.close()
