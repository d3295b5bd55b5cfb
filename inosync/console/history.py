"""What the page and the metrics show: a snapshot of the daemon, and the lags of the last hour."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from inosync.console.client import NotRunning, Refused

MAX_AGE_SECONDS = 1.0
"""How long a snapshot is shown again before a new one is asked for."""
INTERVAL_SECONDS = 10.0
"""The time between two points of the history."""
MAX_POINTS = 360
"""The number of points kept: an hour."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The status of the daemon, or why it did not answer."""

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
    """The greatest lag of each node in each ``INTERVAL_SECONDS`` of the last hour, in seconds.

    It is NaN where the daemon did not answer. Memory: 1.5 kB a node.
    """

    def __init__(self) -> None:
        self._points: dict[str, array[float]] = {}
        self._greatest: dict[str, float] = {}
        """The greatest lags since the last point."""

    def note_lags(self, snapshot: Snapshot) -> None:
        """Note the lags in a snapshot."""
        for node in snapshot.nodes:
            name = node["name"]
            self._greatest[name] = max(float(node["lag"]), self._greatest.get(name, 0.0))

    def add_points(self, snapshot: Snapshot) -> None:
        """Add a point for each node; to be called every ``INTERVAL_SECONDS``."""
        self.note_lags(snapshot)
        if snapshot.up:
            names = {node["name"] for node in snapshot.nodes}
            self._points = {name: points for name, points in self._points.items() if name in names}
            for name in names:
                self._points.setdefault(name, array("f"))
        for name, points in self._points.items():
            points.append(self._greatest.get(name, math.nan) if snapshot.up else math.nan)
            del points[:-MAX_POINTS]
        self._greatest.clear()

    def points(self, name: str) -> Sequence[float]:
        """Return the points of a node, oldest first; at most ``MAX_POINTS``."""
        return self._points.get(name, array("f"))


class StatusSource:
    """Asks the daemon, at most once in ``MAX_AGE_SECONDS``. To be used by one thread at a time.

    ``ask`` may raise NotRunning or Refused; ``clock`` is monotonic, ``wall`` is seconds since the epoch.
    """

    def __init__(
        self, ask: Callable[[], Mapping[str, Any]], clock: Callable[[], float], wall: Callable[[], float]
    ) -> None:
        self._ask, self._clock, self._wall = ask, clock, wall
        self._last: tuple[float, Snapshot] | None = None
        self.history = History()

    def snapshot(self) -> Snapshot:
        """Return the status of the daemon; it may be ``MAX_AGE_SECONDS`` old."""
        if self._last is not None and self._clock() - self._last[0] < MAX_AGE_SECONDS:
            return self._last[1]
        try:
            reply = self._ask()
            snapshot = Snapshot(self._wall(), reply["master"], reply["nodes"])
        except (NotRunning, Refused) as problem:
            snapshot = Snapshot(self._wall(), why=str(problem) or "the daemon does not answer")
        except (KeyError, TypeError):
            snapshot = Snapshot(self._wall(), why="the daemon is of another version")
        self._last = self._clock(), snapshot
        self.history.note_lags(snapshot)
        return snapshot

    def add_points(self) -> None:
        """Add a point to the history of each node."""
        self.history.add_points(self.snapshot())
