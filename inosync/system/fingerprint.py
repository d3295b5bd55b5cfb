"""Whether a file has changed, without reading it: stat(2)."""

from __future__ import annotations

import os

Fingerprint = tuple[int, int, int, int, int]
"""Device, inode, size, mtime and ctime in nanoseconds."""


def of(status: os.stat_result) -> Fingerprint:
    """Return the fingerprint of a file with this status."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def at(path: str) -> Fingerprint | None:
    """Return the fingerprint of the file that a path leads to; None if there is none, or stat(2) fails."""
    try:
        return of(os.stat(path))
    except OSError:
        return None
