"""What is in one directory, as far as somebody wants to know it."""

from __future__ import annotations

import os
from collections.abc import Callable

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NONBLOCK


def open_directory(path: str) -> int:
    """A descriptor of the directory that a path leads to now; OSError if there is none."""
    return os.open(path, _OPEN)


def identity(directory: int) -> tuple[int, int]:
    """Device and inode of an open directory."""
    status = os.fstat(directory)
    return status.st_dev, status.st_ino


def count(directory: int, excluded: Callable[[bytes, bool], bool], most: int) -> int:
    """How many entries of an open directory are not excluded; it is not looked further than to ``most``.

    ``excluded``: (name, is a directory) -> bool. OSError if the directory cannot be read.
    """
    found = 0
    with os.scandir(directory) as entries:
        for entry in entries:
            if not excluded(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)):
                found += 1
                if found >= most:
                    break
    return found
