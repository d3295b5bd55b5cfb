"""Orders of an operator: numbers say what is left to be done, and nothing else is taken for them."""

from __future__ import annotations

import pytest

from inosync.fleet import orders
from inosync.fleet.codec import BadValue
from inosync.fleet.orders import NO_NUMBERS, NONE, Orders


def test_orders_survive_as_they_are() -> None:
    for one in (NONE, Orders(paused=True), Orders(numbers=(3, 0, 999_999_999_999_999))):
        assert orders.decode_orders(orders.encode_orders(one)) == one
        assert orders.decode_done(orders.encode_done(one.numbers)) == one.numbers


@pytest.mark.parametrize("numbers", [b"", b"1 2", b"1 2 -3", b"1 2 3 ", b"1 2 1000000000000000", b"x 0 0"])
def test_value_that_is_no_order_is_refused(numbers: bytes) -> None:
    with pytest.raises(BadValue):
        orders.decode_done(numbers)
    for wrong in (b"0 " + numbers, b"2 0 0 0", b"1 0 0"):
        with pytest.raises(BadValue):
            orders.decode_orders(wrong)
        assert orders.orders_of({"n": wrong, "m": b"1 0 0 0"}) == {"n": NONE, "m": Orders(paused=True)}
    assert orders.done_of({"n": numbers, "m": b"1 2 3"}) == {"n": NO_NUMBERS, "m": (1, 2, 3)}


@pytest.mark.parametrize(
    ("numbers", "done", "due"),
    [
        ((0, 0, 0), (0, 0, 0), []),
        ((4, 0, 0), (0, 0, 0), [("resync", 4)]),
        ((4, 6, 0), (4, 5, 9), [("verify", 6)]),
        ((4, 5, 0), (4, 6, 9), [("verify", 5)]),
        ((0, 0, 2), (0, 0, 1), [("diff", 2)]),
        ((4, 6, 7), (4, 6, 7), []),
    ],
)
def test_order_is_due_until_it_was_done(numbers: orders.Numbers, done: orders.Numbers, due: object) -> None:
    one = Orders(numbers=numbers)
    assert one.due(done) == due
    assert one.without(done).due(NO_NUMBERS) == due


def test_command_adds_to_the_orders() -> None:
    one = NONE.with_command("verify", 3).with_command("pause", 4).with_command("resync", 5)
    assert one == Orders(paused=True, numbers=(5, 3, 0))
    assert one.with_command("resume", 6) == Orders(numbers=(5, 3, 0))


def test_newer_numbers_stand_in_place_of_older_ones() -> None:
    assert orders.overlaid((1, 5, 0), (3, 0, 0)) == (3, 5, 0)
