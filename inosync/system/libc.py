"""The C library, for system calls that the ``os`` module does not have."""

from __future__ import annotations

import ctypes
import os

LIBC = ctypes.CDLL(None, use_errno=True)

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
_TRIM_BYTES = 1 << 17
_MMAP_BYTES = 5 << 16
"""Larger blocks are mapped one by one. One for reading events (256 KiB) is not, because it comes often."""


def give_back_memory() -> None:
    """Have malloc give memory back when a large list is freed, in this process and those that it forks.

    Without this, the first large block that is freed raises both limits to up to its size, for good: after a
    batch of 20,000 names each worker keeps 2 MB more. Only glibc has this; other libraries do without.
    """
    mallopt = getattr(LIBC, "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)


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
