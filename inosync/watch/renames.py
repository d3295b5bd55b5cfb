"""Finds out what was renamed to what: the kernel sends two events with one cookie (inotify(7)).

Where something moves into a directory that is not watched yet, there is no second event. A directory that is
found there is known by its watch, which goes with it.
"""

from __future__ import annotations

from inosync.watch.tree import Directory

MAX_WAITING = 64
"""Names that left and may turn up elsewhere. The kernel queues both events together, so what waits longer has
left the trees."""


class RenamePairs:
    """What is not seen to be a rename is two changes, as it is in any case."""

    def __init__(self) -> None:
        self._left: dict[int, tuple[int, bytes, Directory | None]] = {}
        """By cookie, oldest first: the tree and the path that something left, and what it is, if known."""

    def left(self, cookie: int, tree: int, path: bytes, directory: Directory | None = None) -> None:
        """Note IN_MOVED_FROM."""
        self._left[cookie] = tree, path, directory
        if len(self._left) > MAX_WAITING:
            del self._left[next(iter(self._left))]

    def arrived(self, cookie: int, tree: int) -> bytes | None:
        """Return the path in the same tree that belongs to IN_MOVED_TO; None if there is none."""
        left_tree, path, _ = self._left.pop(cookie, (-1, b"", None))
        return path if left_tree == tree else None

    def found(self, directory: Directory, tree: int) -> bytes | None:
        """Return the path in the same tree that a directory has left; None if it has not left any."""
        for cookie, (_, _, left) in self._left.items():
            if left is directory:
                return self.arrived(cookie, tree)
        return None
