"""The lines about changes of state, and what hooks are told, of nodes that are looked at now and then."""

from __future__ import annotations

import logging
from typing import Any, cast

import pytest

from inosync.config.hook import BEHIND, Hook
from inosync.messages import NodeState, StateChanged
from inosync.nodes.node import Node
from inosync.status.transitions import StateLog

V = NodeState


class Told:
    """A node as far as it matters here."""

    name = "a"

    def __init__(self) -> None:
        self.orders: list[StateChanged] = []

    def announce_state(self, order: StateChanged) -> None:
        self.orders.append(order)


def run(
    caplog: pytest.LogCaptureFixture, hook: Hook | None, *looks: tuple[float, NodeState]
) -> tuple[list[str], Told]:
    now, node = 0.0, Told()
    chronicle = StateLog(hook, lambda: now)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        for at, state in looks:
            now = at
            chronicle.look(cast(Node, node), state, "why" if state in BEHIND else "", 1.5)
    return [record.getMessage() for record in caplog.records], node


@pytest.mark.parametrize(
    ("looks", "lines"),
    [
        ([(0, V.STARTING), (1, V.FULL), (3, V.OK)], ["a: is full", "a: is ok after full for 2.0 s"]),
        ([(0, V.OK), (1, V.SYNCING), (2, V.OK), (3, V.SYNCING)], ["a: is ok"]),
        (
            [(0, V.OK), (1, V.SYNCING), (2, V.RETRYING), (3, V.SYNCING), (4, V.RETRYING), (9, V.OK)],
            ["a: is ok", "a: is retrying after ok for 2.0 s: why", "a: is ok after retrying for 7.0 s"],
        ),
        (
            [(0, V.RETRYING), (1, V.FULL), (2, V.RETRYING), (3, V.FULL), (4, V.OK)],
            ["a: is retrying: why", "a: is ok after retrying for 4.0 s"],
        ),
        ([(0, V.FULL), (1, V.SYNCING), (2, V.OK)], ["a: is full", "a: is ok after full for 1.0 s"]),
    ],
)
def test_a_line_for_each_change(
    caplog: pytest.LogCaptureFixture, looks: list[tuple[float, NodeState]], lines: list[str]
) -> None:
    found, _ = run(caplog, None, *looks)
    assert found == lines


def test_what_is_wrong_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    run(caplog, None, (0, V.OK), (1, V.HALTED), (2, V.PAUSED), (3, V.DEGRADED))
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


def test_what_a_hook_is_told(caplog: pytest.LogCaptureFixture) -> None:
    _, node = run(caplog, Hook(), (0, V.OK), (5, V.RETRYING), (7, V.OK))
    assert node.orders == [
        StateChanged("ok", "", 0.0, "", 1.5),
        StateChanged("retrying", "ok", 5.0, "why", 1.5),
        StateChanged("ok", "retrying", 2.0, "", 1.5),
    ]
    late = Hook(after=10, states=BEHIND)
    _, node = run(caplog, late, (0, V.OK), (5, V.RETRYING), (9, V.HALTED), (16, V.HALTED), (20, V.OK))
    assert node.orders == [
        StateChanged("halted", "ok", 11.0, "why", 1.5),
        StateChanged("ok", "halted", 15.0, "", 1.5),
    ]


def test_when_it_is_to_look_again_and_what_another_hook_is_told() -> None:
    now, node = 0.0, Told()
    chronicle = StateLog(Hook(after=10, states=BEHIND), lambda: now)
    assert chronicle.due == float("inf")
    chronicle.look(cast(Node, node), V.RETRYING, "", 0.0)
    assert chronicle.due == 10.0
    chronicle.use(Hook(after=10, states=BEHIND))
    assert chronicle.due == 10.0, "a reload changes nothing"
    chronicle.use(Hook())
    assert chronicle.due == float("inf")
    chronicle.look(cast(Node, node), V.RETRYING, "", 0.0)
    assert node.orders == [], "of what is so already it is not told"
    chronicle.look(cast(Node, node), V.OK, "", 0.0)
    assert [order.state for order in node.orders] == ["ok"]
    chronicle.keep(())
    chronicle.look(cast(Node, node), V.OK, "", 0.0)
    assert [order.before for order in node.orders] == ["retrying", ""]
