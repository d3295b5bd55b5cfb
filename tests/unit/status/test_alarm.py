"""When a hook is told of a node's state."""

from __future__ import annotations

import pytest

from inosync.config.hook import BEHIND, Hook
from inosync.messages import NodeState
from inosync.status import alarm
from inosync.status.alarm import Alarm

OK, FULL, RETRYING, HALTED = NodeState.OK, NodeState.FULL, NodeState.RETRYING, NodeState.HALTED
ALL, AFTER, SOME = Hook(), Hook(after=5.0, states=BEHIND), Hook(states=frozenset({RETRYING}))


def run(hook: Hook, *looks: tuple[float, NodeState]) -> list[tuple[float, NodeState, NodeState | None]]:
    """When it was told what, and what it knew before."""
    now, told = Alarm(), []
    for at, state in looks:
        before = now.told
        now, tells = alarm.step(now, hook, state, at)
        if tells:
            told.append((at, state, before))
    return told


@pytest.mark.parametrize(
    ("hook", "looks", "told"),
    [
        (
            ALL,
            [(0, OK), (1, OK), (2, RETRYING), (3, OK)],
            [(0, OK, None), (2, RETRYING, OK), (3, OK, RETRYING)],
        ),
        (AFTER, [(0, OK), (1, RETRYING), (5, RETRYING), (6, RETRYING), (99, HALTED)], [(6, RETRYING, OK)]),
        (
            AFTER,
            [(0, OK), (1, RETRYING), (4, HALTED), (6, HALTED), (7, OK)],
            [(6, HALTED, OK), (7, OK, HALTED)],
        ),
        (AFTER, [(0, OK), (1, RETRYING), (5, OK), (6, RETRYING), (10, RETRYING)], []),
        (
            AFTER,
            [(0, RETRYING), (5, RETRYING), (6, FULL), (7, OK)],
            [(5, RETRYING, None), (6, FULL, RETRYING)],
        ),
        (
            SOME,
            [(0, FULL), (1, OK), (2, HALTED), (3, RETRYING), (4, OK)],
            [(3, RETRYING, HALTED), (4, OK, RETRYING)],
        ),
    ],
)
def test_when_it_is_told(
    hook: Hook, looks: list[tuple[float, NodeState]], told: list[tuple[float, NodeState, NodeState | None]]
) -> None:
    assert run(hook, *looks) == told


def test_when_it_is_to_be_looked_at_again() -> None:
    started, _ = alarm.step(Alarm(), AFTER, RETRYING, 10.0)
    assert alarm.due(started, AFTER) == 15.0
    rung, tells = alarm.step(started, AFTER, RETRYING, 15.0)
    assert tells
    assert alarm.due(rung, AFTER) == float("inf")
    assert alarm.due(Alarm(), AFTER) == float("inf")
