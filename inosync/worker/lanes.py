"""Two transfers at once: which files are big, and what of one lane has to wait for the other. Pure.

The first lane sends everything but big files, the second sends nothing else. So no name is in both; what has
become big or small meanwhile, and is still under way in the other lane, waits for its end.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from inosync.changes import Lane, Part

START_SPEED = 10_000_000.0
"""The assumed speed of a node, in bytes per second, until its speed is measured."""
MIN_BIG_BYTES, MAX_BIG_BYTES = 1 << 18, 1 << 30
"""Bounds of ``big_size``: for less, a connection of its own does not pay."""
ALONE_SECONDS = 600.0
"""How long the lanes take turns after a node has refused one connection beside another."""
MIN_MEASURED_BYTES = 1 << 18
"""A transfer shows the speed of a node if its files have this mean size: smaller ones show latency."""


def smoothed(speed: float, sent: int, files: int, seconds: float) -> float:
    """Return the speed after a transfer that has sent so many bytes of so many files."""
    if sent < MIN_MEASURED_BYTES * max(files, 1) or seconds <= 0:
        return speed
    return (speed + sent / seconds) / 2


def big_size(before: int, speed: float, rspeed: int) -> int:
    """Return the size above which a file is big: it takes about a second or more. A power of two.

    It stays what it was ``before`` until the speed is four times as high, or lower than it, because all warm
    rsyncs are called with it. ``rspeed`` is the limit in KB/s; 0 for none.
    """
    if rspeed:
        speed = min(speed, rspeed * 1024)
    if before <= speed < before * 4:
        return before
    power = 1 << max(int(speed).bit_length() - 1, 0)
    return min(max(power, MIN_BIG_BYTES), MAX_BIG_BYTES)


@dataclass(frozen=True, slots=True)
class UnderWay:
    """What the transfer that runs in a lane was given."""

    tree: int
    names: frozenset[bytes]
    """In the form of ``Change.wire``; empty if it is all of the tree."""
    directories: frozenset[bytes]
    """The relists of the directories that big files are in: they would remove rsync's temporary files."""

    def is_in_the_way(self, name: bytes) -> bool:
        """Return whether a name of the same tree is part of it or below, or lists it, or is listed by it."""
        if not self.names:
            return True
        if name in self.names or name in self.directories or listing(name) in self.names:
            return True
        # What is above it was a file, if it is under way.
        return any(above in self.names for above in upwards(name.rstrip(b"/")))

    def holds(self, path: bytes) -> bool:
        """Return whether a path, or something below it, is part of it."""
        return not self.names or any(name == path or name.startswith(path + b"/") for name in self.names)


def directory_of(name: bytes) -> bytes:
    """Return the path of the directory that a name is in; empty for the root."""
    return name.rstrip(b"/").rpartition(b"/")[0]


def listing(name: bytes) -> bytes:
    """Return the relist of the directory that a name is in."""
    directory = directory_of(name)
    return directory + b"/" if directory else b"./"


def upwards(path: bytes) -> Iterable[bytes]:
    """Yield a path and the directories above it; the root, which is empty, is the last."""
    while path:
        yield path
        path = path.rpartition(b"/")[0]
    yield path


class Lanes:
    """What both lanes of a worker know of each other, and how big a big file is."""

    def __init__(self) -> None:
        self.big_size = big_size(0, START_SPEED, 0)
        """In bytes; larger files are sent in the second lane."""
        self.transfers = 0
        """How many were started in the first lane."""
        self.alone_until = float("-inf")
        """Until when the lanes take turns, by the clock, because the node takes one connection only."""
        self._speed = START_SPEED
        self._under_way: dict[Lane, UnderWay] = {}

    def measure(self, sent: int, files: int, seconds: float) -> None:
        """Take a transfer into account that has come through; ``adjust`` follows."""
        self._speed = smoothed(self._speed, sent, files, seconds)

    def adjust(self, rspeed: int) -> bool:
        """Find ``big_size`` anew; return whether it has changed, so that no warm rsync is of use any more."""
        before, self.big_size = self.big_size, big_size(self.big_size, self._speed, rspeed)
        return before != self.big_size

    def begin(self, lane: Lane, part: Part, names: Collection[bytes]) -> None:
        """A transfer of a part starts, with these names."""
        self.transfers += lane is Lane.FIRST
        chosen = frozenset(() if part.full else names)
        directories = frozenset(map(listing, chosen if lane is Lane.SECOND else ()))
        self._under_way[lane] = UnderWay(part.tree, chosen, directories)

    def end(self, lane: Lane) -> None:
        """The transfer of a lane has ended; harmless if there was none."""
        self._under_way.pop(lane, None)

    def other(self, lane: Lane, tree: int | None = None) -> UnderWay | None:
        """Return what runs in the other lane, or only if it is of a tree; None if nothing does."""
        found = self._under_way.get(Lane.SECOND if lane is Lane.FIRST else Lane.FIRST)
        return found if found is not None and tree in (None, found.tree) else None

    def must_wait(self, lane: Lane, now: float) -> bool:
        """Return whether a lane has to wait for the other one's connection to the node."""
        return now < self.alone_until and self.other(lane) is not None
