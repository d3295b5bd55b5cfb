"""What a walk records of the directories that it comes by.

Usually that is each listing, or nothing at all if the whole tree is to be compared. After a restart it is
what has changed since a time (``tree.Since``), by ctime: a change of a file gives it a new ctime, whatever
its mtime is set to, and so does a rename, for what is renamed and for both directories. What is below a
renamed directory keeps its times. The files in directories that have not changed are looked at once all
directories are watched (``survey``).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

from inosync.changes import Change, Kind, Step
from inosync.watch.listener import ChangeListener
from inosync.watch.tree import Directory, Root, Since, join, locate, status_at

log = logging.getLogger(__name__)

EntryLook = Callable[[Iterable[os.DirEntry[Any]]], None]
"""Takes the entries of a directory, some at a time."""

_FUTURE_NS = 2_000_000_000
"""No file has a time that is so far in the future, unless the clock was set back."""


class Recorder:
    """Tells a listener of the directories that are walked, and of what is in them."""

    def __init__(self, listener: ChangeListener, clock: Callable[[], float]) -> None:
        self._listener, self._clock = listener, clock

    def record_directory(
        self, root: Root, path: bytes, directory: Directory, status: os.stat_result, is_new: bool
    ) -> EntryLook | None:
        """Record the listing of a watched directory, if it has to be; return what has to see its entries.

        ``is_new``: nothing can depend on when it arrives.
        """
        since = root.since
        has_moved, has_changed = self._record_listing(root, path, directory, status, is_new)
        if since is None or root.since is None:
            return None
        if has_moved:
            return lambda entries: _note_moved(since, directory, entries)
        if has_changed:
            return lambda entries: _note_changed_directories(since, directory, entries)
        since.unchanged.append(directory)
        return None

    def record_leaf(
        self, root: Root, path: bytes, leaf: Directory, status: os.stat_result, is_new: bool
    ) -> None:
        """Do the same for a directory that has none in it."""
        _, has_changed = self._record_listing(root, path, leaf, status, is_new)
        if root.since is not None and not has_changed:
            root.since.unchanged.append(leaf)

    def record_files(self, since: Since, directory: Directory, names: Iterable[bytes]) -> None:
        """Record files that have changed in a directory that has not."""
        # Events are handled between two steps: it may be elsewhere by now.
        place = locate(directory)
        if place is None or place[0].since is not since:
            return
        root, above = place
        for name in names:
            path = join(above, name)
            status = status_at(root, path)
            if status is not None and self._is_distrusted(root, since, path, status):
                return
            if not root.excluded(path, False):
                self._record(root, path, Kind.NAME, Step.UNKNOWN)

    def _record_listing(
        self, root: Root, path: bytes, directory: Directory, status: os.stat_result, is_new: bool
    ) -> tuple[bool, bool]:
        """Record a listing, if it has to be. Whether all in it has changed, and whether the listing has."""
        since = root.since
        if since is None:
            has_moved, has_changed = False, not root.full_walk
        else:
            has_moved = directory in since.moved
            since.moved.discard(directory)
            has_changed = has_moved or status.st_ctime_ns >= since.after
            if self._is_distrusted(root, since, path, status):
                return False, False
        if has_changed:
            seen = Step.NEW if is_new else Step.CHANGED
            self._record(root, path, Kind.LIST, seen if since is None else Step.UNKNOWN)
        return has_moved, has_changed

    def _record(self, root: Root, path: bytes, kind: Kind, step: Step) -> None:
        self._listener.record(Change(root.tree, path, kind, step=step), self._clock())

    def _is_distrusted(self, root: Root, since: Since, path: bytes, status: os.stat_result) -> bool:
        """Whether times do not tell what has changed; then all of the tree has to be compared."""
        if status.st_dev not in since.devices:
            why = "is on another file system, such as a subvolume"
        elif status.st_ctime_ns >= since.after and status.st_ctime_ns > time.time_ns() + _FUTURE_NS:
            why = "has a time in the future: the clock was set back"
        else:
            return False
        root.since = None
        where = os.path.join(root.path, os.fsdecode(path))
        log.warning("%s: full mirrors follow, because %s %s", root.path, where, why)
        return True


def _note_changed_directories(
    since: Since, directory: Directory, entries: Iterable[os.DirEntry[Any]]
) -> None:
    """Note which directories in one that has changed may have been renamed to where they are."""
    _note_moved(since, directory, (entry for entry in entries if _has_changed(since, entry)))


def _has_changed(since: Since, entry: os.DirEntry[Any]) -> bool:
    if not entry.is_dir(follow_symlinks=False):
        return False
    try:
        return entry.stat(follow_symlinks=False).st_ctime_ns >= since.after
    except OSError:
        return True


def _note_moved(since: Since, directory: Directory, entries: Iterable[os.DirEntry[Any]]) -> None:
    """Note that directories may have been renamed to where they are, with all that is in them."""
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            kid = directory.kid(os.fsencode(entry.name))
            if kid is not None:
                since.moved.add(kid)
