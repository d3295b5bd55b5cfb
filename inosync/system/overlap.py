"""Whether two directories are the same, or one is in the other, whatever paths lead there.

Paths do not tell: there are bind mounts, overlays, and file systems that are mounted twice. So directories
are compared by the file system that they are on and their path in it (proc_pid_mountinfo(5)), and by device
and inode of themselves and of those above.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from inosync.system import mounts
from inosync.system.mounts import Mount, is_below, mount_of

_SHARED_ROOTS = re.compile(rb"nfs|cifs|smb|9p|ceph|fuse")
"""File system types of which mounts of different directories may show the same device and root."""
_LAYERS = re.compile(rb"(?:^|,)(?:lowerdir\+?|upperdir|datadir\+?)=((?:\\.|[^,\\])*)")
_MAX_LAYERS_DEEP = 8


Location = tuple[bytes, bytes]
"""A file system, and a path in it."""


@dataclass(frozen=True, slots=True)
class _Place:
    """A directory, by all that two of them are compared by."""

    chain: tuple[tuple[int, int] | None, ...]
    """Device and inode of it and of those above; None for what does not exist."""
    locations: set[Location]


class MountTable:
    """What is mounted now. Sources are looked at once, targets each time."""

    def __init__(self, mountinfo: str = mounts.TABLE) -> None:
        self._mounts: Sequence[Mount] = ()
        self._sources: dict[str, _Place] = {}
        with contextlib.suppress(OSError):
            self._mounts = mounts.table(mountinfo)

    def overlap(self, source: str, target: str) -> str:
        """Return what a target is to a source: "is", "contains", or "lies inside"; empty if they are apart.

        What is mounted below one of them belongs to it. The target, and directories above it, need not exist.
        """
        if source not in self._sources:
            self._sources[source] = self._place(source)
        here, there = self._sources[source], self._place(target)
        if here.chain[0] is not None and here.chain[0] in there.chain:
            return "is" if here.chain[0] == there.chain[0] else "lies inside"
        if there.chain[0] is not None and there.chain[0] in here.chain:
            return "contains"
        return compare(here.locations, there.locations)

    def _place(self, path: str) -> _Place:
        real = os.path.realpath(os.fsencode(path))
        return _Place(tuple(_chain(real)), locations(real, _mount_id(real), self._mounts))


def overlap(source: str, target: str) -> str:
    """Return ``MountTable.overlap`` of two directories, as things are mounted now."""
    return MountTable().overlap(source, target)


def compare(sources: set[Location], targets: set[Location]) -> str:
    """Return what a target with these locations is to a source with those."""
    if sources & targets:
        return "is"
    if any(above in targets for location in sources for above in _above(location)):
        return "contains"
    if any(above in sources for location in targets for above in _above(location)):
        return "lies inside"
    return ""


def locations(path: bytes, mount_id: int, table: Sequence[Mount]) -> set[Location]:
    """Return where a real path is, and everything that is mounted below it."""
    found: set[Location] = set()
    here = next((mount for mount in table if mount.number == mount_id), None)
    if here is None or not is_below(path, here.point):
        here = mount_of(path, table)
    if here is not None:
        _add(found, here, os.path.relpath(path, here.point), table)
    for mount in table:
        if mount.point != path and is_below(mount.point, path):
            _add(found, mount, b".", table)
    return found


def _layers(mount: Mount) -> tuple[bytes, ...]:
    """Return the directories that an overlay is made of."""
    found = []
    for value in _LAYERS.findall(mount.options if mount.fs_type == b"overlay" else b""):
        found += re.split(rb"(?<!\\)::?", value)
    return tuple(re.sub(rb"\\(.)", rb"\1", path) for path in found if path.startswith(b"/"))


def _add(found: set[Location], mount: Mount, below: bytes, table: Sequence[Mount], depth: int = 0) -> None:
    # Where the device does not tell one directory from another, what is mounted does.
    source = b" " + mount.source if _SHARED_ROOTS.match(mount.fs_type) else b""
    found.add((mount.device + source, os.path.normpath(os.path.join(mount.root, below))))
    if depth < _MAX_LAYERS_DEEP:
        for layer in _layers(mount):
            path = os.path.realpath(os.path.join(layer, below))
            if (lower := mount_of(path, table)) is not None:
                _add(found, lower, os.path.relpath(path, lower.point), table, depth + 1)


def _above(location: Location) -> Iterator[Location]:
    file_system, path = location
    while path not in (b"/", b""):
        path = os.path.dirname(path)
        yield file_system, path


def _chain(path: bytes) -> Iterator[tuple[int, int] | None]:
    """Device and inode of a directory and of those above it; None for what does not exist."""
    while True:
        try:
            status = os.stat(path)
            yield status.st_dev, status.st_ino
        except OSError:
            yield None
        if path == b"/":
            return
        path = os.path.dirname(path)


def _mount_id(path: bytes) -> int:
    """The number of the mount that a path, or what exists of it, is on; -1 if it cannot be known."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return -1
    try:
        return mounts.mount_id(fd)
    finally:
        os.close(fd)
