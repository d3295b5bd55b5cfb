"""When a hook is to be told of a node's state: ``step(alarm, hook, state, now)``, pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from inosync.config.hook import Hook
from inosync.messages import NodeState


@dataclass(frozen=True, slots=True)
class Alarm:
    """What a hook knows of a node. Times in seconds, by the caller's clock."""

    told: NodeState | None = None
    """The state that it was told last, or would have been if it wanted to know."""
    since: float | None = None
    """Since when the node is in one of the hook's states without a break; None: it is in none."""
    rings: bool = False
    """Whether it was told of them."""


def step(alarm: Alarm, hook: Hook, state: NodeState, now: float) -> tuple[Alarm, bool]:
    """What becomes of it when a node is in a state, and whether the hook is to be told."""
    if not hook.states:
        return replace(alarm, told=state), state is not alarm.told
    if state not in hook.states:
        return Alarm(told=state), alarm.rings
    since = now if alarm.since is None else alarm.since
    rings = now - since >= hook.after
    if alarm.rings or not rings:
        return replace(alarm, since=since), False
    return Alarm(state, since, True), True


def due(alarm: Alarm, hook: Hook) -> float:
    """When it is to be looked at though nothing has changed; infinite if never."""
    if alarm.since is None or alarm.rings:
        return float("inf")
    return alarm.since + hook.after
