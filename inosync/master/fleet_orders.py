"""What an operator orders at the origin for the nodes of senders.

The origin knows what is wanted, and writes it to Redis, again if Redis has lost it. The senders carry it out
(``fleet_tasks``).
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from inosync.fleet import orders
from inosync.fleet.orders import MAX_FOUND_BYTES, NO_NUMBERS, NONE, Orders
from inosync.master.verification import SHOWN_PATHS, Comparison
from inosync.system.loop import Loop, Timer

MAX_TEXT = 5_000
_MAX_NUMBER = 999_999_999_999_999


class NotReached(Exception):
    """Nothing can be ordered, because Redis cannot be used."""


@dataclass(eq=False, slots=True)
class FarComparing:
    """A client that waits for the comparison of nodes of senders; it calls ``done`` once."""

    command: str
    numbers: dict[str, int]
    """By node that is still to be compared: the number of the order."""
    done: Callable[[Sequence[Comparison]], None]
    found: list[Comparison] = field(default_factory=list)
    timer: Timer | None = None
    """Runs at the deadline."""


@dataclass(slots=True)
class FleetOrders:
    """The orders for all nodes of senders, which are ``names``."""

    names: tuple[str, ...]
    loop: Loop
    wanted: dict[str, Orders] = field(default_factory=dict)
    """By node, if there are any."""
    knows_pauses: bool = False
    """Whether it is known which nodes were paused at the start; otherwise Redis says it."""
    pending: dict[str, bytes] = field(default_factory=dict)
    """By node: what Redis does not have yet."""
    _there: dict[str, Orders] | None = None
    """What Redis has; None: it cannot be used."""
    number: Callable[[], int] = lambda: secrets.randbelow(_MAX_NUMBER) + 1
    """Returns a number that no other order has."""
    _waiting: list[FarComparing] = field(default_factory=list)

    @property
    def paused(self) -> list[str]:
        """Return the nodes that are paused."""
        return [name for name in self.names if self._wanted(name).paused]

    @property
    def texts(self) -> dict[str, str]:
        """Return the orders of all nodes that have any, as they are kept."""
        return {name: orders.encode_orders(one).decode() for name, one in self.wanted.items() if one != NONE}

    def is_owed(self, name: str) -> bool:
        """Whether a node is still to be compared in full, and sent what differs, because of an order."""
        return self._wanted(name).numbers[0] > 0

    def _wanted(self, name: str) -> Orders:
        return self.wanted.get(name, NONE)

    # The operator ------------------------------------------------------------------------------------

    def check(self) -> None:
        """NotReached if nothing can be ordered."""
        if self._there is None:
            raise NotReached

    def give(self, names: Sequence[str], command: str) -> int:
        """Order something for nodes; return the number of the order. NotReached if that is impossible."""
        self.check()
        number = self.number()
        for name in names:
            self.wanted[name] = self._wanted(name).with_command(command, number)
            for comparing in self._waiting:  # clients of the order that this one replaces
                if comparing.command == command and name in comparing.numbers:
                    comparing.numbers[name] = number
        self._note_pending()
        return number

    def compare(
        self,
        names: Sequence[str],
        command: str,
        deadline: float,
        done: Callable[[Sequence[Comparison]], None],
    ) -> FarComparing:
        """Have nodes compared that are not paused, and tell what is found; NotReached if that cannot be."""
        paused = {name for name in names if self._wanted(name).paused}
        wanted = [name for name in names if name not in paused]
        number = self.give(wanted, command)
        comparing = FarComparing(command, dict.fromkeys(wanted, number), done)
        comparing.found = [Comparison(name, "is paused") for name in names if name in paused]
        if deadline < math.inf:
            comparing.timer = self.loop.call_at(deadline, lambda: self._give_up(comparing))
        self._waiting.append(comparing)
        # Not at once, because the caller defers the reply first.
        self.loop.call_at(self.loop.clock(), lambda: self._end_if_complete(comparing))
        return comparing

    def cancel(self, comparing: FarComparing) -> None:
        """Wait no more, and call ``done`` no more."""
        if comparing in self._waiting:
            self._waiting.remove(comparing)
        if comparing.timer is not None:
            comparing.timer.cancel()

    def _give_up(self, comparing: FarComparing) -> None:
        comparing.found += [Comparison(name, "was not compared in time") for name in comparing.numbers]
        comparing.numbers.clear()
        self._end_if_complete(comparing)

    def _end_if_complete(self, comparing: FarComparing) -> None:
        if comparing in self._waiting and not comparing.numbers:
            self.cancel(comparing)
            comparing.done(comparing.found)

    # Redis -------------------------------------------------------------------------------------------

    @property
    def looked_for(self) -> tuple[str, ...]:
        """Return the nodes for whose comparison a client waits."""
        return tuple(dict.fromkeys(name for one in self._waiting for name in one.numbers))

    def lost(self) -> None:
        """Redis cannot be used now."""
        self._there = None
        self.pending.clear()

    def given(self, given: Mapping[str, bytes]) -> None:
        """Redis has these orders."""
        if self._there is not None:
            self._there.update(orders.orders_of(given))
            self._note_pending()

    def note(self, there: Mapping[str, bytes], done: Mapping[str, bytes], found: Mapping[str, bytes]) -> None:
        """Take what Redis has: orders, what was done of them, and what comparisons have found."""
        numbers, known = orders.done_of(done), orders.orders_of(there)
        is_first, self._there = self._there is None, known
        for name in self.names:
            own, theirs, finished = self._wanted(name), known.get(name, NONE), numbers.get(name, NO_NUMBERS)
            if is_first:  # of an earlier process
                paused = own.paused if self.knows_pauses else theirs.paused
                own = Orders(paused, orders.overlaid(theirs.numbers, own.numbers))
            own = own.without(finished)
            if own != NONE or name in self.wanted:
                self.wanted[name] = own
        self.knows_pauses = True
        self._note_pending()
        for comparing in list(self._waiting):
            at = orders.COMMANDS.index(comparing.command)
            for name, number in list(comparing.numbers.items()):
                if numbers.get(name, NO_NUMBERS)[at] == number:
                    del comparing.numbers[name]
                    comparing.found.append(decode_found(name, found.get(name, b"")))
            self._end_if_complete(comparing)

    def _note_pending(self) -> None:
        there = self._there
        if there is not None:
            pairs = [(name, self._wanted(name)) for name in self.names]
            self.pending = {
                name: orders.encode_orders(own) for name, own in pairs if own != there.get(name, NONE)
            }


def encode_found(found: Comparison) -> bytes:
    """Return what a comparison has found as Redis keeps it; the differences as far as there is room."""
    shown = list(found.differences)
    while True:
        text = json.dumps([found.reason[:MAX_TEXT], found.seconds, found.count, shown])
        if len(text) < MAX_FOUND_BYTES:
            return text.encode("ascii")
        shown = shown[: len(shown) // 2]


def decode_found(node: str, value: bytes) -> Comparison:
    """Return what the last comparison of a node has found. It is only shown, as text."""
    try:
        reason, seconds, count, shown = json.loads(value)
        differences = tuple((str(path), str(word)) for path, word in shown[:SHOWN_PATHS])
        return Comparison(node, str(reason), float(seconds), int(count), differences)
    except (ValueError, TypeError, RecursionError, OverflowError):
        return Comparison(node, "what was found is not known")
