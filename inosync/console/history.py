"""What the page and the metrics show: the word of the daemon, and the lags of the last hour."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from inosync.console.client import NotRunning, Refused

FRESH = 1.0
"""Seconds that an answer is shown again, whoever asks."""
EVERY = 10.0
"""Seconds between two points of the history."""
POINTS = 360
"""Of the history: an hour."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An answer of the daemon, or why there is none."""

    at: float
    """When, in seconds since the epoch."""
    master: Mapping[str, Any] = field(default_factory=dict)
    nodes: Sequence[Mapping[str, Any]] = ()
    """The worst first."""
    why: str = ""
    """Why the daemon did not answer; empty if it did."""

    @property
    def up(self) -> bool:
        return not self.why


class History:
    """The lag of each node, in seconds, over the last hour: the greatest seen in each ``EVERY`` seconds.

    What is not known is NaN. A node that is gone is forgotten. Memory: 1.5 kB a node.
    """

    def __init__(self) -> None:
        self._points: dict[str, array[float]] = {}
        self._most: dict[str, float] = {}
        """Since the last point."""

    def see(self, told: Snapshot) -> None:
        """Take notice of the lags."""
        for node in told.nodes:
            name = node["name"]
            self._most[name] = max(float(node["lag"]), self._most.get(name, 0.0))

    def tick(self, told: Snapshot) -> None:
        """Add a point for each node; to be called every ``EVERY`` seconds."""
        self.see(told)
        if told.up:
            names = {node["name"] for node in told.nodes}
            self._points = {name: points for name, points in self._points.items() if name in names}
            for name in names:
                self._points.setdefault(name, array("f"))
        for name, points in self._points.items():
            points.append(self._most.get(name, math.nan) if told.up else math.nan)
            del points[:-POINTS]
        self._most.clear()

    def of(self, name: str) -> Sequence[float]:
        """The points of a node, oldest first; at most ``POINTS``."""
        return self._points.get(name, array("f"))


class StatusSource:
    """Asks at most once in ``FRESH`` seconds. ``ask`` may take its time; it raises NotRunning or Refused.

    To be used by one thread at a time. ``clock`` is monotonic, ``wall`` the seconds since the epoch.
    """

    def __init__(
        self, ask: Callable[[], Mapping[str, Any]], clock: Callable[[], float], wall: Callable[[], float]
    ) -> None:
        self._ask, self._clock, self._wall = ask, clock, wall
        self._last: tuple[float, Snapshot] | None = None
        self.history = History()

    @property
    def fresh(self) -> Snapshot | None:
        """The last answer, if it still will do."""
        if self._last is None or self._clock() - self._last[0] >= FRESH:
            return None
        return self._last[1]

    def look(self) -> Snapshot:
        """What the daemon says, or has just said."""
        if (fresh := self.fresh) is not None:
            return fresh
        try:
            reply = self._ask()
            told = Snapshot(self._wall(), reply["master"], reply["nodes"])
        except (NotRunning, Refused) as problem:
            told = Snapshot(self._wall(), why=str(problem) or "the daemon does not answer")
        except (KeyError, TypeError):
            told = Snapshot(self._wall(), why="the daemon is of another version")
        self._last = self._clock(), told
        self.history.see(told)
        return told

    def tick(self) -> None:
        """Add to the history."""
        self.history.tick(self.look())
