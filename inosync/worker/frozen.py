"""Copies of what a batch switches to, made when it begins.

Until its turn comes, the next release may be published. Sent as it is then, a link would lead to what is not
on the node yet; a copy leads to what the batch has sent before.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from inosync.rsync.options import options
from inosync.system import entries
from inosync.worker.lanes import upwards

MAX_FILE_BYTES = 1 << 20
"""A larger file is not copied: it is sent as it is when its turn comes."""
MAX_NAMES = 1_000
"""Links and files that are copied for a batch."""
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
# What a copy would not have, or not in the same way.
_NEEDS_ORIGINAL_TEXT = """
    -A --acls -X --xattrs --fake-super -H --hard-links -L --copy-links -k --copy-dirlinks --copy-unsafe-links
    -U --atimes -N --crtimes
"""
_NEEDS_ORIGINAL = frozenset(_NEEDS_ORIGINAL_TEXT.split())


def can_freeze(extra: Iterable[str]) -> bool:
    """Return whether a copy of links and files is as good as the original with these options."""
    return not any(option in _NEEDS_ORIGINAL for option, _ in options(extra))


def newer(source: str, names: Iterable[bytes], complete_at: int, now: int) -> set[bytes]:
    """Return the names that are gone, or have changed after the changes of a batch, as their times tell.

    ``complete_at``: up to when the batch has all changes; both in nanoseconds since the epoch. A time to come
    is of another clock, or of one that was set back, and tells nothing.
    """
    found = set()
    with entries.opened(source) as root:
        for name in names:
            try:
                if complete_at <= os.lstat(name, dir_fd=root).st_ctime_ns <= now:
                    found.add(name)
            except (FileNotFoundError, NotADirectoryError):
                found.add(name)
            except OSError:  # rsync cannot see it, either
                pass
    return found


def gone(source: str, names: Iterable[bytes]) -> set[bytes]:
    """Return the names that are gone. OSError if the tree is not there."""
    return newer(source, names, complete_at=sys.maxsize, now=0)


def any_larger(source: str, names: Iterable[bytes], size: int) -> bool:
    """Return whether one of these has more bytes than that; 0: none has. OSError if the tree is not there."""
    with entries.opened(source) as root:
        for name in names if size else ():
            with contextlib.suppress(OSError):
                if os.lstat(name, dir_fd=root).st_size > size:
                    return True
    return False


@dataclass(frozen=True, slots=True)
class Basis:
    """What has to be there still when a batch switches to it: else it was not sent, or not all of it."""

    names: tuple[bytes, ...]
    """What the batch sends before."""
    directories: Mapping[bytes, tuple[int, int]]
    """Inode and time of the last change of the directories that links lead to, or that are below."""


def _target_of(root: int, link: bytes) -> bytes:
    """Return the path that a link leads to, relative to the root if it is below. OSError if it is no link."""
    return os.path.normpath(os.path.join(os.path.dirname(link), os.readlink(link, dir_fd=root)))


def targets(source: str, names: Iterable[bytes]) -> dict[bytes, bytes | None]:
    """Return what each name leads to; None for what is no link. OSError if the tree is not there."""
    found: dict[bytes, bytes | None] = dict.fromkeys(names)
    with entries.opened(source) as root:
        for name in found:
            with contextlib.suppress(OSError):
                found[name] = _target_of(root, name)
    return found


def basis(source: str, links: Iterable[bytes], names: Sequence[bytes]) -> Basis:
    """Return what links, and whatever else a batch switches to, are thought to lead to."""
    directories = {}
    led_to = {target for target in targets(source, links).values() if target is not None}
    below = tuple(target + b"/" for target in led_to)
    listed = [name[:-1] for name in names if name.endswith(b"/") and name.startswith(below)]
    with entries.opened(source) as root:
        for path in [*led_to, *listed] if led_to else []:
            with contextlib.suppress(OSError):
                status = os.lstat(path, dir_fd=root)
                if stat.S_ISDIR(status.st_mode):
                    directories[path] = status.st_ino, status.st_ctime_ns
    return Basis(tuple(names), directories)


def holds(source: str, basis: Basis) -> bool:
    """Return whether all of it is still there. OSError if the tree is not."""
    with entries.opened(source) as root:
        try:
            for path, before in basis.directories.items():
                status = os.lstat(path, dir_fd=root)
                if (status.st_ino, status.st_ctime_ns) != before:
                    return False
            for name in basis.names:
                os.lstat(name.rstrip(b"/"), dir_fd=root)
        except (FileNotFoundError, NotADirectoryError):
            return False
    return True


class Frozen:
    """A directory with copies of links and files of a tree, with the directories that they are in."""

    def __init__(self, source: str, place: str, names: Sequence[bytes]) -> None:
        """Copy what can be copied exactly. OSError if there is no room."""
        self.place = place
        self.names: set[bytes] = set()
        """What was copied."""
        self._parents: dict[bytes, os.stat_result] = {}
        """The directories that were made."""
        os.mkdir(place, 0o700)
        try:
            with entries.opened(source) as root:
                for name in names[:MAX_NAMES]:
                    # A comment for rsync, and as ./NAME it would send the root of the copies as well.
                    if name.startswith((b"#", b";")):
                        continue
                    with contextlib.suppress(OSError):  # it is gone, not readable, or of another owner
                        self._copy(root, name)
            for path, status in reversed(self._parents.items()):
                _give(self._path(path), status)
        except OSError:
            self.remove()
            raise

    def remove(self) -> None:
        for path in self._parents:
            with contextlib.suppress(OSError):
                os.chmod(self._path(path), 0o700)
        shutil.rmtree(self.place, ignore_errors=True)

    def _path(self, name: bytes) -> bytes:
        return os.fsencode(self.place) + b"/" + name

    def _copy(self, root: int, name: bytes) -> None:
        above, _, last = name.rpartition(b"/")
        for path in [*upwards(above)][-2::-1]:
            if path not in self._parents:
                with entries.opened_below(root, path) as directory:
                    self._make(path, os.fstat(directory))
        copy = self._path(name)
        with entries.opened_below(root, above) as directory:
            status = os.lstat(last, dir_fd=directory)
            try:
                if stat.S_ISLNK(status.st_mode):
                    os.symlink(os.readlink(last, dir_fd=directory), copy)
                    is_same = os.lstat(last, dir_fd=directory).st_ctime_ns == status.st_ctime_ns
                else:
                    is_same = _copy_file(last, directory, copy, status)
                if is_same:
                    _give(copy, status)
                    self.names.add(name)
                    return
            except OSError:
                pass
            with contextlib.suppress(OSError):
                os.unlink(copy)

    def _make(self, path: bytes, status: os.stat_result) -> None:
        is_own = (status.st_uid, status.st_gid) == (os.geteuid(), os.getegid())
        if os.geteuid() and not (is_own and status.st_mode & stat.S_IRWXU == stat.S_IRWXU):
            raise PermissionError("the copy would have another owner, or could not be removed")
        os.mkdir(self._path(path), 0o700)
        self._parents[path] = status


def _copy_file(name: bytes, directory: int, copy: bytes, status: os.stat_result) -> bool:
    """Copy a small regular file; return whether it is one, and has not changed."""
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE_BYTES:
        return False
    fd = os.open(name, _FILE, dir_fd=directory)
    with open(fd, "rb") as original, open(copy, "xb") as file:
        file.write(original.read(MAX_FILE_BYTES + 1))
        now = os.fstat(fd)
    return (now.st_ino, now.st_ctime_ns, now.st_size) == (status.st_ino, status.st_ctime_ns, status.st_size)


def _give(path: bytes, status: os.stat_result) -> None:
    """Give a copy the owner, mode and time of the original. OSError if that is not possible."""
    own = os.lstat(path)
    if (own.st_uid, own.st_gid) != (status.st_uid, status.st_gid):
        os.chown(path, status.st_uid, status.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(path, stat.S_IMODE(status.st_mode))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)
