"""Files that no other user can have written, because what is in them is done with our rights."""

from __future__ import annotations

import errno
import os
import shlex
import stat
from collections.abc import Iterator

from inosync.config.errors import Invalid, ValueProblem, invalid

MAX_BYTES = 4 << 20
"""Bytes. A larger file was named by mistake; nothing else happens while it is read."""
_MAX_LINKS = 40
"""As many as the kernel follows (path_resolution(7))."""
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def read(path: str, hint: str) -> tuple[bytes, os.stat_result]:
    """Return the content of a file, and its status from before it was read; Invalid if it is not trusted.

    ``hint`` says what to name instead of a file that cannot be read.
    """
    try:
        # Not blocking, because this may be a FIFO.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise invalid(path, f"cannot be read: {error.strerror}", hint) from None
    except ValueError:
        raise invalid(path, "is not the name of a file") from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            kind = "is a directory" if stat.S_ISDIR(status.st_mode) else "is not a file"
            raise invalid(path, kind, hint)
        if status.st_size > MAX_BYTES:
            raise invalid(path, f"is larger than {MAX_BYTES >> 20} MiB", hint)
        _check_owners(path, status)
        with open(fd, "rb", closefd=False) as file:
            return file.read(), status
    except OSError as error:
        raise invalid(path, f"cannot be read: {error.strerror}") from None
    finally:
        os.close(fd)


def check(path: str) -> None:
    """Raise Invalid if others can have written a file, or can put another one in its place."""
    try:
        _check_owners(path, os.stat(path))
    except OSError as error:
        raise invalid(path, f"cannot be read: {error.strerror}") from None


def _check_owners(path: str, status: os.stat_result) -> None:
    if problems := [*_writable(path, status), *_writable_way(path)]:
        raise Invalid(*problems)


def _writable_way(path: str) -> Iterator[ValueProblem]:
    """Yield the directories and links on the way that let others replace what comes next.

    In a sticky directory they can do so only if the next entry is theirs (unlink(2), EPERM).
    """
    way = dict(_way(path))
    for place, status in way.items():
        if stat.S_ISDIR(status.st_mode):
            yield from _writable(place, status)
        elif stat.S_ISLNK(status.st_mode) and way[os.path.dirname(place)].st_mode & _OTHERS_WRITE:
            yield from _foreign(place, status)


def _way(path: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield each entry on the way from "/" to a file, links included, with its status."""
    place, links = "/", 0
    yield place, os.lstat(place)
    if not path.startswith("/"):  # an absolute path is found even if the current directory was removed
        path = os.path.join(os.getcwd(), path)
    todo = path.split("/")[::-1]
    while todo:
        match todo.pop():
            case "" | ".":
                continue
            case "..":
                place = os.path.dirname(place)  # it has no links in it
                continue
            case name:
                entry = os.path.join(place, name)
        status = os.lstat(entry)
        yield entry, status
        if not stat.S_ISLNK(status.st_mode):
            place = entry
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = os.readlink(entry)
        place = "/" if target.startswith("/") else place
        todo += target.split("/")[::-1]


def _writable(path: str, status: os.stat_result) -> Iterator[ValueProblem]:
    yield from _foreign(path, status)
    sticky_directory = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if status.st_mode & _OTHERS_WRITE and not sticky_directory:
        yield ValueProblem(path, "is writable by others", f"chmod go-w {shlex.quote(path)}")


def _foreign(path: str, status: os.stat_result) -> Iterator[ValueProblem]:
    if status.st_uid not in (0, os.geteuid()):
        chown = "chown -h" if stat.S_ISLNK(status.st_mode) else "chown"
        yield ValueProblem(path, f"belongs to user {status.st_uid}", f"{chown} root {shlex.quote(path)}")
