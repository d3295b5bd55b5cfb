"""The kernel's inotify: one instance, its watches, and the bytes it sends, decoded.

pyinotify is the binding and nothing more: constants, ``INotifyWrapper`` and errno. Its Notifier dies on
the first name that is not UTF-8, so reading and decoding are done here, on bytes. Its call to add a watch
takes text only, and twice the time of the same call without it. See inotify(7).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import struct
from typing import NamedTuple

import pyinotify

from inosync.system.libc import LIBC

# Importing pyinotify gives its logger a handler on stderr; a daemon's stderr is not pyinotify's.
for _handler in list(logging.getLogger("pyinotify").handlers):
    logging.getLogger("pyinotify").removeHandler(_handler)

EVENTS: dict[str, int] = {
    name: value for name, value in pyinotify.EventsCodes.ALL_FLAGS.items() if name.startswith("IN_")
}
"""The masks by name, as inotify(7) has them."""

IN_MODIFY: int = pyinotify.IN_MODIFY
IN_ATTRIB: int = pyinotify.IN_ATTRIB
IN_CLOSE_WRITE: int = pyinotify.IN_CLOSE_WRITE
IN_MOVED_FROM: int = pyinotify.IN_MOVED_FROM
IN_MOVED_TO: int = pyinotify.IN_MOVED_TO
IN_CREATE: int = pyinotify.IN_CREATE
IN_DELETE: int = pyinotify.IN_DELETE
IN_DELETE_SELF: int = pyinotify.IN_DELETE_SELF
IN_MOVE_SELF: int = pyinotify.IN_MOVE_SELF
IN_UNMOUNT: int = pyinotify.IN_UNMOUNT
IN_Q_OVERFLOW: int = pyinotify.IN_Q_OVERFLOW
IN_IGNORED: int = pyinotify.IN_IGNORED
IN_ONLYDIR: int = pyinotify.IN_ONLYDIR
IN_ISDIR: int = pyinotify.IN_ISDIR
IN_DONT_FOLLOW: int = pyinotify.IN_DONT_FOLLOW
IN_EXCL_UNLINK: int = 0x04000000  # pyinotify 0.9.6 does not have it

_HEADER = struct.Struct("=iIII")
_READ_BYTES = 1 << 18  # a full default queue (16,384 events) is about twice this


class Event(NamedTuple):
    """One event: the watch it is for, what happened, the cookie that pairs a move, and the entry's name."""

    wd: int
    mask: int
    cookie: int
    name: bytes
    """``b""`` when the event is about the watched directory itself."""


class InotifyError(OSError):
    """An inotify call failed; ``errno`` and the text say why, inotify_add_watch(2) lists the reasons."""


def raise_limit(what: str, needed: int = 0, limits: str = "/proc/sys") -> str:
    """Return the command that raises a user's limit to twice what is needed, or twice what it is.

    ``what``: "watches" or "instances". In a user namespace (namespaces(7)) there are two limits, and the
    lower one counts; elsewhere they are the same.
    """
    found = []
    for name in (f"fs.inotify.max_user_{what}", f"user.max_inotify_{what}"):
        with contextlib.suppress(OSError, ValueError), open(f"{limits}/{name.replace('.', '/')}") as file:
            found.append((int(file.read()), name))
    limit, name = min(found, key=lambda each: each[0], default=(0, f"fs.inotify.max_user_{what}"))
    return f"sysctl {name}={1 << (2 * max(limit, needed, 64) - 1).bit_length()}"


def decode(data: bytes) -> list[Event]:
    """Return the events in what ``read`` returned, in the kernel's order. Pure."""
    events = []
    unpack, size, end, at = _HEADER.unpack_from, _HEADER.size, len(data), 0
    make = Event._make
    while at < end:
        wd, mask, cookie, length = unpack(data, at)
        at += size
        # The kernel pads names with NULs to a multiple of the header's size.
        name = data[at : at + length].rstrip(b"\0") if length else b""
        at += length
        events.append(make((wd, mask, cookie, name)))
    return events


class Inotify:
    """An inotify instance. Its descriptor is non-blocking and closed on exec."""

    def __init__(self) -> None:
        self._calls = pyinotify.INotifyWrapper.create()
        if self._calls is None:
            raise InotifyError(errno.ENOSYS, "no binding to inotify: neither ctypes nor inotify_syscalls")
        self.fd: int = self._calls.inotify_init()
        if self.fd < 0:
            error = self._error()
            if error.errno == errno.EMFILE:
                raise InotifyError(error.errno, f"no inotify instance left: {raise_limit('instances')}")
            raise error
        os.set_inheritable(self.fd, False)
        os.set_blocking(self.fd, False)
        self._add = LIBC.inotify_add_watch

    def add(self, directory: int, mask: int) -> int:
        """Watch an open directory, given by its descriptor; return the watch descriptor.

        The same directory gives the same watch descriptor again. Going through /proc/self/fd keeps the
        path short whatever the directory is called, and no symlink can slip in between.
        """
        wd: int = self._add(self.fd, b"/proc/self/fd/%d" % directory, mask)
        if wd < 0:
            raise self._error()
        return wd

    def add_near(self, name: bytes, mask: int) -> int:
        """Watch the directory of that name in the current one; return the watch descriptor, -1 if it fails.

        No symlink is followed. It takes a third of the time of opening the directory and ``add``.
        """
        wd: int = self._add(self.fd, name, mask | IN_DONT_FOLLOW | IN_ONLYDIR)
        return wd

    def remove(self, wd: int) -> None:
        """End a watch. One that has already ended with its directory is no error."""
        if self._calls.inotify_rm_watch(self.fd, wd) < 0 and self._calls.get_errno() != errno.EINVAL:
            raise self._error()

    def read(self) -> bytes:
        """Return what the kernel has queued, up to a few thousand events; ``b""`` if there is nothing."""
        try:
            return os.read(self.fd, _READ_BYTES)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _error(self) -> InotifyError:
        code = self._calls.get_errno()
        return InotifyError(code, os.strerror(code))
