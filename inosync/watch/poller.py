"""Rounds along the directories that have no watch: each is tried again, and compared if that fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from inosync.watch.scan import Scanner
from inosync.watch.tree import Directory
from inosync.watch.unwatched import Unwatched

EVERY = 60.0
"""Seconds between two rounds, if nobody says otherwise."""
SHARE = 10
"""Rounds may take a tenth of the time: where one takes long, the next begins later."""


class Poller:
    """``every``: seconds between two rounds; ``rand`` in [0, 1) makes that up to a tenth less.

    Of what nobody watches, an operator who raises a limit and a neighbour who gives his watches back send no
    event either.
    """

    def __init__(
        self,
        visitor: Scanner,
        unwatched: Unwatched,
        clock: Callable[[], float],
        rand: Callable[[], float],
    ) -> None:
        self.every = EVERY
        self._visitor, self._unwatched = visitor, unwatched
        self._clock, self._chance = clock, rand
        self._beat: list[Directory] = []
        """What is still to be looked at."""
        self._visit: Iterator[None] | None = None
        self._began: float | None = None
        """When this round began ..."""
        self._spent = 0.0
        """... and how long it has taken, without what was more urgent."""
        self._next = 0.0
        self._wanted = float("-inf")
        """A round that begins no earlier is wanted at once."""
        self.covered = float("-inf")
        """When the last round began that has come to its end: what lacked a watch was compared since then."""

    @property
    def is_idle(self) -> bool:
        """Whether ``step`` has nothing to do: a round ends in the step after its last visit."""
        return not self._beat and self._began is None and self._visit is None

    def deadline(self) -> float:
        """When the next round begins; never if there is nothing to be looked at, or one is on its way."""
        if not self._unwatched or self._began is not None:
            return float("inf")
        return self._next if self.covered >= self._wanted else self._wanted

    def tend(self, now: float) -> None:
        """Begin a round if it is time. Meant to be called every second or so."""
        if not self._unwatched:
            self._next = now + self._pause()
        elif now >= self.deadline():
            self._began, self._spent = now, 0.0
            self._beat = list(self._unwatched)
            self._beat.reverse()  # in the order in which they were found, so that neighbours come together

    def hurry(self, since: float) -> None:
        """Have a round that begins at ``since`` or later, as soon as possible."""
        self._wanted = max(self._wanted, since)

    def look_at(self, directory: Directory) -> None:
        """Look at one that may have become what can be watched, soon."""
        self._beat.append(directory)

    def begin_anew(self) -> None:
        """Everything is walked anyway."""
        self._beat, self._visit = [], None

    def step(self) -> bool:
        """One small step; False when there is nothing to do."""
        if self._visit is not None:
            began = self._clock()
            if next(self._visit, self) is self:
                self._visit = None
            self._spent += self._clock() - began
            return True
        while self._beat:
            directory = self._beat.pop()
            if directory in self._unwatched:
                self._visit = self._visitor.visit(directory, alone=True)
                return True
        if self._began is not None:
            self._next = max(self._began + self._pause(), self._clock() + (SHARE - 1) * self._spent)
            self.covered, self._began = self._began, None
        return False

    def _pause(self) -> float:
        return self.every * (1 - 0.1 * self._chance())
