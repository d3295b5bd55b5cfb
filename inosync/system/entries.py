"""Questions about one open directory: which one it is, whether it holds anything, whether it has changed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Iterator
from itertools import islice

_ENTRIES_PER_STEP = 128

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NONBLOCK
_PASS = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
"""To reach what is in a directory, without the right to list it."""


def open_directory(path: str) -> int:
    """Open the directory that a path leads to; return the descriptor. OSError if there is none."""
    return os.open(path, _OPEN)


@contextlib.contextmanager
def opened(path: str) -> Iterator[int]:
    """Hold the directory that a path leads to open, to reach what is in it. OSError if there is none."""
    directory = os.open(path, _PASS)
    try:
        yield directory
    finally:
        os.close(directory)


@contextlib.contextmanager
def opened_below(root: int, path: bytes) -> Iterator[int]:
    """Hold a directory below an open one open, to list it; no symlink is followed.

    OSError if there is none, or it cannot be listed.
    """
    *above, last = path.split(b"/") if path else [b"."]
    directory = os.dup(root)
    try:
        for name in above:
            outer = directory
            try:
                directory = os.open(name, _OPEN | os.O_NOFOLLOW, dir_fd=outer)
            except PermissionError:  # it cannot be listed, but perhaps passed; O_PATH triggers no automount
                directory = os.open(name, _PASS | os.O_NOFOLLOW, dir_fd=outer)
            os.close(outer)
        outer = directory
        directory = os.open(last, _OPEN | os.O_NOFOLLOW, dir_fd=outer)
        os.close(outer)
        yield directory
    finally:
        os.close(directory)


def real_path(path: str) -> str:
    """Return where a directory is, without symlinks; as ``os.path.realpath``, at a tenth of its cost."""
    try:
        with opened(path) as directory:
            return os.readlink(f"/proc/self/fd/{directory}")
    except OSError:
        return os.path.realpath(path)


def identity(directory: int | str) -> tuple[int, int]:
    """Device and inode of a directory that is open, or to which a path leads; OSError if it is not there."""
    status = os.stat(directory)
    return status.st_dev, status.st_ino


def count(directory: int, excluded: Callable[[bytes, bool], bool], most: int) -> int:
    """Count the entries of an open directory that are not excluded; stop at ``most``.

    ``excluded`` takes a name and whether it is a directory. OSError if the directory cannot be read.
    """
    found = 0
    with os.scandir(directory) as entries:
        for entry in entries:
            if not excluded(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)):
                found += 1
                if found >= most:
                    break
    return found


def count_below(path: str, excluded: Callable[[bytes, bool], bool], most: int) -> int:
    """Count the entries below a directory that are not excluded; stop at ``most``.

    Symlinks below it are not followed, and what cannot be read counts as empty. ``excluded`` takes a path
    from the directory on, and whether it is a directory.
    """
    found, root = 0, os.fsencode(real_path(path))
    with contextlib.suppress(OSError):
        for place, directories, files, _ in os.fwalk(root, follow_symlinks=False):
            above = os.path.relpath(place, root) + b"/" if place != root else b""
            directories[:] = [name for name in directories if not excluded(above + name, True)]
            found += len(directories) + sum(not excluded(above + name, False) for name in files)
            if found >= most:
                break
    return found


def digest(directory: int, excluded: Callable[[bytes, bool], bool], since: int) -> Generator[None, None, int]:
    """Compute a number that differs once an open directory, or an entry in it, has changed.

    Directories in it count by their own attributes, not by what they hold. It yields every few entries.

    ``since`` is a time shortly before now, in nanoseconds since the epoch. What has changed after it may
    change again within the granularity of the file system's clock; then the result is 0, "unknown". OSError
    if the directory cannot be read.
    """
    own = os.fstat(directory)
    newest = own.st_ctime_ns
    # XOR, because entries come in any order, each once.
    number = hash((own.st_mode, own.st_uid, own.st_gid, own.st_mtime_ns, own.st_ctime_ns))
    with os.scandir(directory) as entries:
        while step := list(islice(entries, _ENTRIES_PER_STEP)):
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
