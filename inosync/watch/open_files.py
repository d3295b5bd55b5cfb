"""Files that are being written: waiting for the close, and noticing when none will come."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from inosync.watch.tree import Name

CLOSE_WAIT_SECONDS = 1.0
"""How long a new or modified file waits for the IN_CLOSE_WRITE of its writer. truncate(2), mknod(2), and
open(2) with O_CREAT for reading only, never send one."""
MAX_OPEN_FILES = 10_000
"""How many files may wait at once."""


class OpenFiles:
    """Files whose writers are expected to close them. Times in seconds, by the caller's clock."""

    def __init__(self) -> None:
        self._until: dict[Name, float] = {}
        """Until when each waits, in the order of the times, because the wait is always the same."""
        self._new: set[Name] = set()
        """Those of them that were created, and not reported since."""

    def __contains__(self, name: Name) -> bool:
        return name in self._until

    def __iter__(self) -> Iterator[Name]:
        return iter(self._until)

    def expect_close(self, name: Name, now: float, is_new: bool = False) -> bool:
        """Wait for a close from now on; False if too many files wait already."""
        if len(self._until) >= MAX_OPEN_FILES and name not in self._until:
            return False
        self._until.setdefault(name, now + CLOSE_WAIT_SECONDS)
        if is_new:
            self._new.add(name)
        return True

    def is_new(self, name: Name) -> bool:
        """Whether a file whose close is waited for was created, and not reported since."""
        return name in self._new

    def stop_waiting(self, name: Name) -> bool:
        """Wait for a close no longer; whether it was waited for."""
        self._new.discard(name)
        return bool(self._until) and self._until.pop(name, None) is not None

    def deadline(self) -> float:
        """When the first of them has waited long enough."""
        return next(iter(self._until.values()), float("inf"))

    def take_overdue(self, now: float) -> list[tuple[Name, bool]]:
        """Those that have waited long enough, and whether they are new; they are not waited for any more."""
        overdue = []
        for name, until in self._until.items():
            if until > now:
                break
            overdue.append((name, name in self._new))
        for name, _ in overdue:
            self.stop_waiting(name)
        return overdue


def is_being_written(directory: int, name: bytes) -> bool:
    """Whether a file is open for writing, so that its close will follow. ``directory`` is a descriptor.

    The kernel grants a read lease only on a file without writers (fcntl(2), F_SETLEASE). It is given back
    at once. A process that breaks it in between makes the kernel send SIGIO, which must be ignored.
    False also where it cannot be known: files of other users, and file systems without leases.
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
