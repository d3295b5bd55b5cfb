"""What is mounted over directories of the trees, or unmounted from them: neither emits an event."""

from __future__ import annotations

import os

from inosync.system import mounts
from inosync.watch.listener import FileListener
from inosync.watch.roots import Roots
from inosync.watch.tree import Directory, Root, locate
from inosync.watch.walker import Walker


class MountPoints:
    """Walks what a mount or umount has put in the place of a watched directory."""

    def __init__(self, roots: Roots, walker: Walker, listener: FileListener, table: mounts.Changes) -> None:
        self._roots, self._walker, self._listener = roots, walker, listener
        self._table = table
        self._mounted: dict[Directory, tuple[Root, bytes]] = {}
        """Where something may be mounted, and at which path: no table tells of a rename above it."""

    @property
    def known(self) -> frozenset[bytes]:
        """All mount points of the system, as far as they were noticed."""
        return frozenset(self._table.known)

    def descriptors(self) -> list[int]:
        """Descriptors of tables that tell of mounts: ``check`` is to be called when one changes."""
        return self._table.descriptors()

    def check(self, has_changed: bool = True) -> None:
        """Look at the watched directories below all mount points, if there are other ones now.

        ``has_changed``: the loop has seen that there are; the kernel says so once.
        """
        points = self._table.take(has_changed)
        if not points:
            return
        mounted, self._mounted = self._mounted, {}
        present = list(self._roots.present())
        for root in present:
            real = os.path.realpath(os.fsencode(root.path)).rstrip(b"/") + b"/"
            for point in points:
                if point.startswith(real):
                    self._check_place(root, point[len(real) :])
                    if point in self._table.known and (directory := root.at(point[len(real) :])):
                        self._mounted[directory] = root, point[len(real) :]
        for directory, (root, path) in mounted.items():
            if directory in self._mounted or root not in present:
                continue
            if place := locate(directory):
                self._check_place(*place)
            elif root.at(path.rpartition(b"/")[0]) is None:
                # What it is in was renamed before it could be looked at. By itself it was removed.
                self._walker.walk_tree(root)

    def _check_place(self, root: Root, path: bytes) -> None:
        if self._walker.walk_if_replaced(root, path):
            self._listener.directories_changed()

    def close(self) -> None:
        self._table.close()
