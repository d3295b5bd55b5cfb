"""How much was removed from a tree within a time, and whether that is more than the operator allows.

It is counted by events, one for each entry that goes. What is moved in counts against that, so a rename
within a tree is no removal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from inosync.config.checks import Share

BUCKETS = 8
"""So exactly the time is kept: in eighths of the time that counts."""


@dataclass(slots=True)
class _Bucket:
    """Removals one after the other."""

    since: float
    count: int
    place: bytes
    """The directory that all of them were in, or below which they were."""


class Removals:
    """The removals of one tree. Times by the caller's clock, in seconds; ``window``: how long they count."""

    def __init__(self) -> None:
        self._buckets: list[_Bucket] = []
        """Oldest first."""

    def add(self, path: bytes, now: float, window: float) -> None:
        place = path.rpartition(b"/")[0]
        last = self._buckets[-1] if self._buckets else None
        if last is not None and (last.place == path or last.place.startswith(path + b"/")):
            place = path  # the directory itself, after what was in it
        if last is None or now - last.since >= window / BUCKETS:
            self._buckets.append(_Bucket(now, 1, place))
            return
        last.count += 1
        if last.place != place:
            last.place = common_directory(last.place, place)

    def cancel(self) -> None:
        """Count an entry that was moved in, as the other end of the last removal."""
        if self._buckets and self._buckets[-1].count:
            self._buckets[-1].count -= 1

    def replace(self, count: int, place: bytes, now: float) -> None:
        """Forget what was counted: a node says that it is so much, in this directory."""
        self._buckets = [_Bucket(now, count, place)]

    def total(self, now: float, window: float) -> int:
        """Return how many entries are gone within the time; what is older is forgotten."""
        while self._buckets and now - self._buckets[0].since >= window:
            del self._buckets[0]
        return sum(bucket.count for bucket in self._buckets)

    def place(self) -> bytes:
        """Return the directory, relative to the root, that all of them were in or below."""
        places = [bucket.place for bucket in self._buckets if bucket.count]
        found = places[0] if places else b""
        for place in places[1:]:
            found = common_directory(found, place)
        return found


def common_directory(one: bytes, other: bytes) -> bytes:
    """Return the deepest directory that both directories are, or are below."""
    shared = []
    for a, b in zip(one.split(b"/"), other.split(b"/"), strict=False):
        if a != b:
            break
        shared.append(a)
    return b"/".join(shared)


def must_be_left(removed: int, limit: int | Share) -> float:
    """Return how many entries have to be left for so many removals to be allowed; infinite: they are not."""
    if isinstance(limit, Share):
        return removed * (100 - limit.percent) / limit.percent
    return math.inf if removed > limit else 0
