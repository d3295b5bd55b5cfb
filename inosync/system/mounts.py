"""Mount points: those of now, those that fstab(5) wants, and when they change."""

from __future__ import annotations

import os
import re
import select
from collections.abc import Iterator, Mapping

_FSTAB = "/etc/fstab"
_MOUNTED = "/proc/self/mountinfo"
_REMOTE = re.compile(rb"nfs|cifs|smb|9p|ceph|fuse|afs|lustre|gfs2|gpfs|ocfs2|virtiofs|autofs")
"""Types of file systems that ask another machine, or another process."""
_CACHING = re.compile(rb"nfs|cifs|smb3")
_OCTAL = re.compile(rb"\\([0-3][0-7]{2})")


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


def mounted(path: str, file: str = _MOUNTED) -> bool:
    """Whether something is mounted at a path, bind mounts included, which os.path.ismount cannot see."""
    try:
        with open(file, "rb") as table:
            text = table.read()
    except OSError:
        return os.path.ismount(path)
    return os.path.realpath(os.fsencode(path)) in in_mountinfo(text)


def is_remote(path: str, file: str = _MOUNTED) -> bool:
    """Whether a path is on a file system that may stop answering, as far as the table of mounts tells."""
    return _REMOTE.match(_mount_of(path, file)[0]) is not None


def shows_changes_late(path: str, file: str = _MOUNTED) -> bool:
    """Whether a path is on a file system that shows for a while what another machine has changed since.

    With its default options NFS does so for up to a minute, and SMB for a second: nfs(5), mount.cifs(8).
    """
    kind, options = _mount_of(path, file)
    if not _CACHING.match(kind):
        return False
    return not ({b"noac", b"actimeo=0"} & options or {b"acregmax=0", b"acdirmax=0"} <= options)


def _mount_of(path: str, file: str) -> tuple[bytes, frozenset[bytes]]:
    """Return the type of the file system that a path is on, and its options; empty if that is not known."""
    try:
        with open(file, "rb") as table:
            lines = [line.partition(b" - ") for line in table.read().split(b"\n")]
    except OSError:
        return b"", frozenset()
    above = os.fsencode(path).rstrip(b"/") + b"/"
    # Where several are mounted, the last is what is seen.
    found = {decoded(words.split(b" ")[4]): about.split(b" ") for words, _, about in lines if about}
    points = [point for point in found if above.startswith(point.rstrip(b"/") + b"/")]
    if not points:
        return b"", frozenset()
    kind, *_, options = found[max(points, key=len)]
    return kind, frozenset(options.split(b","))


def mount_id(fd: int) -> int:
    """Return the number of the mount through which a file was opened; -1 if that cannot be known."""
    try:
        with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
            return int(file.read().split(b"mnt_id:")[1].split()[0])
    except (OSError, IndexError, ValueError):
        return -1


class Changes:
    """Notices mounts and unmounts. inotify reports no mounts."""

    def __init__(self, file: str = _MOUNTED) -> None:
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
        return in_mountinfo(b"".join(iter(lambda: os.read(self._fd, 1 << 16), b"")))


def in_fstab(text: bytes) -> Iterator[bytes]:
    """Yield the mount points in the text of an fstab, normalised; swap has none."""
    for line in text.splitlines():
        fields = line.split()
        if len(fields) >= 2 and not fields[0].startswith(b"#") and fields[1].startswith(b"/"):
            yield os.path.normpath(decoded(fields[1]))


def in_mountinfo(text: bytes) -> set[bytes]:
    """Return the mount points in the text of a mountinfo: proc_pid_mountinfo(5)."""
    lines = (line.split(b" ") for line in text.split(b"\n"))
    return {decoded(fields[4]) for fields in lines if len(fields) > 4}


def decoded(field: bytes) -> bytes:
    """Undo getmntent(3)'s octal escapes of space, tab, newline and backslash."""
    return _OCTAL.sub(lambda found: bytes([int(found[1], 8)]), field)
