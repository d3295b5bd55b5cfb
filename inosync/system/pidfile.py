"""The pid file: a lock that is held for life, and the process that holds it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import socket
import struct

_UCRED = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid
_FLOCK = struct.Struct("hhqqi4x")  # struct flock of fcntl(2) on 64-bit Linux: type, whence, start, len, pid


class Locked(Exception):
    """Another process holds the lock; ``pid`` is 0 if it has ended meanwhile."""

    def __init__(self, path: str, pid: int, content: str) -> None:
        super().__init__(f"{path}: already running with pid {pid}")
        self.path = path
        self.pid = pid
        self.content = content


class PidFile:
    """``path`` with our pid in its first line and ``content`` in its second, locked until ``remove``.

    The lock is of the fcntl kind and belongs to this process alone: workers that outlive a killed master for
    a moment do not keep a new one from starting. A socket name is held as well, because it stays when the
    file is removed with its directory.
    """

    def __init__(self, path: str, content: str) -> None:
        self.path = path
        self.fd = self._lock()
        while not self._still_there():  # it was removed between our open and our lock
            os.close(self.fd)
            self.fd = self._lock()
        try:
            self._name = _hold_name(path, content)
        except Locked:
            self._release()
            raise
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
        """Remove the file, then give up the lock: no other process must lock the removed file."""
        if self._name is not None:
            self._name.close()
        self._release()

    def _release(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # it was removed by hand
            os.unlink(self.path)
        os.close(self.fd)


def _holder(fd: int) -> int:
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    return int(_FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, asked))[4])


def _hold_name(path: str, content: str) -> socket.socket | None:
    """Listen at an abstract address (unix(7)) made of the path and our user; Locked if another process does.

    None if another user has taken the name: then only the lock of the file counts.
    """
    key = f"{os.geteuid()} {os.path.realpath(path)}".encode(errors="surrogateescape")
    address = f"\0inosync/{hashlib.sha256(key).hexdigest()}"
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        made.bind(address)
        made.listen(1)
    except OSError as error:
        made.close()
        if error.errno != errno.EADDRINUSE:
            raise
        pid, uid = _listener(address)
        if uid != os.geteuid():
            return None
        raise Locked(path, pid, content) from None
    # A child that outlives us must not keep the name.
    os.register_at_fork(after_in_child=made.close)
    return made


def _listener(address: str) -> tuple[int, int]:
    """Return pid and uid of the process that listens at an address; (0, -1) if none does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as asking:
        asking.setblocking(False)
        try:
            asking.connect(address)
        except BlockingIOError:  # its backlog is full, because it never accepts
            return 0, os.geteuid()
        except OSError:
            return 0, -1
        pid, uid, _gid = _UCRED.unpack(asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        return pid, uid
