"""The pid file: a lock held for life, and who has it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct

_FLOCK = struct.Struct("hhqqi4x")  # struct flock of fcntl(2) on 64-bit Linux: type, whence, start, len, pid


class Locked(Exception):
    """Another process has the lock; ``pid`` is 0 if it ended while we asked."""

    def __init__(self, path: str, pid: int, content: str) -> None:
        super().__init__(f"{path}: already running with pid {pid}")
        self.path = path
        self.pid = pid
        self.content = content


class PidFile:
    """``path`` with our pid in its first line and ``content`` in its second, locked until ``remove``.

    The lock is of the fcntl kind: it belongs to this process alone, so that workers which outlive a killed
    master for a moment do not keep a new one from starting.
    """

    def __init__(self, path: str, content: str) -> None:
        self.path = path
        self.fd = self._lock()
        while not self._still_there():  # somebody removed it between our open and our lock
            os.close(self.fd)
            self.fd = self._lock()
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, f"{os.getpid()}\n{content}\n".encode(errors="surrogateescape"), 0)

    def _lock(self) -> int:
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, fcntl(2) leaves the choice
            held = os.pread(fd, 4096, 0).decode(errors="replace").split("\n")
            locked = Locked(self.path, _holder(fd), held[1] if len(held) > 1 else "")
            os.close(fd)
            raise locked from None
        except OSError:
            os.close(fd)
            raise
        return fd

    def _still_there(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self.fd), os.stat(self.path, follow_symlinks=False))
        except FileNotFoundError:
            return False

    def remove(self) -> None:
        """Remove the file, then give up the lock, in this order: nobody else can have it in between."""
        with contextlib.suppress(FileNotFoundError):  # somebody has cleaned up too much
            os.unlink(self.path)
        os.close(self.fd)


def _holder(fd: int) -> int:
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    return int(_FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, asked))[4])
