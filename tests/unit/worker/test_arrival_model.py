"""What a node shows is whole after each step of each run of rsync, whatever happens and fails meanwhile."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from unit.worker.arrival_model import RETRY_BOUNDS, World

from inosync.messages import Lane

EXAMPLES = int(os.environ.get("INOSYNC_EXAMPLES", "20"))
OPERATIONS = st.sampled_from(("release", "page", "swap", "other"))
STEPS = st.integers(1, 12)


class Publishing(RuleBasedStateMachine):
    """Operations at the source, cuts of batches, failures and deaths in any order."""

    @initialize(is_late=st.booleans(), is_coarse=st.booleans())
    def start(self, is_late: bool, is_coarse: bool) -> None:
        self.world = World()
        self.world.is_late, self.world.is_coarse = is_late, is_coarse

    @rule(operation=OPERATIONS, kind=st.sampled_from((0, 1, 2, 4, 8, 9, 13)), steps=STEPS)
    def publish(self, operation: str, kind: int, steps: int) -> None:
        self.world.site.begin(operation, kind)
        self.world.site.go_on(operation, steps)

    @rule(operation=OPERATIONS, steps=STEPS)
    def go_on(self, operation: str, steps: int) -> None:
        self.world.site.go_on(operation, steps)

    @rule()
    def read(self) -> None:
        self.world.read()

    @rule(lane=st.sampled_from(Lane), steps=st.integers(1, 30))
    def work(self, lane: Lane, steps: int) -> None:
        self.world.work(lane, steps)

    @rule(lane=st.sampled_from(Lane))
    def finish_batch(self, lane: Lane) -> None:
        self.world.work(lane, 1000)

    @rule(number=st.integers(0, 1000), tries=st.integers(1, 3))
    def name_fails(self, number: int, tries: int) -> None:
        world = self.world
        names = sorted(path for path, entry in world.tree().items() if entry[0] == "file")
        world.copy.failing[names[number % len(names)]] = tries

    @rule()
    def kill(self) -> None:
        self.world.kill_worker()

    @rule(seconds=st.sampled_from((0.06, *RETRY_BOUNDS)))
    def wait(self, seconds: float) -> None:
        self.world.wait(seconds)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            try:
                self.world.finish()
            finally:
                self.world.close()


TestPublishing = Publishing.TestCase
TestPublishing.settings = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
