"""What a daemon of a fleet is told by its configuration and its state."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from inosync.config.fleet import Fleet, RedisAddress
from inosync.config.nodes import NodeSpec
from inosync.fleet.orders import Orders
from inosync.master.fleet_wiring import fleet_orders
from inosync.state.document import State

FLEET = Fleet(RedisAddress("redis://r/0"), "", ("eu",), (NodeSpec("h:/n", "n"), NodeSpec("h:/m", "m")), {})
STATE = State("/etc/c.py", 9.5, "boot", 1.25, True)


def test_orders_of_an_earlier_process_are_known() -> None:
    loop = cast(Any, None)
    kept = replace(STATE, far_orders={"n": "1 0 7 0", "m": "nonsense", "gone": "1 0 0 0"})
    found = fleet_orders(FLEET, loop, kept)
    assert (found.paused, found.knows_pauses) == (["n"], True)
    assert found.wanted["n"] == Orders(paused=True, numbers=(0, 7, 0))
    for state in (None, STATE):
        found = fleet_orders(FLEET, loop, state)
        assert (found.paused, found.knows_pauses) == ([], False), "Redis says it"
