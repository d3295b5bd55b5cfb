"""Finds files that may have changed again without another time, because their file system has coarse times.

ext3, ext4 with inodes of 128 bytes, HFS+ and many NFS servers count whole seconds, vfat two. rsync takes a
file of the same size and time for unchanged. So a file that it may have read within the second of the file's
time is sent once more, a little later, whatever its size and time; and so is one that may have been moved
over another one of the same size and time.
"""

from __future__ import annotations

import contextlib
import math
import os
import stat
from collections.abc import Iterable

from inosync.changes import from_wire
from inosync.system import entries

GRANULARITY_SECONDS = 2.0
"""The coarsest times of a file system."""
SETTLE_SECONDS = GRANULARITY_SECONDS + 0.2
"""After this time a file that changes has another time than before."""
_MAX_SKEW_SECONDS = 60.0
"""A time further in the future was set by hand, and does not count."""
UNKNOWN_SECONDS = 3600.0
"""For so long before its start a worker takes files for read by others of which it knows nothing."""
_MERGE_SECONDS = 600.0


class EarlierReads:
    """When rsync may have read files of one tree, without a record of which.

    It was not named them, in full mirrors and relists, or it did not come through. ``began`` and ``ended``:
    when others may have done that.
    """

    def __init__(self, began: float = math.inf, ended: float = -math.inf) -> None:
        self.began, self.ended = began, ended
        """The time since the epoch of the latest ones, and of those shortly before them."""

    def add(self, began: float, ended: float) -> None:
        if began - self.ended > _MERGE_SECONDS:
            self.began = began
        self.began, self.ended = min(began, self.began), max(ended, self.ended)

    def __bool__(self) -> bool:
        return self.began < self.ended


def has_coarse_times(status: os.stat_result) -> bool:
    """Whether a file's status looks as on such a file system. Users can set mtime, but not ctime."""
    return status.st_mtime_ns % 1_000_000_000 == 0 == status.st_ctime_ns % 1_000_000_000


def may_be_outdated(
    status: os.stat_result,
    began: float,
    now: float,
    window: int,
    earlier: EarlierReads | None = None,
    replaced_since: float = math.inf,
) -> bool:
    """Whether rsync may have sent an earlier content of a file that has the same size and time.

    ``began``: when it was given the names; ``window``: its --modify-window; ``earlier``: other reads;
    ``replaced_since``: since when another file may have had the name.
    """
    if not stat.S_ISREG(status.st_mode) or (window < 0 and not has_coarse_times(status)):
        return False
    mtime, ctime, margin = status.st_mtime, status.st_ctime, max(GRANULARITY_SECONDS, window + 1.0)
    was_read = earlier is not None and earlier.began - margin <= mtime <= earlier.ended
    # A new name changes the ctime alone, as a new mode does.
    was_moved = ctime > mtime + margin and ctime >= replaced_since - margin
    return was_read or was_moved or began - margin <= mtime <= now + _MAX_SKEW_SECONDS


def outdated_names(
    source: str,
    wires: Iterable[bytes],
    began: float,
    now: float,
    window: int,
    earlier: EarlierReads | None,
    replaced_since: float = math.inf,
) -> tuple[bytes, ...]:
    """Return the names (``Change.wire``) of files that are to be sent once more; see ``may_be_outdated``."""
    found: list[bytes] = []
    with contextlib.suppress(OSError), entries.opened(source) as root:  # else it is gone: a change of its own
        for wire in wires:
            with contextlib.suppress(OSError):
                if wire.endswith(b"/"):
                    found += _outdated_in(root, wire, window, earlier) if earlier else ()
                elif may_be_outdated(
                    os.lstat(wire, dir_fd=root), began, now, window, earlier, replaced_since
                ):
                    found.append(wire)
    return tuple(dict.fromkeys(found))


def _outdated_in(root: int, wire: bytes, window: int, earlier: EarlierReads) -> list[bytes]:
    """Return those among the entries of a directory that was relisted. OSError if it cannot be read."""
    with entries.opened_below(root, from_wire(0, wire).path) as directory:
        found = _outdated_among(directory, None, window, earlier)
        return [wire.removeprefix(b"./") + name for name in found]


def outdated_below(source: str, window: int, earlier: EarlierReads) -> tuple[bytes, ...]:
    """Return the names of files in a tree that a full mirror may have left for the same reason."""
    found: list[bytes] = []
    top = os.fsencode(source.rstrip("/"))
    with contextlib.suppress(OSError):  # the tree is gone, which is a change of its own
        if window < 0 and not has_coarse_times(os.stat(top)):
            return ()  # spare the walk
        for place, _, names, handle in os.fwalk(top):
            at = place[len(top) + 1 :]
            found += [os.path.join(at, name) for name in _outdated_among(handle, names, window, earlier)]
    return tuple(found)


def _outdated_among(
    directory: int, names: Iterable[bytes] | None, window: int, earlier: EarlierReads
) -> Iterable[bytes]:
    """Yield those among these entries of a directory, or among all."""
    if window < 0 and not has_coarse_times(os.fstat(directory)):
        return  # nothing in it needs to be looked at
    for name in map(os.fsencode, os.listdir(directory)) if names is None else names:
        with contextlib.suppress(OSError):  # it is gone
            status = os.lstat(name, dir_fd=directory)
            if may_be_outdated(status, math.inf, -math.inf, window, earlier, earlier.began):
                yield name
