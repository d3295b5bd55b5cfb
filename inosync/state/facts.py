"""What this machine says of itself: which file systems trees are on, and what the time is."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterable

from inosync.filters.rules import Excluded
from inosync.state.document import RootFacts, to_text
from inosync.state.trust import Moment, TreeFacts
from inosync.system import entries
from inosync.watch import fstype

_RELIABLE = {0xEF53: "ext4", 0x58465342: "xfs", 0x9123683E: "btrfs", 0x01021994: "tmpfs"}
"""File systems on which each change gives a file a new ctime by our clock, and a rename gives one to what is
renamed and to both directories (tried). On NFS, FUSE or overlays the times may be others' or come back."""
_SUBVOLUMES = ("btrfs",)
"""File systems in which a root may be one of many, all with the same UUID and inode number: statfs(2) tells
them apart."""
_GET_UUID = 0x80111500
"""FS_IOC_GETFSUUID: a length, and up to 16 bytes; since Linux 6.9."""
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def moment() -> Moment:
    """Return what the clocks of this machine say now."""
    boot = ""
    with contextlib.suppress(OSError), open(_BOOT_ID, encoding="ascii") as file:
        boot = file.read().strip()
    wall = time.time()
    return Moment(wall, boot, wall - time.clock_gettime(time.CLOCK_BOOTTIME))


def of_root(path: str) -> tuple[RootFacts, tuple[int, int]]:
    """Return which directory a path leads to, and its device and inode. OSError if there is none."""
    return _of_open(entries.open_directory(path))


def _of_mounted(point: bytes) -> tuple[RootFacts, tuple[int, int]]:
    """The same for what is mounted at a point, which may be a file."""
    try:
        return of_root(os.fsdecode(point))
    except NotADirectoryError:
        return _of_open(os.open(point, os.O_PATH | os.O_CLOEXEC))


def _of_open(fd: int) -> tuple[RootFacts, tuple[int, int]]:
    try:
        status, name = os.fstat(fd), _RELIABLE.get(fstype.type_of(fd), "")
        return RootFacts(name, _fs_id(fd, name), status.st_ino), (status.st_dev, status.st_ino)
    finally:
        os.close(fd)


def of_tree(path: str, points: Iterable[bytes], excluded: Excluded) -> TreeFacts:
    """Return what a tree is. ``points``: all mount points. OSError if its root is not there.

    What is mounted where it is ``excluded`` does not count, because nothing of it is sent.
    """
    root, identity = of_root(path)
    mounts: dict[str, str] = {}
    devices, untrusted = {identity[0]}, ""
    real = os.path.realpath(os.fsencode(path)).rstrip(b"/") + b"/"
    for point in points:
        if point.startswith(real) and not _is_hidden(point, point[len(real) :], excluded):
            below = to_text(point[len(real) :])
            try:
                what, (device, _) = _of_mounted(point)
            except OSError:  # not to be entered
                mounts[below] = ""
                continue
            mounts[below] = f"{what.fs_id} {what.inode}"
            devices.add(device)
            untrusted = untrusted if what.fs_type else below
    return TreeFacts(root, identity, mounts, frozenset(devices), untrusted)


def _is_hidden(point: bytes, below: bytes, excluded: Excluded) -> bool:
    """Whether a mount point, or a directory on the way down to it, is excluded."""
    above = (below[:at] for at, byte in enumerate(below) if byte == ord("/"))
    return any(excluded(path, True) for path in above) or excluded(below, os.path.isdir(point))


def _fs_id(fd: int, fs_type: str) -> str:
    """The file system's UUID, or else what statfs(2) says, which for some is only the device."""
    if fs_type not in _SUBVOLUMES:
        with contextlib.suppress(OSError):
            answer = fcntl.ioctl(fd, _GET_UUID, bytes(17))
            if uuid := answer[1 : 1 + answer[0]].strip(b"\0"):
                return uuid.hex()
    return f"{os.fstatvfs(fd).f_fsid:x}"
