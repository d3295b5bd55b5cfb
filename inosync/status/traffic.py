"""What has been mirrored to all nodes together, as lines of the log for people."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from inosync.nodes.node import Node
from inosync.text import plural

LINE_SECONDS = 1.0
"""The shortest time between two lines: a change each second to 200 nodes is one line, not 200."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """The counts of a node at the last line."""

    batches: int = 0
    paths: int = 0
    bytes: int = 0
    seconds: float = 0.0
    """The sum of all times from a change to its confirmation."""
    count: int = 0
    """The number of these times."""


class Traffic:
    """Compares the counts of the nodes with those at the last line."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}
        """By name of the node."""
        self._next_line_at = -math.inf

    @property
    def next_line_at(self) -> float:
        """The earliest time for the next line, by the clock."""
        return self._next_line_at

    def line(self, nodes: Iterable[Node], now: float) -> str:
        """Return the line about what the nodes have got since the last one; empty if that is nothing.

        Full mirrors have lines of their own.
        """
        paths = size = reached = 0
        slowest, name = -1.0, ""
        seen = {}
        for node in nodes:
            counts, before = node.counters, self._seen.get(node.name, _Seen())
            batches = counts.batches - counts.fulls
            latency = counts.latency
            seen[node.name] = _Seen(batches, counts.paths, counts.bytes, latency.sum, latency.count)
            if batches == before.batches:
                continue
            reached += 1
            paths = max(paths, counts.paths - before.paths)
            size += counts.bytes - before.bytes
            took = (latency.sum - before.seconds) / max(latency.count - before.count, 1)
            if took > slowest:
                slowest, name = took, node.name
        self._seen = seen
        if not reached:
            return ""
        self._next_line_at = now + LINE_SECONDS
        to = name if reached == 1 else f"{reached} nodes"
        slow = f"{slowest:.2f} s" if reached == 1 else f"{slowest:.2f} s for {name}, the slowest"
        return f"{plural(paths, 'path')} to {to}, {size} bytes, {slow}"
