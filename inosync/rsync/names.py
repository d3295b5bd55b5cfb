"""Checks the names of a batch against the tree just before rsync gets them.

The tree has changed since the events, and rsync is unforgiving about names that have lost their parents: it
makes real directories where symlinks were, or ends in exit 23 for ever.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from inosync.changes import Change, Kind, from_wire, is_below_root
from inosync.filters.rules import Excluded
from inosync.rsync.argv import too_long
from inosync.system import entries


@dataclass(slots=True)
class CurrentNames:
    """The names of a batch as the tree is now, in the form of ``Change.wire``, each once."""

    send: list[bytes] = field(default_factory=list)
    unsendable: list[bytes] = field(default_factory=list)
    """Names that rsync can never take."""
    missing: set[bytes] = field(default_factory=set)
    """The names in ``send`` that are not there any more."""
    links: set[bytes] = field(default_factory=set)
    """The names in ``send`` that are symlinks."""
    removing: set[bytes] = field(default_factory=set)
    """The relists in ``send`` that were not asked for, and are there for what is gone in them."""
    big: list[bytes] = field(default_factory=list)
    """Files larger than ``big_size``; not in ``send``."""


def current_names(
    source: str,
    wires: Iterable[bytes],
    excluded: Excluded,
    list_missing: bool = True,
    one_file_system: bool = False,
    big_size: int = 0,
) -> CurrentNames:
    """Check each name in the tree ``source``.

    - Below what is no directory any more nothing is listed: its topmost ancestor of that kind is.
    - What was to be relisted and is no directory is listed as a name.
    - What the rules exclude is left out. With ``one_file_system`` so is what is below a mount point, because
      rsync sends a name whatever file system it is on.
    - Without ``list_missing`` the nearest directory above is relisted for what is gone.
    - Files that are larger than ``big_size`` bytes, unless that is 0, are listed apart, those in relisted
      directories, too: rsync is to leave them out (``TransferSettings.max_size``).

    OSError if the tree itself is not there.
    """
    # Relative to the source, as rsync takes the names: together they may be longer than PATH_MAX.
    with entries.opened(source) as directory:
        return _Tree(directory, excluded, list_missing, one_file_system, big_size).check(wires)


class _Tree:
    def __init__(
        self, source: int, excluded: Excluded, list_missing: bool, one_file_system: bool, big_size: int
    ) -> None:
        self._source, self._big_size = source, big_size or math.inf
        self._big: dict[bytes, None] = {}
        self._excluded = excluded
        self._list_missing = list_missing
        self._device = os.fstat(source).st_dev if one_file_system else None
        self._missing_names: set[bytes] = set()
        self._links: set[bytes] = set()
        self._removing: set[bytes] = set()
        self._directories: dict[bytes, Change | Literal[True] | None] = {b"": True}
        """True for a directory; None if it is excluded; else what to list instead of anything below it."""

    def check(self, wires: Iterable[bytes]) -> CurrentNames:
        found: dict[bytes, None] = {}
        wanted = set()
        for wire in wires:
            change = self._current(from_wire(0, wire))
            if change is not None:
                found.setdefault(change.wire)
                if change.wire == wire:
                    wanted.add(wire)
        if self._big_size < math.inf:
            for wire in [wire for wire in found if wire.endswith(b"/")]:
                self._find_big(wire)
        result = CurrentNames(big=[wire for wire in self._big if not too_long(wire)])
        for wire in found:
            if wire not in self._big:
                (result.unsendable if too_long(wire) else result.send).append(wire)
        result.missing = self._missing_names.intersection(result.send)
        result.links = self._links.intersection(result.send)
        result.removing = self._removing.intersection(result.send) - wanted
        return result

    def _current(self, change: Change) -> Change | None:
        if not change.path:
            return change
        # Some names come from what rsync prints, and a node can have anything printed.
        if not is_below_root(change.path):
            return None
        parent = self._directory(change.path.rpartition(b"/")[0])
        if parent is not True:
            return parent
        found = self._entry(change.path)
        return change if found is True else found

    def _directory(self, path: bytes) -> Change | Literal[True] | None:
        if path not in self._directories:
            slash = path.find(b"/")
            while slash != -1:  # from the top, without recursion: there may be a thousand levels
                self._check_directory(path[:slash])
                slash = path.find(b"/", slash + 1)
            self._check_directory(path)
        return self._directories[path]

    def _check_directory(self, path: bytes) -> None:
        """Its parent has been checked."""
        if path not in self._directories:
            parent = self._directories[path.rpartition(b"/")[0]]
            self._directories[path] = self._entry(path) if parent is True else parent

    def _entry(self, path: bytes) -> Change | Literal[True] | None:
        """What an entry of a directory is; see ``_directories``."""
        is_directory, may_be_listed = self._is_directory(path)
        if is_directory is None:
            return self._missing(path)
        if self._excluded(path, is_directory):
            self._big.pop(path, None)
            # What is excluded as a directory may have been mirrored as a file, which is gone now.
            return None if self._excluded(path, not is_directory) else self._relist_parent(path)
        return may_be_listed or Change(0, path, Kind.NAME)

    def _missing(self, path: bytes) -> Change | None:
        as_file, as_directory = self._excluded(path, False), self._excluded(path, True)
        if as_file and as_directory:
            return None
        if as_file or as_directory or not self._list_missing:
            # What the node has there decides, and rsync asks it when it relists.
            return self._relist_parent(path)
        self._missing_names.add(path)
        return Change(0, path, Kind.NAME)

    def _is_directory(self, path: bytes) -> tuple[bool | None, bool]:
        """Whether it is one (None: it is missing), and whether it may be looked into.

        No component on the way is a symlink: each was checked before.
        """
        try:
            status = os.lstat(path, dir_fd=self._source)
        except (FileNotFoundError, NotADirectoryError):
            return None, False
        except OSError:
            return False, False  # too long or not readable: rsync will say what is wrong with it
        if status.st_size > self._big_size and stat.S_ISREG(status.st_mode):
            self._big.setdefault(path)
        if stat.S_ISLNK(status.st_mode):
            self._links.add(path)
        is_directory = stat.S_ISDIR(status.st_mode)
        return is_directory, is_directory and self._device in (None, status.st_dev)

    def _find_big(self, wire: bytes) -> None:
        """Find the big files in a directory that is relisted."""
        above = from_wire(0, wire).path
        with (
            contextlib.suppress(OSError),  # not readable, or gone just now: rsync will say so
            entries.opened_below(self._source, above) as directory,
            os.scandir(directory) as found,
        ):
            for entry in found:
                if not entry.is_file(follow_symlinks=False):
                    continue
                name = os.fsencode(entry.name)
                path = above + b"/" + name if above else name
                size = entry.stat(follow_symlinks=False).st_size
                if size > self._big_size and not self._excluded(path, False):
                    self._big.setdefault(path)

    def _relist_parent(self, path: bytes) -> Change:
        change = Change(0, path.rpartition(b"/")[0], Kind.LIST)
        self._removing.add(change.wire)
        return change


def listing(source: str, wire: bytes, limit: int) -> list[tuple[bytes, bool]]:
    """Return the paths of what is in a directory that is to be relisted, and whether each is a symlink.

    OSError if the directory cannot be read, is none, or has more than ``limit`` entries.
    """
    path = from_wire(0, wire).path
    with (
        entries.opened(source) as root,
        entries.opened_below(root, path) as directory,
        os.scandir(directory) as found,
    ):
        names = [(os.fsencode(each.name), each.is_symlink()) for each in islice(found, limit + 1)]
    if len(names) > limit:
        raise OSError(errno.E2BIG, os.strerror(errno.E2BIG), path)
    return [(path + b"/" + name if path else name, is_link) for name, is_link in names]
