"""Where file systems are mounted, and where fstab(5) says that they are to be."""

from __future__ import annotations

import os
import re
import select
from collections.abc import Iterator, Mapping

_FSTAB = "/etc/fstab"
_MOUNTED = "/proc/self/mountinfo"
_OCTAL = re.compile(rb"\\([0-3][0-7]{2})")


def expected(path: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a path is a mount point by fstab; where that is, LIBMOUNT_FSTAB may say, as for mount(8).

    A file that cannot be read has none.
    """
    try:
        with open(environ.get("LIBMOUNT_FSTAB") or _FSTAB, "rb") as file:
            text = file.read()
    except OSError:
        return False
    real = os.path.realpath(os.fsencode(path))
    return any(point == real or os.path.realpath(point) == real for point in in_fstab(text))


def mounted(path: str, file: str = _MOUNTED) -> bool:
    """Whether something is mounted at a path. Other than os.path.ismount this sees bind mounts as well."""
    try:
        with open(file, "rb") as table:
            text = table.read()
    except OSError:
        return os.path.ismount(path)
    return os.path.realpath(os.fsencode(path)) in in_mountinfo(text)


class Changes:
    """Tells where something was mounted or unmounted; inotify does not, or of the latter only."""

    def __init__(self, file: str = _MOUNTED) -> None:
        self._poll = select.poll()
        self._fd = -1
        self._known: set[bytes] = set()
        try:
            self._fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return  # without /proc nobody can tell
        # The table is always readable; when it has changed, there is an error as well: proc_pid_mounts(5).
        self._poll.register(self._fd, select.POLLPRI | select.POLLERR)
        self._known = self._table()

    def take(self) -> set[bytes]:
        """If anything has changed since the last call, all mount points that there were and are.

        Which of them it was the table does not tell: what is mounted in the place of something else, at
        once, gets the numbers of that.
        """
        if not self._poll.poll(0):
            return set()
        before, self._known = self._known, self._table()
        return before | self._known

    def descriptors(self) -> list[int]:
        """What a forked child has to close."""
        return [self._fd] if self._fd >= 0 else []

    def close(self) -> None:
        """Tell nothing any more."""
        for fd in self.descriptors():
            self._poll.unregister(fd)
            os.close(fd)
        self._fd = -1

    def _table(self) -> set[bytes]:
        os.lseek(self._fd, 0, os.SEEK_SET)
        return in_mountinfo(b"".join(iter(lambda: os.read(self._fd, 1 << 16), b"")))


def in_fstab(text: bytes) -> Iterator[bytes]:
    """The mount points in the text of a fstab, normalised; swap and the like have none."""
    for line in text.splitlines():
        fields = line.split()
        if len(fields) >= 2 and not fields[0].startswith(b"#") and fields[1].startswith(b"/"):
            yield os.path.normpath(_decoded(fields[1]))


def in_mountinfo(text: bytes) -> set[bytes]:
    """The mount points in the text of a mountinfo: proc_pid_mountinfo(5)."""
    lines = (line.split(b" ") for line in text.split(b"\n"))
    return {_decoded(fields[4]) for fields in lines if len(fields) > 4}


def _decoded(field: bytes) -> bytes:
    """Spaces, tabs, newlines and backslashes are written as three octal digits: getmntent(3)."""
    return _OCTAL.sub(lambda found: bytes([int(found[1], 8)]), field)
