"""Slots: how many are given, to whom, and when they are free again."""

from __future__ import annotations

import pytest

from inosync.nodes.slots import HOLD_SECONDS, Slots


@pytest.fixture
def slots() -> Slots[str]:
    return Slots(2)


def test_slots_are_given_up_to_the_limit(slots: Slots[str]) -> None:
    assert [slots.take(name, 0.0) for name in "abc"] == [True, True, False]
    assert (slots.free(0.0), slots.queue) == (0, ("c",))
    assert [slots.is_waiting(name) for name in "abc"] == [False, False, True]


def test_slot_goes_to_the_holder_that_has_waited_longest(slots: Slots[str]) -> None:
    for name in "abcdc":
        slots.take(name, 0.0)
    assert slots.queue == ("c", "d")
    assert slots.give_back("a")
    assert [slots.is_turn_of(name, 1.0) for name in "cde"] == [True, False, False]
    assert not slots.take("e", 1.0)
    assert slots.take("c", 1.0)
    assert slots.queue == ("d", "e")


def test_holder_that_stops_waiting_lets_the_next_one_go(slots: Slots[str]) -> None:
    for name in "abcd":
        slots.take(name, 0.0)
    slots.stop_waiting("c")
    slots.stop_waiting("stranger")
    slots.give_back("a")
    assert slots.is_turn_of("d", 0.0)


def test_slot_is_free_again_after_the_hold_time(slots: Slots[str]) -> None:
    slots.take("a", 0.0)
    slots.take("b", 10.0)
    assert slots.next_free_at(10.0) == HOLD_SECONDS
    assert [slots.free(now) for now in (HOLD_SECONDS - 0.1, HOLD_SECONDS, HOLD_SECONDS + 10)] == [0, 1, 2]
    assert slots.next_free_at(HOLD_SECONDS + 10) == HOLD_SECONDS + 10


def test_slot_that_no_longer_counts_frees_nothing_when_given_back(slots: Slots[str]) -> None:
    for name in "abcd":
        slots.take(name, 0.0 if name in "ab" else HOLD_SECONDS)
    assert slots.give_back("a")
    assert slots.free(HOLD_SECONDS) == 0
    assert not slots.give_back("a")


def test_smaller_limit_holds_once_slots_are_given_back(slots: Slots[str]) -> None:
    slots.take("a", 0.0)
    slots.take("b", 0.0)
    slots.limit = 1
    assert slots.free(0.0) == 0
    slots.give_back("a")
    assert slots.free(0.0) == 0
    slots.give_back("b")
    assert slots.free(0.0) == 1
