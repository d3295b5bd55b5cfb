"""Orders for the nodes of senders: Redis gets what it lacks, a client what was found."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from inosync.fleet.orders import MAX_FOUND_BYTES, Orders
from inosync.master.fleet_orders import FleetOrders, NotReached, decode_found, encode_found
from inosync.master.verification import Comparison


class World:
    """The nodes a and b of senders, and Redis, which has ``there``."""

    def __init__(self, wanted: dict[str, Orders] | None = None, knows_pauses: bool = False) -> None:
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.there: dict[str, bytes] = {}
        self.done: dict[str, bytes] = {}
        self.replies: list[Sequence[Comparison]] = []
        loop = SimpleNamespace(clock=lambda: 100.0, call_at=self.call_at)
        numbers = itertools.count(1)
        self.orders = FleetOrders(
            ("a", "b"), cast(Any, loop), wanted or {}, knows_pauses, number=lambda: next(numbers)
        )

    def call_at(self, when: float, call: Callable[[], None]) -> Any:
        timer = (when, call)
        self.timers.append(timer)
        return SimpleNamespace(cancel=lambda: self.timers.remove(timer) if timer in self.timers else None)

    def run_timers(self, until: float = 100.0) -> None:
        for when, call in [timer for timer in self.timers if timer[0] <= until]:
            self.timers.remove((when, call))
            call()

    def round(self, found: dict[str, bytes] | None = None) -> dict[str, bytes]:
        """Write what is pending, and read what Redis has; return what was written."""
        given = dict(self.orders.pending)
        self.there |= given
        self.orders.given(given)
        self.orders.note(self.there, self.done, found or {})
        return given


def test_nothing_can_be_ordered_without_redis() -> None:
    world = World()
    with pytest.raises(NotReached):
        world.orders.give(["a"], "pause")
    world.round()
    world.orders.give(["a"], "pause")
    world.orders.lost()
    with pytest.raises(NotReached):
        world.orders.give(["a"], "resume")
    assert world.orders.paused == ["a"]


def test_order_is_written_once_and_forgotten_when_it_is_done() -> None:
    world = World()
    world.round()
    world.orders.give(["a", "b"], "resync")
    assert world.round() == {"a": b"0 1 0 0", "b": b"0 1 0 0"}
    assert world.round() == {}
    assert world.orders.is_owed("a")
    world.done["a"] = b"1 0 0"
    world.round()
    assert (world.orders.is_owed("a"), world.orders.is_owed("b")) == (False, True)
    assert world.round() == {"a": b"0 0 0 0"}
    assert world.round() == {}
    world.orders.give(["a"], "resync")
    assert world.round() == {"a": b"0 2 0 0"}, "a number that was never done"


def test_pause_is_written_again_to_a_redis_that_has_lost_it() -> None:
    world = World()
    world.round()
    world.orders.give(["a"], "pause")
    assert world.round() == {"a": b"1 0 0 0"}
    world.orders.lost()
    world.there.clear()
    world.round()
    assert world.round() == {"a": b"1 0 0 0"}
    world.there["a"] = b"nonsense"
    world.round()
    assert world.round() == {"a": b"1 0 0 0"}


@pytest.mark.parametrize(
    ("kept", "there", "paused"),
    [
        (None, {"a": b"1 0 0 0"}, ["a"]),
        (["b"], {"a": b"1 0 0 0"}, ["b"]),
        ([], {"a": b"1 0 0 0"}, []),
        (["b"], {}, ["b"]),
    ],
)
def test_pause_survives_a_restart(kept: list[str] | None, there: dict[str, bytes], paused: list[str]) -> None:
    world = World({name: Orders(paused=True) for name in kept or ()}, knows_pauses=kept is not None)
    world.there = there
    world.round()
    assert world.orders.paused == paused
    world.round()
    assert [name for name, value in world.there.items() if value.startswith(b"1")] == paused


def test_order_of_an_earlier_process_is_still_due() -> None:
    world = World()
    world.there, world.done = {"a": b"0 7 9 0"}, {"a": b"7 8 0"}
    world.round()
    assert not world.orders.is_owed("a")
    assert world.round() == {"a": b"0 0 9 0"}


def test_client_gets_what_was_found() -> None:
    world = World()
    world.round()
    world.orders.give(["b"], "pause")
    assert list(world.orders.looked_for) == []
    world.orders.compare(["a", "b"], "diff", math.inf, world.replies.append)
    world.run_timers()
    assert world.replies == []
    assert list(world.orders.looked_for) == ["a"]
    assert world.round() == {"a": b"0 0 0 2", "b": b"1 0 0 0"}
    found = Comparison("a", "", 1.5, 2, (("/x", "missing"),))
    world.done["a"] = b"0 0 1"
    world.round({"a": encode_found(found)})
    assert world.replies == [], "of an older order"
    world.done["a"] = b"0 0 2"
    world.round({"a": encode_found(found)})
    assert world.replies == [[Comparison("b", "is paused"), found]]
    assert world.orders.looked_for == ()


def test_client_that_waits_too_long_is_told_so() -> None:
    world = World()
    world.round()
    world.orders.compare(["a"], "verify", 130.0, world.replies.append)
    world.run_timers()
    assert world.replies == []
    world.run_timers(130.0)
    assert world.replies == [[Comparison("a", "was not compared in time")]]
    world.run_timers(200.0)
    world.done["a"] = b"0 1 0"
    world.round({"a": encode_found(Comparison("a"))})
    assert len(world.replies) == 1


def test_two_clients_get_what_one_comparison_has_found() -> None:
    world = World()
    world.round()
    for _ in range(2):
        world.orders.compare(["a"], "diff", math.inf, world.replies.append)
    world.done["a"] = b"0 0 2"
    world.round({"a": encode_found(Comparison("a", "", 1.0, 5))})
    assert world.replies == [[Comparison("a", "", 1.0, 5)]] * 2


def test_client_is_told_if_what_was_found_is_gone() -> None:
    world = World()
    world.round()
    world.orders.compare(["a"], "verify", math.inf, world.replies.append)
    world.done["a"] = b"0 1 0"
    world.round()
    assert world.replies == [[Comparison("a", "what was found is not known")]]


def test_client_that_is_gone_is_told_nothing() -> None:
    world = World()
    world.round()
    comparing = world.orders.compare(["a"], "verify", 130.0, world.replies.append)
    world.orders.cancel(comparing)
    world.done["a"] = b"0 1 0"
    world.round({"a": encode_found(Comparison("a"))})
    world.run_timers(200.0)
    assert world.replies == []


def test_comparison_survives_as_far_as_there_is_room() -> None:
    found = Comparison("n", "", 1.5, 3, (("/a \udcff\n", "content"),))
    assert decode_found("n", encode_found(found)) == found
    many = Comparison("n", "", 1.5, 900, tuple((f"/{number:04000}", "missing") for number in range(900)))
    value = encode_found(many)
    shown = decode_found("n", value)
    assert (shown.count, len(value) < MAX_FOUND_BYTES) == (900, True)
    assert 0 < len(shown.differences) < 900


@pytest.mark.parametrize(
    "value", [b"", b"7", b"[]", b'["", "x", 1, []]', b'["", 1, 1, [5]]', b'["", 1, 1e999, []]', b"\xff"]
)
def test_nonsense_of_a_sender_is_a_reason_and_no_fault(value: bytes) -> None:
    assert decode_found("n", value) == Comparison("n", "what was found is not known")
