"""A file that nobody else can have written: what is in it is done with our rights."""

from __future__ import annotations

import errno
import os
import shlex
import stat
from collections.abc import Iterator

from inosync.config.errors import Invalid, ValueProblem

MAX_SIZE = 4 << 20
"""Bytes; what is larger was not meant. While it is read, nothing else happens."""
_MOST_LINKS = 40
"""As many as the kernel follows: path_resolution(7)."""
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def read(path: str, right: str) -> tuple[bytes, os.stat_result]:
    """The content of a file, and what fstat(2) said before it was read. Invalid if it cannot be trusted.

    ``right`` says what to name instead of what cannot be read.
    """
    try:
        # Not blocking: this may be a FIFO.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as problem:
        raise Invalid(ValueProblem(path, f"cannot be read: {problem.strerror}", right)) from None
    except ValueError:
        raise Invalid(ValueProblem(path, "is not the name of a file")) from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            wrong = "is a directory" if stat.S_ISDIR(status.st_mode) else "is not a file"
            raise Invalid(ValueProblem(path, wrong, right))
        if status.st_size > MAX_SIZE:
            raise Invalid(ValueProblem(path, f"is larger than {MAX_SIZE >> 20} MiB", right))
        if faults := [*_distrusted(path, status), *_distrusted_way(path)]:
            raise Invalid(*faults)
        with open(fd, "rb", closefd=False) as file:
            return file.read(), status
    except OSError as problem:
        raise Invalid(ValueProblem(path, f"cannot be read: {problem.strerror}")) from None
    finally:
        os.close(fd)


def check(path: str) -> None:
    """Invalid if others can have written a file that is there, or can put another one in its place."""
    try:
        if faults := [*_distrusted(path, os.stat(path)), *_distrusted_way(path)]:
            raise Invalid(*faults)
    except OSError as problem:
        raise Invalid(ValueProblem(path, f"cannot be read: {problem.strerror}")) from None


def _distrusted_way(path: str) -> Iterator[ValueProblem]:
    """Whoever can write to a directory on the way can put something else in place of what comes next.

    In a sticky one they cannot, unless the next one is theirs: unlink(2), EPERM.
    """
    way = dict(_way(path))
    for place, status in way.items():
        if stat.S_ISDIR(status.st_mode):
            yield from _distrusted(place, status)
        elif stat.S_ISLNK(status.st_mode) and way[os.path.dirname(place)].st_mode & _OTHERS_WRITE:
            yield from _foreign(place, status)


def _way(path: str) -> Iterator[tuple[str, os.stat_result]]:
    """All that is passed from "/" to a file, also by way of links, and what lstat(2) says of it."""
    place, links = "/", 0
    yield place, os.lstat(place)
    if not path.startswith("/"):  # or else it does not matter if where we stand was removed
        path = os.path.join(os.getcwd(), path)
    todo = path.split("/")[::-1]
    while todo:
        match todo.pop():
            case "" | ".":
                continue
            case "..":
                place = os.path.dirname(place)  # no link is in it
                continue
            case name:
                entry = os.path.join(place, name)
        status = os.lstat(entry)
        yield entry, status
        if not stat.S_ISLNK(status.st_mode):
            place = entry
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = os.readlink(entry)
        place = "/" if target.startswith("/") else place
        todo += target.split("/")[::-1]


def _distrusted(path: str, status: os.stat_result) -> Iterator[ValueProblem]:
    yield from _foreign(path, status)
    sticky_directory = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if status.st_mode & _OTHERS_WRITE and not sticky_directory:
        yield ValueProblem(path, "is writable by others", f"chmod go-w {shlex.quote(path)}")


def _foreign(path: str, status: os.stat_result) -> Iterator[ValueProblem]:
    if status.st_uid not in (0, os.geteuid()):
        chown = "chown -h" if stat.S_ISLNK(status.st_mode) else "chown"
        yield ValueProblem(path, f"belongs to user {status.st_uid}", f"{chown} root {shlex.quote(path)}")
