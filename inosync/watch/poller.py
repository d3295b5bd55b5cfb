"""Rounds over the directories that have no watch: each is tried again, and compared if that fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from inosync.watch.scan import Scanner
from inosync.watch.tree import Directory
from inosync.watch.unwatched import Unwatched

DEFAULT_INTERVAL_SECONDS = 60.0
TIME_SHARE = 10
"""Rounds may take a tenth of the time: where one takes long, the next begins later."""


class Poller:
    """Polls unwatched directories, because neither their changes nor a raised limit emit an event.

    ``rand`` in [0, 1) makes the interval up to a tenth shorter.
    """

    def __init__(
        self,
        scanner: Scanner,
        unwatched: Unwatched,
        clock: Callable[[], float],
        rand: Callable[[], float],
    ) -> None:
        self._scanner, self._unwatched = scanner, unwatched
        self._clock, self._rand = clock, rand
        self._interval = DEFAULT_INTERVAL_SECONDS
        self._queue: list[Directory] = []
        """The directories that are still to be scanned; the last one is next."""
        self._scan: Iterator[None] | None = None
        """The scan that is under way."""
        self._began_at: float | None = None
        """When the present round began; None between rounds."""
        self._spent = 0.0
        """Seconds that the scans of the present round have taken."""
        self._next_at = 0.0
        """When the next round is due, unless it is wanted earlier."""
        self._wanted_at = float("-inf")
        """A round that begins at this time or later is wanted at once."""
        self.covered_since = float("-inf")
        """When the last complete round began: all unwatched directories were compared since then."""

    @property
    def is_idle(self) -> bool:
        """Whether ``step`` has nothing to do: a round ends in the step after its last scan."""
        return not self._queue and self._began_at is None and self._scan is None

    def set_interval(self, seconds: float) -> None:
        """Set the time between the beginnings of two rounds."""
        self._interval = seconds

    def deadline(self) -> float:
        if not self._unwatched or self._began_at is not None:
            return float("inf")
        return self._next_at if self.covered_since >= self._wanted_at else self._wanted_at

    def run_due(self, now: float) -> None:
        """Begin a round if it is time. Meant to be called every second or so."""
        if not self._unwatched:
            self._next_at = now + self._pause()
        elif now >= self.deadline():
            self._began_at, self._spent = now, 0.0
            # In the order in which they were found, so that neighbours come together.
            self._queue = list(self._unwatched)[::-1]

    def has_covered(self, since: float) -> bool:
        """Whether a round that began at ``since`` or later has ended. If not, one will begin at once."""
        self._wanted_at = max(self._wanted_at, since)
        return self.covered_since >= since

    def poll_soon(self, directory: Directory) -> None:
        """Scan an unwatched directory that may be readable by now."""
        self._queue.append(directory)

    def clear(self) -> None:
        """Scan nothing more in this round, because everything is walked anyway."""
        self._queue, self._scan = [], None

    def step(self) -> bool:
        """Do one small step; False when there is nothing to do."""
        if self._scan is not None:
            began = self._clock()
            if next(self._scan, self) is self:
                self._scan = None
            self._spent += self._clock() - began
            return True
        while self._queue:
            directory = self._queue.pop()
            if directory in self._unwatched:
                self._scan = self._scanner.scan(directory, poll=True)
                return True
        if self._began_at is not None:
            rest = (TIME_SHARE - 1) * self._spent
            self._next_at = max(self._began_at + self._pause(), self._clock() + rest)
            self.covered_since, self._began_at = self._began_at, None
        return False

    def _pause(self) -> float:
        return self._interval * (1 - 0.1 * self._rand())
