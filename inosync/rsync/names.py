"""A second look at a batch's names, just before rsync gets them.

Between the event and the transfer the world moves on, and rsync is unforgiving about names that have lost
their parents: it makes real directories where symlinks were, or ends in exit 23 for ever.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from inosync.messages import Change, Kind, from_wire
from inosync.rsync.argv import too_long

Excluded = Callable[[bytes, bool], bool]
"""(path, is a directory) -> whether a rule excludes it; its parents are known to be included."""


@dataclass(slots=True)
class CurrentNames:
    """What came of the names: what to send, and what rsync can never take."""

    send: list[bytes] = field(default_factory=list)
    """In the form of ``Change.wire``, without repetitions."""
    unsendable: list[bytes] = field(default_factory=list)


def current_names(
    source: str,
    wires: Iterable[bytes],
    excluded: Excluded,
    tidy: bool = False,
    list_missing: bool = True,
    one_file_system: bool = False,
) -> CurrentNames:
    """Look at each name in the tree ``source`` as it is now.

    With ``tidy`` the directories that the names are in are relisted: a transfer of theirs ended early, and
    what it was writing may lie there under a temporary name (``.NAME.XXXXXX``) that nobody else removes.
    Without ``list_missing`` the nearest directory above is relisted for what is gone.

    Below what is no directory any more nothing is listed: the topmost such ancestor stands for it. What
    was to be relisted and is no directory is listed as a name. What the rules exclude is left out. With
    ``one_file_system`` so is what is below a mount point: rsync would send it, since it was named.
    OSError if the tree itself is not there.
    """
    # Relative to the source, as rsync takes the names: together they may be longer than PATH_MAX.
    directory = os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _Looker(directory, excluded, list_missing, one_file_system).all(wires, tidy)
    finally:
        os.close(directory)


class _Looker:
    def __init__(self, source: int, excluded: Excluded, list_missing: bool, one_file_system: bool) -> None:
        self._source = source
        self._list_missing = list_missing
        self._device = os.fstat(source).st_dev if one_file_system else None
        self._excluded = excluded
        self._above: dict[bytes, Change | bool | None] = {b"": True}
        """For a directory: True, it is one; None, excluded; else what to list instead of anything below."""

    def all(self, wires: Iterable[bytes], tidy: bool) -> CurrentNames:
        result = CurrentNames()
        seen: dict[bytes, None] = {}
        for wire in wires:
            change = self._now(from_wire(0, wire))
            if change is not None:
                seen.setdefault(change.wire)
                if tidy and change.path:
                    seen.setdefault(self._relist_parent(change.path).wire)
        for wire in seen:
            (result.unsendable if too_long(wire) else result.send).append(wire)
        return result

    def _now(self, change: Change) -> Change | None:
        if not change.path:
            return change
        above = self._directory(change.path.rpartition(b"/")[0])
        if above is not True:
            return above or None
        is_directory, is_listed = self._is_directory(change.path)
        if is_directory is None:
            return self._missing(change.path)
        if self._excluded(change.path, is_directory):
            return self._excluded_now(change.path, is_directory)
        return change if is_listed else Change(0, change.path, Kind.NAME)

    def _directory(self, path: bytes) -> Change | bool | None:
        if path not in self._above:
            slash = path.find(b"/")
            while slash != -1:  # from the top, without recursion: there may be a thousand levels
                self._look_at_directory(path[:slash])
                slash = path.find(b"/", slash + 1)
            self._look_at_directory(path)
        return self._above[path]

    def _look_at_directory(self, path: bytes) -> None:
        """Its parent has been looked at."""
        if path not in self._above:
            above = self._above[path.rpartition(b"/")[0]]
            self._above[path] = self._verdict(path) if above is True else above

    def _verdict(self, path: bytes) -> Change | bool | None:
        is_directory, is_listed = self._is_directory(path)
        if is_directory is None:
            return self._missing(path)
        if self._excluded(path, is_directory):
            return self._excluded_now(path, is_directory)
        return is_listed or Change(0, path, Kind.NAME)

    def _missing(self, path: bytes) -> Change | None:
        as_file, as_directory = self._excluded(path, False), self._excluded(path, True)
        if as_file and as_directory:
            return None
        if (
            as_file or as_directory or not self._list_missing
        ):  # what the node has there decides, and rsync asks it when it relists
            return self._relist_parent(path)
        return Change(0, path, Kind.NAME)

    def _excluded_now(self, path: bytes, is_directory: bool) -> Change | None:
        # What is excluded as a directory may be mirrored as a file, which is gone now.
        return None if self._excluded(path, not is_directory) else self._relist_parent(path)

    def _relist_parent(self, path: bytes) -> Change:
        return Change(0, path.rpartition(b"/")[0], Kind.LIST)

    def _is_directory(self, path: bytes) -> tuple[bool | None, bool]:
        """Whether it is one (None: it is not there), and one that may be looked into.

        No component on the way is a symlink: each was looked at before.
        """
        try:
            status = os.lstat(path, dir_fd=self._source)
        except (FileNotFoundError, NotADirectoryError):
            return None, False
        except OSError:
            return False, False  # too long, or not ours to look at: rsync will say what is wrong with it
        is_directory = stat.S_ISDIR(status.st_mode)
        return is_directory, is_directory and self._device in (None, status.st_dev)
