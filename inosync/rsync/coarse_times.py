"""Finds files that may have changed again without another time, because their file system has coarse times.

ext3, ext4 with inodes of 128 bytes, HFS+ and many NFS servers count whole seconds, vfat two. rsync takes a
file of the same size and time for unchanged. So a file that it may have read within the second of the file's
time is sent once more, a little later, whatever its size and time.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

GRANULARITY_SECONDS = 2.0
"""The coarsest times of a file system."""
SETTLE_SECONDS = GRANULARITY_SECONDS + 0.2
"""After this time a file that changes has another time than before."""
_MAX_SKEW_SECONDS = 60.0
"""A time further in the future was set by hand, and does not count."""
_MERGE_SECONDS = 600.0


class UnnamedReads:
    """When rsync has read files of one tree that it was not named: in full mirrors and relists."""

    def __init__(self) -> None:
        self.began = self.ended = float("-inf")
        """The time since the epoch of the latest ones, and of those shortly before them."""

    def add(self, began: float, ended: float) -> None:
        """Add a run of rsync."""
        if began - self.ended > _MERGE_SECONDS:
            self.began = began
        self.ended = ended


def has_coarse_times(status: os.stat_result) -> bool:
    """Whether a file's status looks as on such a file system. Users can set mtime, but not ctime."""
    return status.st_mtime_ns % 1_000_000_000 == 0 == status.st_ctime_ns % 1_000_000_000


def may_be_outdated(
    status: os.stat_result, began: float, now: float, window: int, unnamed: UnnamedReads | None
) -> bool:
    """Whether rsync may have sent an earlier content of a file that has the same size and time.

    ``began``: when it was given the names; ``window``: its --modify-window; ``unnamed``: earlier reads.
    """
    if not stat.S_ISREG(status.st_mode) or (window < 0 and not has_coarse_times(status)):
        return False
    mtime, margin = status.st_mtime, max(GRANULARITY_SECONDS, window + 1.0)
    was_read = unnamed is not None and unnamed.began - margin <= mtime <= unnamed.ended
    return was_read or began - margin <= mtime <= now + _MAX_SKEW_SECONDS


def outdated_names(
    source: str,
    wires: Iterable[bytes],
    began: float,
    now: float,
    window: int,
    unnamed: UnnamedReads | None,
) -> tuple[bytes, ...]:
    """Return the names (``Change.wire``) of files that are to be sent once more; see ``may_be_outdated``."""
    found = []
    try:
        directory = os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return ()  # the tree is gone, which is a change of its own
    try:
        for wire in wires:
            try:
                status = os.lstat(wire, dir_fd=directory)
            except OSError:
                continue
            if may_be_outdated(status, began, now, window, unnamed):
                found.append(wire)
    finally:
        os.close(directory)
    return tuple(found)
