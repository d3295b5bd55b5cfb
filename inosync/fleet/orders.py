"""What an operator has ordered for the nodes of senders, as the origin writes it to Redis. Pure.

A pause is a state of a node, which holds until it is taken back. Other orders have numbers, each its own, and
are done once: a sender does those whose number is not the one that was done last, whichever has the node by
then. They have no order, because a Redis that has lost something could be ahead of a new one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from inosync.fleet.codec import BadValue

COMMANDS = ("resync", "verify", "diff")
"""What is done once."""
Numbers = tuple[int, ...]
"""One for each of ``COMMANDS``; 0: none."""
NO_NUMBERS: Numbers = (0,) * len(COMMANDS)
MAX_FOUND_BYTES = 1 << 20
"""The longest result of a comparison."""
_NUMBERS = rb"\d{1,15} \d{1,15} \d{1,15}"
_ORDERS = re.compile(rb"([01]) (%b)" % _NUMBERS)


@dataclass(frozen=True, slots=True)
class Orders:
    """The orders for one node."""

    paused: bool = False
    """Whether it is sent nothing."""
    numbers: Numbers = NO_NUMBERS
    """That of the last order of each kind."""

    def with_command(self, command: str, number: int) -> Orders:
        """Return these orders and another one."""
        if command in ("pause", "resume"):
            return replace(self, paused=command == "pause")
        at = COMMANDS.index(command)
        return replace(self, numbers=(*self.numbers[:at], number, *self.numbers[at + 1 :]))

    def due(self, done: Numbers) -> list[tuple[str, int]]:
        """Return the commands that were not done yet, with their numbers."""
        found = zip(COMMANDS, self.numbers, done, strict=True)
        return [(command, number) for command, number, last in found if number not in (0, last)]

    def without(self, done: Numbers) -> Orders:
        """Return the orders that are left of these."""
        pairs = zip(self.numbers, done, strict=True)
        return replace(self, numbers=tuple(0 if number == last else number for number, last in pairs))


NONE = Orders()


def overlaid(older: Numbers, newer: Numbers) -> Numbers:
    """Return the newer numbers, and the older ones where there are none."""
    return tuple(new or old for old, new in zip(older, newer, strict=True))


def encode_orders(orders: Orders) -> bytes:
    """Return orders as Redis keeps them."""
    return b"%d %b" % (orders.paused, encode_done(orders.numbers))


def decode_orders(value: bytes) -> Orders:
    """Return orders from what Redis keeps."""
    found = _ORDERS.fullmatch(value)
    if found is None:
        raise BadValue("Redis holds orders that the fleet has not written")
    return Orders(found[1] == b"1", decode_done(found[2]))


def encode_done(numbers: Numbers) -> bytes:
    """Return what was done as Redis keeps it."""
    return b" ".join(b"%d" % number for number in numbers)


def decode_done(value: bytes) -> Numbers:
    """Return what was done from what Redis keeps."""
    if not re.fullmatch(_NUMBERS, value):
        raise BadValue("Redis holds numbers of orders that the fleet has not written")
    return tuple(map(int, value.split(b" ")))


def orders_of(values: Mapping[str, bytes]) -> dict[str, Orders]:
    """Return the orders by node. What is no order is none: then the origin writes it once more."""
    found = {}
    for name, value in values.items():
        try:
            found[name] = decode_orders(value)
        except BadValue:
            found[name] = NONE
    return found


def done_of(values: Mapping[str, bytes]) -> dict[str, Numbers]:
    """Return what was done by node; with what is no number nothing was."""
    found = {}
    for name, value in values.items():
        try:
            found[name] = decode_done(value)
        except BadValue:
            found[name] = NO_NUMBERS
    return found
