"""What is in one directory, as far as somebody wants to know it."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from itertools import islice

_STEP = 128  # entries between two pauses

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


def digest(directory: int, excluded: Callable[[bytes, bool], bool], since: int) -> Generator[None, None, int]:
    """A number for an open directory and the entries in it, as they are: another one if any has changed.

    Of directories in it only what they are, not what is in them. Pauses now and then. ``since`` is a time
    shortly before now, in nanoseconds since the epoch: what has changed later might change again without
    another time, so that the number is 0 then, which tells nothing. OSError if it cannot be read.
    """
    own = os.fstat(directory)
    newest = own.st_ctime_ns
    # In any order; no entry comes twice.
    number = hash((own.st_mode, own.st_uid, own.st_gid, own.st_mtime_ns, own.st_ctime_ns))
    with os.scandir(directory) as entries:
        while step := list(islice(entries, _STEP)):
            for entry in step:
                is_directory = entry.is_dir(follow_symlinks=False)
                if excluded(os.fsencode(entry.name), is_directory):
                    continue
                try:
                    s = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    return 0
                if is_directory:
                    number ^= hash((entry.name, s.st_dev, s.st_ino, s.st_mode, s.st_uid, s.st_gid))
                else:
                    number ^= hash((entry.name, s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns))
                    newest = max(newest, s.st_ctime_ns)
            yield
    return number if newest < since else 0
