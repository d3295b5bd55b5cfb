"""Notices that the far end of another process's connection has closed.

An rsync that waits for names does not look at its connection: when the node is gone, it lives on until it is
used.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import socket

from inosync.system.libc import LIBC, last_error

_PIDFD_GETFD = 438  # pidfd_getfd(2), since Linux 5.6, on nearly every architecture

_NO_ANSWER = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN)

KEEPALIVE = {socket.TCP_KEEPIDLE: 5, socket.TCP_KEEPINTVL: 2, socket.TCP_KEEPCNT: 3}
"""A connection without traffic is probed after this many seconds, that often, so many times (tcp(7))."""


class Peers:
    """Readable when the far end of one of a process's sockets has closed or stopped answering.

    The far end is a node, over TCP, or a child that talks to the node. ``process`` is a pidfd of a process
    that is connected. ``close`` this before that process is to end its connections, because it keeps them
    open. OSError if the kernel refuses: it is old, or ptrace(2) is restricted.
    """

    def __init__(self, process: int, pid: int) -> None:
        self._sockets: list[socket.socket] = []
        self._epoll = select.epoll()
        try:
            for number in _socket_numbers(pid):
                self._watch(_duplicate(process, number))
            if not self._sockets:
                raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        except OSError:
            self.close()
            raise

    def _watch(self, fd: int) -> None:
        theirs = socket.socket(fileno=fd)
        self._sockets.append(theirs)
        if theirs.family in (socket.AF_INET, socket.AF_INET6):
            # The option belongs to the connection: it works as if rsync had set it.
            for option, value in KEEPALIVE.items():
                theirs.setsockopt(socket.IPPROTO_TCP, option, value)
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # Not EPOLLIN: rsync reads what the node sends, later.
        self._epoll.register(theirs, select.EPOLLRDHUP)

    def fileno(self) -> int:
        return self._epoll.fileno()

    @property
    def error(self) -> str:
        """Why a far end does not answer; empty if it does. Reading it clears it (SO_ERROR, socket(7)).

        A reset counts as an answer: a firewall may end idle connections that way.
        """
        codes = [theirs.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) for theirs in self._sockets]
        return next((os.strerror(code) for code in codes if code in _NO_ANSWER), "")

    @property
    def ended(self) -> bool:
        return bool(self._epoll.poll(0))

    def close(self) -> None:
        self._epoll.close()
        for theirs in self._sockets:
            theirs.close()


def _socket_numbers(pid: int) -> list[int]:
    """List the descriptors of a process that are sockets."""
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
                found.append(int(name))
    return found


def _duplicate(process: int, number: int) -> int:
    fd: int = LIBC.syscall(
        ctypes.c_long(_PIDFD_GETFD), ctypes.c_int(process), ctypes.c_int(number), ctypes.c_uint(0)
    )
    if fd < 0:
        raise last_error()
    return fd
