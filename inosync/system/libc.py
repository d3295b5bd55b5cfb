"""The C library, for system calls that the ``os`` module does not have."""

from __future__ import annotations

import ctypes
import os

LIBC = ctypes.CDLL(None, use_errno=True)


def last_error() -> OSError:
    """The error of this thread's last failed call through ``LIBC`` (errno(3))."""
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code))


def check(result: int) -> None:
    """Raise OSError unless a call returned 0."""
    if result != 0:
        raise last_error()


def prctl(option: int, *values: int) -> None:
    """Call prctl(2), with up to four arguments; OSError if it fails."""
    words = (*values, 0, 0, 0, 0)[:4]
    check(LIBC.prctl(option, *map(ctypes.c_ulong, words)))
