"""Files that are being written: waiting for the close, and noticing when none will come."""

from __future__ import annotations

import contextlib
import fcntl
import os

from inosync.watch.tree import Directory

CLOSE_WAIT = 1.0
"""Seconds that a new or modified file waits for the IN_CLOSE_WRITE of its writer. truncate(2), mknod(2), and
open(2) with O_CREAT for reading only, never send one."""
MAX_OPEN = 10_000
"""Files that may wait at once."""

Key = tuple[Directory, bytes]  # a directory and a name in it


class OpenFiles:
    """Files whose writers are expected to close them. Times in seconds, by the caller's clock."""

    def __init__(self) -> None:
        self._until: dict[Key, float] = {}  # in the order of their times, since the wait is always the same

    def __contains__(self, key: Key) -> bool:
        """Whether the close of a file is waited for."""
        return key in self._until

    def expect(self, directory: Directory, name: bytes, now: float) -> bool:
        """Wait for a close from now on; False if too many files wait already."""
        if len(self._until) >= MAX_OPEN and (directory, name) not in self._until:
            return False
        self._until.setdefault((directory, name), now + CLOSE_WAIT)
        return True

    def forget(self, directory: Directory, name: bytes) -> bool:
        """It was closed, or is gone; whether it was waited for."""
        return bool(self._until) and self._until.pop((directory, name), None) is not None

    def deadline(self) -> float:
        """When the first of them has waited long enough."""
        return next(iter(self._until.values()), float("inf"))

    def overdue(self, now: float) -> list[Key]:
        """Those that have waited long enough; they are forgotten."""
        found = []
        for key, until in self._until.items():
            if until > now:
                break
            found.append(key)
        for key in found:
            del self._until[key]
        return found


def is_being_written(directory: int, name: bytes) -> bool:
    """Whether somebody has a file open for writing, who will then close it. ``directory`` is a descriptor.

    The kernel grants a read lease only on a file without writers (fcntl(2), F_SETLEASE); it is given back
    at once. Whoever breaks it in between makes the kernel send SIGIO, which the process has to ignore.
    False also for what cannot be told: files of others, and file systems without leases.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with contextlib.suppress(OSError):
        fd = os.open(name, flags, dir_fd=directory)
        try:
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
    return False
