"""Mounts: those of now, those that fstab(5) wants, and when they change."""

from __future__ import annotations

import os
import re
import select
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

_FSTAB = "/etc/fstab"
TABLE = "/proc/self/mountinfo"
_REMOTE = re.compile(rb"nfs|cifs|smb|9p|ceph|fuse|afs|lustre|gfs2|gpfs|ocfs2|virtiofs|autofs")
"""Types of file systems that ask another machine, or another process."""
_CACHING = re.compile(rb"nfs|cifs|smb3")
_OCTAL = re.compile(rb"\\([0-3][0-7]{2})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of a mountinfo: proc_pid_mountinfo(5)."""

    number: int
    device: bytes
    root: bytes
    """The directory of the file system that is mounted."""
    point: bytes
    """Where it is mounted."""
    fs_type: bytes
    source: bytes
    """What is mounted, as the file system names it."""
    options: bytes
    """Those of the file system."""


def expected(path: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a path is a mount point by fstab, or by the file that LIBMOUNT_FSTAB names, as for mount(8).

    False if the file cannot be read.
    """
    try:
        with open(environ.get("LIBMOUNT_FSTAB") or _FSTAB, "rb") as file:
            text = file.read()
    except OSError:
        return False
    real = os.path.realpath(os.fsencode(path))
    return any(point == real or os.path.realpath(point) == real for point in in_fstab(text))


def mounted(path: str, file: str = TABLE) -> bool:
    """Whether something is mounted at a path, bind mounts included, which os.path.ismount cannot see."""
    try:
        return os.path.realpath(os.fsencode(path)) in points(table(file))
    except OSError:
        return os.path.ismount(path)


def is_remote(path: str, file: str = TABLE) -> bool:
    """Whether a path is on a file system that may stop answering, as far as the table of mounts tells."""
    mount = _look_up(path, file)
    return mount is not None and _REMOTE.match(mount.fs_type) is not None


def shows_changes_late(path: str, file: str = TABLE) -> bool:
    """Whether a path is on a file system that shows for a while what another machine has changed since.

    With its default options NFS does so for up to a minute, and SMB for a second: nfs(5), mount.cifs(8).
    """
    mount = _look_up(path, file)
    if mount is None or not _CACHING.match(mount.fs_type):
        return False
    options = set(mount.options.split(b","))
    return not ({b"noac", b"actimeo=0"} & options or {b"acregmax=0", b"acdirmax=0"} <= options)


def _look_up(path: str, file: str) -> Mount | None:
    try:
        return mount_of(os.fsencode(path), table(file))
    except OSError:
        return None


def table(file: str = TABLE) -> tuple[Mount, ...]:
    """Return what is mounted. OSError if the table cannot be read."""
    with open(file, "rb") as opened:
        return parse(opened.read())


def mount_of(path: bytes, mounts: Iterable[Mount]) -> Mount | None:
    """Return the mount that a path is on, as far as the table tells: one may hide another."""
    found: Mount | None = None
    for mount in mounts:  # where several are mounted, the last is what is seen
        if is_below(path, mount.point) and (found is None or len(mount.point) >= len(found.point)):
            found = mount
    return found


def is_below(path: bytes, above: bytes) -> bool:
    """Return whether a path is another one, or below it."""
    return path == above or path.startswith(above.rstrip(b"/") + b"/")


def mount_id(fd: int) -> int:
    """Return the number of the mount through which a file was opened; -1 if that cannot be known."""
    try:
        with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
            return int(file.read().split(b"mnt_id:")[1].split()[0])
    except (OSError, IndexError, ValueError):
        return -1


class Changes:
    """Notices mounts and unmounts. inotify reports no mounts."""

    def __init__(self, file: str = TABLE) -> None:
        self._poll = select.poll()
        self._fd = -1
        self.known: set[bytes] = set()
        """The mount points at the last look."""
        try:
            self._fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return  # without /proc there is no way to notice them
        # The table is always readable; a change shows as an error condition: proc_pid_mounts(5).
        self._poll.register(self._fd, select.POLLPRI | select.POLLERR)
        self.known = self._table()

    def take(self, has_changed: bool = False) -> set[bytes]:
        """Return all mount points of before and now if the table has changed since the last call, else none.

        The table does not say which one has changed: a file system that replaces another at once gets its
        numbers. ``has_changed``: the loop has seen that it has, and the kernel says so once.
        """
        if not (has_changed or self._poll.poll(0)):
            return set()
        before, self.known = self.known, self._table()
        return before | self.known

    def descriptors(self) -> list[int]:
        """What a forked child has to close."""
        return [self._fd] if self._fd >= 0 else []

    def close(self) -> None:
        for fd in self.descriptors():
            self._poll.unregister(fd)
            os.close(fd)
        self._fd = -1

    def _table(self) -> set[bytes]:
        os.lseek(self._fd, 0, os.SEEK_SET)
        return points(parse(b"".join(iter(lambda: os.read(self._fd, 1 << 16), b""))))


def in_fstab(text: bytes) -> Iterator[bytes]:
    """Yield the mount points in the text of an fstab, normalised; swap has none."""
    for line in text.splitlines():
        fields = line.split()
        if len(fields) >= 2 and not fields[0].startswith(b"#") and fields[1].startswith(b"/"):
            yield os.path.normpath(decoded(fields[1]))


@lru_cache(maxsize=2)
def parse(text: bytes) -> tuple[Mount, ...]:
    """Return the mounts in the text of a mountinfo, in its order."""
    found = []
    for line in text.split(b"\n"):
        fields, _, rest = line.partition(b" - ")
        words, about = fields.split(b" "), rest.split(b" ")
        if len(words) > 4 and len(about) > 2:
            root, point, source, options = map(decoded, (words[3], words[4], *about[1:3]))
            found.append(Mount(int(words[0]), words[2], root, point, about[0], source, options))
    return tuple(found)


def points(mounts: Iterable[Mount]) -> set[bytes]:
    """Return the mount points."""
    return {mount.point for mount in mounts}


def decoded(field: bytes) -> bytes:
    """Undo getmntent(3)'s octal escapes of space, tab, newline and backslash."""
    return _OCTAL.sub(lambda found: bytes([int(found[1], 8)]), field)
