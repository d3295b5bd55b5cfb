"""The title of a worker: what it does itself and, while it does nothing, what the master knows."""

from __future__ import annotations

import time
from collections.abc import Callable

from inosync.messages import NodeState, Part, TitleUpdate
from inosync.system import process
from inosync.worker import titles


class Display:
    """Sets the title. ``name`` is the node's; ``wall`` is for the times that people read."""

    def __init__(self, name: str, wall: Callable[[], float] = time.time) -> None:
        self._name, self._wall = name, wall
        self._behind = 0
        """Changes that the node lacks, as far as the master has told."""
        self._waiting: Callable[[int], str] | None = None
        """The title, given that number, while something is waited for."""
        self._idle = False
        self._stopping = False
        self._verified = ""
        """When the node was last compared in full, and what came of that, as far as the master has told."""

    def starting(self) -> None:
        """There was no batch yet."""
        self._idle, self._waiting = True, None
        self._set(titles.starting(self._name))

    def busy(self, part: Part, count: int, percent: int | None = None) -> None:
        """A part of a batch of ``count`` names is being transferred."""
        self._idle, self._waiting = False, None
        full = titles.full(self._name, percent)
        self._set(full if part.full else titles.syncing(self._name, count))

    def retrying(self, attempt: int, pause: float, reason: str, least: int = 0) -> None:
        """Something failed, and is tried again in ``pause`` seconds; it was about ``least`` changes."""
        at = self._time(pause)
        self._wait(least, lambda behind: titles.retrying(self._name, attempt, at, reason, behind))

    def queued(self, attempt: int, reason: str) -> None:
        """The next try waits for a slot."""
        self._wait(0, lambda behind: titles.queued(self._name, attempt, reason, behind))

    def done(self, worry: str) -> None:
        """A batch came through; ``worry`` is what still keeps the node from being level."""
        self._idle, self._waiting = True, None
        self._behind = 0
        degraded = titles.degraded(self._name, worry)
        self._set(degraded if worry else titles.ok(self._name, self._time(0), self._verified))

    def idle(self) -> None:
        """Nothing is waited for any more; the master will tell what that means."""
        self._idle, self._waiting = True, None

    def noted(self, note: TitleUpdate) -> None:
        """The master has told what it knows."""
        self._behind, self._verified = note.behind, note.verified
        if self._waiting is not None:
            self._set(self._waiting(note.behind))
        elif self._idle:
            self._set(self._of(note))

    def stopping(self) -> None:
        """From now on, nothing else is to be said."""
        self._set(titles.stopping(self._name))
        self._stopping = True

    def _wait(self, least: int, title: Callable[[int], str]) -> None:
        self._behind = max(self._behind, least)
        self._waiting = title
        self._set(title(self._behind))

    def _of(self, note: TitleUpdate) -> str:
        match note.verdict:
            case NodeState.OK:
                return titles.ok(self._name, note.at, note.verified)
            case NodeState.STARTING:
                return titles.starting(self._name)
            case NodeState.DEGRADED:
                return titles.degraded(self._name, note.reason)
        return titles.waiting(self._name, note.verdict, note.reason, note.behind)

    def _set(self, text: str) -> None:
        if not self._stopping:
            process.set_title(text)

    def _time(self, ahead: float) -> str:
        return time.strftime("%H:%M:%S", time.localtime(self._wall() + ahead))
