"""What tells one state of a file from another without reading it: stat(2)."""

from __future__ import annotations

import os

Fingerprint = tuple[int, int, int, int, int]
"""Device, inode, size, and the times of the last change of content and of anything."""


def of(status: os.stat_result) -> Fingerprint:
    """That of a file with this status."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def at(path: str) -> Fingerprint | None:
    """That of the file that a path leads to now; None if there is none, or it cannot be told."""
    try:
        return of(os.stat(path))
    except OSError:
        return None
