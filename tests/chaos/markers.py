"""Marker files that show how long a change takes to each node."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from support.churn import RESERVED

from chaos.testbed import TREES, Testbed

DIRECTORY = RESERVED.decode()


@dataclass
class Lag:
    """The longest lag so far in seconds, and its node."""

    seconds: float = 0.0
    node: str = "none"

    def add(self, seconds: float, node: str) -> None:
        if seconds > self.seconds:
            self.seconds, self.node = seconds, node

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s ({self.node})"


@dataclass
class Markers:
    """A file in each tree with a number that grows.

    The ctime of a copy tells when it arrived, however seldom it is checked.
    """

    testbed: Testbed
    number: int = 0
    arrived: dict[str, int] = field(default_factory=dict)
    """The number that all trees of a node have, by node."""
    sound: Lag = field(default_factory=Lag)
    """The longest lag of nodes without a fault since the marker before."""
    any: Lag = field(default_factory=Lag)
    """The longest lag of all nodes."""
    lags: list[float] = field(default_factory=list)
    """All lags of nodes without a fault."""
    _written: dict[int, float] = field(default_factory=dict)
    _disturbed: dict[str, int] = field(default_factory=dict)

    def write(self) -> int:
        """Write the next number to all trees, alternately in place and by a rename."""
        self.number += 1
        content = f"{self.number:012}"
        self._written[self.number] = time.time()
        for tree in TREES:
            directory = self.testbed.tree(tree) / DIRECTORY
            directory.mkdir(exist_ok=True)
            if self.number % 2:
                (directory / "fresh").write_text(content)
                (directory / "fresh").rename(directory / "marker")
            else:
                (directory / "marker").write_text(content)
        return self.number

    def disturb(self, nodes: Iterable[str]) -> None:
        """Record that these nodes have a fault, so that earlier markers do not count as sound.

        Nor does the next one, which waits behind delayed changes.
        """
        for node in nodes:
            self._disturbed[node] = self.number + 1

    def look(self) -> None:
        """Record what has arrived since the last call."""
        for node in self.testbed.nodes.values():
            found: list[tuple[int, float]] = []
            for tree in node.trees:
                marker = node.place / tree / DIRECTORY / "marker"
                # rsync renames a complete file into place, which sets the ctime.
                with contextlib.suppress(OSError, ValueError), marker.open() as file:
                    found.append((int(file.read()), os.fstat(file.fileno()).st_ctime))
            if len(found) < len(node.trees):
                continue
            number, at = min(found)[0], max(found, key=lambda pair: pair[1])[1]
            before = self.arrived.get(node.name, 0)
            if number <= before:
                continue
            self.arrived[node.name] = number
            for each in range(before + 1, number + 1):
                lag = max(0.0, at - self._written[each])
                self.any.add(lag, node.name)
                if self._disturbed.get(node.name, 0) < each:
                    self.sound.add(lag, node.name)
                    self.lags.append(lag)

    def has(self, node: str, number: int) -> bool:
        """Whether this number, or a later one, has arrived at a node."""
        return self.arrived.get(node, 0) >= number
