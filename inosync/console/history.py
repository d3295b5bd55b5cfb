"""What the page and the metrics show: a snapshot of the daemon, and the lags and traffic of the last hour."""

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


Event = tuple[float, str, str, int]
"""When it happened for the last time, its kind, its text, and how often it happened."""


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
    events: Mapping[str, Sequence[Event]] = field(default_factory=dict)
    """The last events by node, oldest first."""
    before: Snapshot | None = None
    """If the daemon did not answer: the last snapshot for which it did, if there was one."""

    @property
    def up(self) -> bool:
        return not self.why


class History:
    """The greatest lag of each node in each ``INTERVAL_SECONDS`` of the last hour, and what was transferred.

    A lag, in seconds, is NaN where the daemon did not answer. Memory: 4.4 kB a node.
    """

    def __init__(self) -> None:
        self._points: dict[str, array[float]] = {}
        self._greatest: dict[str, float] = {}
        """The greatest lags since the last point."""
        self._bytes: dict[str, array[float]] = {}
        """What had been transferred to each node, at each point."""

    def note_lags(self, snapshot: Snapshot) -> None:
        for node in snapshot.nodes:
            name = node["name"]
            self._greatest[name] = max(float(node["lag"]), self._greatest.get(name, 0.0))

    def add_points(self, snapshot: Snapshot) -> None:
        """Add a point for each node; to be called every ``INTERVAL_SECONDS``."""
        self.note_lags(snapshot)
        if snapshot.up:
            names = {node["name"] for node in snapshot.nodes}
            for kept in (self._points, self._bytes):
                for name in kept.keys() - names:
                    del kept[name]
            for node in snapshot.nodes:
                self._points.setdefault(node["name"], array("f"))
                counts = self._bytes.setdefault(node["name"], array("d"))
                counts.append(float(node.get("bytes", 0)))
                del counts[:-MAX_POINTS]
        for name, points in self._points.items():
            points.append(self._greatest.get(name, math.nan) if snapshot.up else math.nan)
            del points[:-MAX_POINTS]
        self._greatest.clear()

    def points(self, name: str) -> Sequence[float]:
        """Return the points of a node, oldest first; at most ``MAX_POINTS``."""
        return self._points.get(name, array("f"))

    def transferred(self, name: str, seconds: float) -> float:
        """Return the bytes transferred to and from a node in about the last ``seconds`` with answers."""
        counts = self._bytes.get(name, array("d"))[-round(seconds / INTERVAL_SECONDS) - 1 :]
        return max(counts[-1] - counts[0], 0.0) if counts else 0.0


class StatusSource:
    """Asks the daemon, at most once in ``MAX_AGE_SECONDS``. To be used by one thread at a time.

    ``ask`` gets the number of events that are known, and replies with the events if there are others by now.
    It may raise NotRunning or Refused. ``clock`` is monotonic, ``wall`` is seconds since the epoch.
    """

    def __init__(
        self, ask: Callable[[int], Mapping[str, Any]], clock: Callable[[], float], wall: Callable[[], float]
    ) -> None:
        self._ask, self._clock, self._wall = ask, clock, wall
        self._last: tuple[float, Snapshot] | None = None
        self._answered: Snapshot | None = None
        """The last snapshot that is an answer."""
        self._seen = -1
        """The number of events recorded when the daemon told them last."""
        self.history = History()

    def snapshot(self) -> Snapshot:
        """Return the status of the daemon; it may be ``MAX_AGE_SECONDS`` old."""
        if self._last is not None and self._clock() - self._last[0] < MAX_AGE_SECONDS:
            return self._last[1]
        snapshot = self._asked()
        self._last = self._clock(), snapshot
        self.history.note_lags(snapshot)
        return snapshot

    def _asked(self) -> Snapshot:
        before = self._answered
        try:
            reply = self._ask(self._seen)
            events = before.events if before is not None else {}
            if "events" in reply:
                events, self._seen = reply["events"], reply["recorded"]
            self._answered = Snapshot(self._wall(), reply["master"], reply["nodes"], events=events)
            return self._answered
        except (NotRunning, Refused) as problem:
            why = str(problem) or "the daemon does not answer"
        except (KeyError, TypeError):
            why = "the daemon is of another version"
        return Snapshot(self._wall(), why=why, before=before)

    def add_points(self) -> None:
        self.history.add_points(self.snapshot())
