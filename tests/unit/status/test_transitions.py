"""Changes of node states: when they are logged, and when hooks are called."""

from __future__ import annotations

import logging
from typing import Any, cast

import pytest

from inosync.config.hook import BEHIND, Hook
from inosync.nodes.messages import StateChanged
from inosync.nodes.node import Node
from inosync.status.transitions import Alarm, StateLog, lasting_state, next_alarm
from inosync.text import NodeState

STARTING, FULL, OK, SYNCING = NodeState.STARTING, NodeState.FULL, NodeState.OK, NodeState.SYNCING
RETRYING, HALTED, PAUSED = NodeState.RETRYING, NodeState.HALTED, NodeState.PAUSED
DEGRADED = NodeState.DEGRADED
ALL, AFTER, SOME = Hook(), Hook(after=5.0, states=BEHIND), Hook(states=frozenset({RETRYING}))


def calls(hook: Hook, *looks: tuple[float, NodeState]) -> list[tuple[float, NodeState, NodeState | None]]:
    """When the hook is called with which state, and what it knew before."""
    alarm, found = Alarm(), []
    for at, state in looks:
        before = alarm.state
        alarm, is_due = next_alarm(alarm, hook, state, at)
        if is_due:
            found.append((at, state, before))
    return found


@pytest.mark.parametrize(
    ("hook", "looks", "expected"),
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
def test_hook_is_called_when(
    hook: Hook,
    looks: list[tuple[float, NodeState]],
    expected: list[tuple[float, NodeState, NodeState | None]],
) -> None:
    assert calls(hook, *looks) == expected


@pytest.mark.parametrize(
    ("before", "state", "lasting"),
    [
        (None, STARTING, None),
        (None, SYNCING, None),
        (None, FULL, FULL),
        (OK, SYNCING, OK),
        (FULL, SYNCING, OK),
        (OK, FULL, FULL),
        (RETRYING, FULL, RETRYING),
        (RETRYING, SYNCING, RETRYING),
        (RETRYING, OK, OK),
        (HALTED, FULL, FULL),
    ],
)
def test_lasting_state_passes_over_what_ends_by_itself(
    before: NodeState | None, state: NodeState, lasting: NodeState | None
) -> None:
    assert lasting_state(before, state) is lasting


class FakeNode:
    """A node as far as it matters here."""

    name = "a"

    def __init__(self) -> None:
        self.orders: list[StateChanged] = []

    @property
    def worker(self) -> FakeNode:
        return self

    def announce_state(self, order: StateChanged) -> None:
        self.orders.append(order)


def run(
    caplog: pytest.LogCaptureFixture, hook: Hook | None, *looks: tuple[float, NodeState]
) -> tuple[list[str], FakeNode]:
    now, node = 0.0, FakeNode()
    state_log = StateLog(hook, lambda: now)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        for at, state in looks:
            now = at
            state_log.record(cast(Node, node), state, "why" if state in BEHIND else "", 1.5)
    return [record.getMessage() for record in caplog.records], node


@pytest.mark.parametrize(
    ("looks", "lines"),
    [
        ([(0, STARTING), (1, FULL), (3, OK)], ["a: full mirror started", "a: is ok after full for 2.0 s"]),
        ([(0, OK), (1, SYNCING), (2, OK), (3, SYNCING)], ["a: is ok"]),
        (
            [(0, OK), (1, SYNCING), (2, RETRYING), (3, SYNCING), (4, RETRYING), (9, OK)],
            ["a: is ok", "a: is retrying after ok for 2.0 s: why", "a: is ok after retrying for 7.0 s"],
        ),
        (
            [(0, RETRYING), (1, FULL), (2, RETRYING), (3, FULL), (4, OK)],
            ["a: is retrying: why", "a: is ok after retrying for 4.0 s"],
        ),
        ([(0, FULL), (1, SYNCING), (2, OK)], ["a: full mirror started", "a: is ok after full for 1.0 s"]),
    ],
)
def test_each_change_is_one_line_in_the_log(
    caplog: pytest.LogCaptureFixture, looks: list[tuple[float, NodeState]], lines: list[str]
) -> None:
    found, _ = run(caplog, None, *looks)
    assert found == lines


def test_bad_state_is_logged_as_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    run(caplog, None, (0, OK), (1, HALTED), (2, PAUSED), (3, DEGRADED))
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING", "INFO", "WARNING"]
    facts = cast(Any, caplog.records[1]).facts
    assert facts == {
        "event": "state",
        "node": "a",
        "state": "halted",
        "before": "ok",
        "seconds": 1.0,
        "lag": 1.5,
        "reason": "why",
    }


def test_hook_is_called_with_both_states_and_their_duration(caplog: pytest.LogCaptureFixture) -> None:
    _, node = run(caplog, Hook(), (0, OK), (5, RETRYING), (7, OK))
    assert node.orders == [
        StateChanged("ok", "", 0.0, "", 1.5),
        StateChanged("retrying", "ok", 5.0, "why", 1.5),
        StateChanged("ok", "retrying", 2.0, "", 1.5),
    ]
    late = Hook(after=10, states=BEHIND)
    _, node = run(caplog, late, (0, OK), (5, RETRYING), (9, HALTED), (16, HALTED), (20, OK))
    assert node.orders == [
        StateChanged("halted", "ok", 11.0, "why", 1.5),
        StateChanged("ok", "halted", 15.0, "", 1.5),
    ]


def test_new_hook_is_called_for_later_changes_only() -> None:
    now, node = 0.0, FakeNode()
    state_log = StateLog(Hook(after=10, states=BEHIND), lambda: now)
    state_log.record(cast(Node, node), RETRYING, "", 0.0)
    state_log.set_hook(Hook(after=10, states=BEHIND))
    now = 10.0
    state_log.record(cast(Node, node), RETRYING, "", 0.0)
    assert [order.seconds for order in node.orders] == [10.0], "an equal hook goes on as before"
    state_log.set_hook(Hook())
    state_log.record(cast(Node, node), RETRYING, "", 0.0)
    assert len(node.orders) == 1, "the state has not changed"
    state_log.record(cast(Node, node), OK, "", 0.0)
    assert node.orders.pop(0).state == "retrying"
    assert [order.state for order in node.orders] == ["ok"]
    state_log.forget_all_but(())
    state_log.record(cast(Node, node), OK, "", 0.0)
    assert [order.before for order in node.orders] == ["retrying", ""]
