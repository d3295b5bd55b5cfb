"""The limit that a worker starts its rsyncs with, as the time of day has it."""

from __future__ import annotations

import time
from collections.abc import Callable

from inosync.config.timetable import Timetable

LOOK = 60.0
"""Seconds between two looks at the local time, at most: the clock may be set, by people or for the summer."""


class Throttle:
    """``clock`` is monotonic, for the next look; ``wall`` tells the time since the epoch. Both in seconds."""

    def __init__(
        self, timetable: Timetable, clock: Callable[[], float], wall: Callable[[], float] = time.time
    ) -> None:
        self._timetable, self._clock, self._wall = timetable, clock, wall
        self.deadline = float("inf")
        """When ``look`` is due, by the clock."""
        self._look()

    def changed(self) -> bool:
        """Look whether the limit is another one by now."""
        before = self.limit
        if self._timetable.switches:
            self._look()
        return self.limit != before

    def _look(self) -> None:
        second = _second_of_day(self._wall())
        self.limit = self._timetable.speed(second)
        """In KB/s; 0 is without one."""
        if self._timetable.switches:
            self.deadline = self._clock() + min(LOOK, self._timetable.until_switch(second))


def _second_of_day(wall: float) -> float:
    local = time.localtime(wall)
    # 60 is a leap second, where the zone's file counts them.
    return (local.tm_hour * 60 + local.tm_min) * 60 + min(local.tm_sec, 59) + wall % 1
