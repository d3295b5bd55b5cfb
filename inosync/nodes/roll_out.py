"""The stages of the nodes as they are now (``stages`` decides), for all that sends or shows something."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from inosync.nodes import stages
from inosync.nodes.stages import Action, Plan, Stages, Standing


@dataclass(slots=True)
class RollOut:
    """Which node may be sent what. Without stages it is everything."""

    plan: Plan = field(default_factory=Plan)
    limits: Mapping[str, int] = field(default_factory=dict)
    """The positions of the journal up to which nodes may be sent, by name; that of others has no limit."""
    _stages: Stages = ()

    @property
    def is_staged(self) -> bool:
        return bool(self._stages)

    def follow(self, plan: Plan) -> None:
        """Follow another plan. With other stages, or another check, nothing has passed yet."""
        before, self.plan = self.plan, plan
        if (plan.stages, plan.is_checked) != (before.stages, before.is_checked):
            self._take(stages.first(plan))

    def advance(
        self, nodes: Mapping[str, Standing], needs_check: Callable[[int, int], bool], now: float
    ) -> tuple[Action, ...]:
        """Follow how far the nodes have come; return what is to be done (``stages.advance``)."""
        found, actions = stages.advance(self.plan, self._stages, nodes, needs_check, now)
        self._take(found)
        return actions

    def checked(self, number: int, reason: str) -> None:
        """A check has ended, and lets nothing go on for this reason; empty if it does."""
        if number < len(self._stages):
            self._take(stages.checked(self._stages, number, reason))

    def accept(self) -> list[int]:
        """Let go on what was refused; return which stages that is, from 1 on."""
        return self._after_refusal(stages.accepted)

    def retry(self) -> list[int]:
        """Have checked again what was refused; return which stages that is, from 1 on."""
        return self._after_refusal(stages.retried)

    def _after_refusal(self, follow: Callable[[Stages], Stages]) -> list[int]:
        refused = [number for number, stage in enumerate(self._stages, 1) if stage.refusal]
        self._take(follow(self._stages))
        return refused

    def _take(self, found: Stages) -> None:
        self._stages = found
        self.limits = stages.limits(self.plan, found)

    def hold_before(self, name: str) -> str:
        """Return why a node is sent nothing more; empty if no stage before it is held up."""
        return stages.hold_before(self.plan, self._stages, name)

    def is_stuck(self, name: str, position: int) -> bool:
        """Return whether waiting alone does not give a node all up to a position."""
        return stages.is_stuck(self.plan, self._stages, name, position)

    def waits_for(self, name: str, head: int, now: float) -> str:
        """Return what a node waits for, of the stages before it. ``head``: the newest position."""
        return stages.waits_for(self.plan, self._stages, name, head, now)

    def stages_before(self, name: str) -> Sequence[Sequence[str]]:
        """Return the names of the nodes of each stage that a node waits for."""
        for number, names in enumerate(self.plan.stages):
            if name in names:
                return self.plan.stages[:number]
        return ()

    @property
    def wake_at(self) -> float:
        """When time alone changes something, by the clock; infinite if it does not."""
        return stages.wake_at(self.plan, self._stages)
