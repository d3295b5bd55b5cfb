"""Pairs the two events of a rename, which the kernel sends with one cookie (inotify(7))."""

from __future__ import annotations

MAX_WAITING = 64
"""Names that left and may turn up elsewhere. The kernel queues both events together, so what waits longer has
left the trees."""


class RenamePairs:
    """What is not seen to be a rename is two changes, as it is in any case."""

    def __init__(self) -> None:
        self._left: dict[int, tuple[int, bytes]] = {}
        """By cookie: the tree and the path that something left, the oldest first."""

    def left(self, cookie: int, tree: int, path: bytes) -> None:
        """Note IN_MOVED_FROM."""
        self._left[cookie] = tree, path
        if len(self._left) > MAX_WAITING:
            del self._left[next(iter(self._left))]

    def arrived(self, cookie: int, tree: int) -> bytes | None:
        """Return the path in the same tree that belongs to IN_MOVED_TO; None if there is none."""
        left_tree, path = self._left.pop(cookie, (-1, b""))
        return path if left_tree == tree else None
