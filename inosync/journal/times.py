"""When the positions of the journal were recorded. Pure."""

from __future__ import annotations

import bisect


class RecordTimes:
    """When positions were recorded: (last position, earliest time) of runs of records, bounded.

    An entry alone cannot tell how long a node is behind, because recording a path again makes it young.
    """

    def __init__(self, limit: int) -> None:
        self._limit = max(limit, 4)
        self._marks: list[tuple[int, float]] = []

    def add(self, position: int, now: float) -> None:
        if self._marks and self._marks[-1][1] == now:  # one read of the kernel's queue is one mark
            self._marks[-1] = (position, now)
            return
        self._marks.append((position, now))
        if len(self._marks) > self._limit:
            # Of two neighbours keep the later position and the earlier time: lag may only be overstated.
            older, newer = self._marks[: self._limit // 2], self._marks[self._limit // 2 :]
            pairs = zip(older[::2], older[1::2], strict=False)
            odd = older[-1:] if len(older) % 2 else []
            self._marks = [(b[0], min(a[1], b[1])) for a, b in pairs] + odd + newer

    def first_after(self, cursor: int) -> float | None:
        index = self._index_after(cursor)
        return self._marks[index][1] if index < len(self._marks) else None

    def last_before(self, when: float) -> int:
        """Return the last position of a run of which all was recorded before a time; -1 if there is none."""
        # What a run holds is older than the next one begins. The newest run has one time only.
        ends = [mark[1] for mark in self._marks[1:]]
        count = bisect.bisect_right(ends, when)
        if self._marks and count == len(ends) and self._marks[-1][1] < when:
            count += 1
        return self._marks[count - 1][0] if count else -1

    def drop_confirmed(self, confirmed: int) -> None:
        del self._marks[: self._index_after(confirmed)]

    def _index_after(self, position: int) -> int:
        return bisect.bisect_right(self._marks, position, key=lambda mark: mark[0])
