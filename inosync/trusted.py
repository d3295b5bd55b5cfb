"""A file that nobody else can have written: what is in it is done with our rights."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator

from inosync.policy.mistakes import Fault, Invalid

MAX_SIZE = 4 << 20
"""Bytes; what is larger was not meant. While it is read, nothing else happens."""


def read(path: str, right: str) -> tuple[bytes, os.stat_result]:
    """The content of a file, and what fstat(2) said before it was read. Invalid if it cannot be trusted.

    ``right`` says what to name instead of what cannot be read.
    """
    try:
        # Not blocking: this may be a FIFO.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as problem:
        raise Invalid(Fault(path, f"cannot be read: {problem.strerror}", right)) from None
    except ValueError:
        raise Invalid(Fault(path, "is not the name of a file")) from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            wrong = "is a directory" if stat.S_ISDIR(status.st_mode) else "is not a file"
            raise Invalid(Fault(path, wrong, right))
        if status.st_size > MAX_SIZE:
            raise Invalid(Fault(path, f"is larger than {MAX_SIZE >> 20} MiB", right))
        if faults := [*_distrusted(path, status), *_distrusted_directories(path)]:
            raise Invalid(*faults)
        with open(fd, "rb", closefd=False) as file:
            return file.read(), status
    except OSError as problem:
        raise Invalid(Fault(path, f"cannot be read: {problem.strerror}")) from None
    finally:
        os.close(fd)


def _distrusted_directories(path: str) -> Iterator[Fault]:
    # Whoever can write there can put another file, or another link, in place of this one.
    for directory in {os.path.dirname(os.path.abspath(path)), os.path.dirname(os.path.realpath(path))}:
        yield from _distrusted(directory, os.stat(directory))


def _distrusted(path: str, status: os.stat_result) -> Iterator[Fault]:
    if status.st_uid not in (0, os.geteuid()):
        yield Fault(path, f"belongs to user {status.st_uid}", f"chown root {shlex.quote(path)}")
    sticky_directory = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky_directory:
        yield Fault(path, "is writable by others", f"chmod go-w {shlex.quote(path)}")
