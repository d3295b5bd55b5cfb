"""Up to which time everything is in the journal, at which of its positions. Pure; times since the epoch."""

from __future__ import annotations

from dataclasses import dataclass, replace

Key = tuple[int, bytes]
"""Tree and path."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Everything that changed before a time is recorded at this position of the journal or before it."""

    position: int
    wall: float
    """The time, in seconds."""
    unclosed: frozenset[Key] = frozenset()
    """Files that changed before the time, and are recorded only when their writers have closed them."""


class Marks:
    """The marks that nodes may still need: the newest one at or before each cursor."""

    def __init__(self, limit: int = 500) -> None:
        self._limit = max(limit, 4)
        self._marks: list[Mark] = []
        """By position, each position once."""
        self.were_cut = False
        """Whether marks were dropped that nodes needed: what they have is not known."""

    def add(self, mark: Mark) -> None:
        """Add the newest mark.

        If the clock was set back, files that change from now on get times that are older than earlier marks:
        these are made older, too.
        """
        if self._marks and self._marks[-1].position == mark.position:
            self._marks.pop()
        for index in range(len(self._marks) - 1, -1, -1):
            if self._marks[index].wall <= mark.wall:
                break
            self._marks[index] = replace(self._marks[index], wall=mark.wall)
        self._marks.append(mark)
        if len(self._marks) > self._limit:
            # An older mark may stand for a newer one: more is looked at than needed.
            half = self._limit // 2
            self._marks[:half] = self._marks[:half:2]

    def cut(self) -> None:
        """Drop all marks, because what is recorded before the next one may have older times than they."""
        self._marks.clear()
        self.were_cut = True

    def at(self, cursor: int) -> Mark | None:
        """Return what a node with this cursor has; None if that is not known."""
        return next((mark for mark in reversed(self._marks) if mark.position <= cursor), None)

    def drop_before(self, cursor: int) -> None:
        """Drop the marks that no node needs, if no cursor is before this one."""
        newest = self.at(cursor)
        if newest is not None:
            del self._marks[: self._marks.index(newest)]
