"""What a sender does for its nodes because an operator has ordered it at the origin (``fleet_orders``).

An order counts as done when its effect is, so one that is cut off is done by the next sender of the node.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from inosync.fleet import orders
from inosync.fleet.orders import NO_NUMBERS, NONE, Numbers, Orders
from inosync.master.commands import Commands
from inosync.master.fleet_orders import encode_found
from inosync.master.verification import Comparison
from inosync.nodes.node import Node

log = logging.getLogger(__name__)


@dataclass(slots=True)
class SenderTasks:
    """Does the orders. ``nodes`` is the pool's own, by name."""

    nodes: Mapping[str, Node]
    commands: Callable[[], Commands]
    _running: dict[tuple[str, str], tuple[int, Node]] = field(default_factory=dict)
    """By node and command: the number of the order, and the node as it was then."""
    _finished: dict[str, tuple[Numbers, bytes]] = field(default_factory=dict)
    """By node: what was done and is not written yet, and what the comparison has found."""

    def prepare(self, node: Node, wanted: bytes | None) -> None:
        """Give a node that is served from now on its pause, before anything is sent."""
        if wanted is not None and _orders(wanted).paused:
            log.warning("%s: is paused, as was ordered at the origin", node.name)
            node.set_paused(True)

    def take(self, names: Iterable[str], wanted: Mapping[str, bytes], done: Mapping[str, bytes]) -> None:
        """Do what is new of the orders for these nodes; ``done``: what Redis says was done."""
        known = orders.done_of(done)
        for name in names:
            node = self.nodes.get(name)
            if node is None:
                continue
            one = _orders(wanted[name]) if name in wanted else NONE
            if node.paused is not one.paused:
                (self.commands().pause if one.paused else self.commands().resume)(node)
            unwritten = self._finished.get(name, (NO_NUMBERS, b""))[0]
            last = orders.overlaid(known.get(name, NO_NUMBERS), unwritten)
            for command, number in one.due(last):
                self._do(node, command, number, last)

    def _do(self, node: Node, command: str, number: int, last: Numbers) -> None:
        key = node.name, command
        if self._running.get(key) == (number, node):
            if command == "resync" and _has_all(node):
                self._finish(key, number, node, last, b"")
        elif command == "resync":
            self._running[key] = number, node
            self.commands().resync(node)
        elif not node.paused:  # it is compared when it is resumed
            self._running[key] = number, node

            def compared(found: Sequence[Comparison]) -> None:
                if found:
                    self._finish(key, number, node, last, encode_found(found[0]))

            self.commands().compare([node], command == "verify", math.inf, compared)

    def _finish(self, key: tuple[str, str], number: int, node: Node, last: Numbers, found: bytes) -> None:
        # It was ordered once more, or the node was handed over meanwhile: then the next sender does it.
        if self._running.get(key) != (number, node) or self.nodes.get(node.name) is not node:
            return
        del self._running[key]
        name, command = key
        done, before = self._finished.get(name, (last, b""))
        at = orders.COMMANDS.index(command)
        self._finished[name] = (*done[:at], number, *done[at + 1 :]), found or before

    def finished(self, values: Mapping[str, bytes]) -> dict[str, tuple[bytes, bytes, bytes]]:
        """Return what was done for nodes and is not written yet; ``values``: of their leases.

        What was done for a node that is not served any more is forgotten: the next sender does it again.
        """
        self._finished = {name: one for name, one in self._finished.items() if name in values}
        self._running = {key: one for key, one in self._running.items() if key[0] in values}
        return {
            name: (values[name], orders.encode_done(numbers), found)
            for name, (numbers, found) in self._finished.items()
        }

    def written(self, written: Mapping[str, tuple[bytes, bytes, bytes]]) -> None:
        """Redis has this of what was done."""
        for name, (_, numbers, found) in written.items():
            known = self._finished.get(name)
            if known is not None and (orders.encode_done(known[0]), known[1]) == (numbers, found):
                del self._finished[name]


def _orders(value: bytes) -> Orders:
    return orders.orders_of({"": value})[""]


def _has_all(node: Node) -> bool:
    return not node.retries.count and node.outstanding is None and node.second is None
