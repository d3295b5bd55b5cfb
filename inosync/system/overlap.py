"""Whether two directories are the same, or one is in the other, whatever paths lead there.

Paths do not tell: there are bind mounts, overlays, and file systems that are mounted twice. So directories
are compared by the file system that they are on and their path in it (proc_pid_mountinfo(5)), and by device
and inode of themselves and of those above.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from inosync.system import mounts

_MOUNTINFO = "/proc/self/mountinfo"
_SHARED_ROOTS = re.compile(rb"nfs|cifs|smb|9p|ceph|fuse")
"""File system types of which mounts of different directories may show the same device and root."""
_LAYERS = re.compile(rb"(?:^|,)(?:lowerdir\+?|upperdir|datadir\+?)=((?:\\.|[^,\\])*)")
_MAX_LAYERS_DEEP = 8


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of a mountinfo."""

    file_system: bytes
    """The device; where that does not tell one directory from another, with what is mounted."""
    root: bytes
    """The directory of the file system that is mounted."""
    point: bytes
    """Where it is mounted."""
    layers: tuple[bytes, ...] = ()
    """The directories that an overlay is made of."""


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

    def __init__(self, mountinfo: str = _MOUNTINFO) -> None:
        self._mounts: Mapping[int, Mount] = {}
        self._sources: dict[str, _Place] = {}
        with contextlib.suppress(OSError), open(mountinfo, "rb") as file:
            self._mounts = parse(file.read())

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


def locations(path: bytes, mount_id: int, table: Mapping[int, Mount]) -> set[Location]:
    """Return where a real path is, and everything that is mounted below it."""
    found: set[Location] = set()
    here = table.get(mount_id)
    if here is None or not _is_below(path, here.point):
        here = _mount_of(path, table)
    if here is not None:
        _add(found, here, os.path.relpath(path, here.point), table)
    for mount in table.values():
        if mount.point != path and _is_below(mount.point, path):
            _add(found, mount, b".", table)
    return found


@lru_cache(maxsize=2)
def parse(text: bytes) -> dict[int, Mount]:
    """Return the mounts in the text of a mountinfo, by their numbers."""
    found = {}
    for line in text.split(b"\n"):
        fields, _, rest = line.partition(b" - ")
        words, about = fields.split(b" "), rest.split(b" ")
        if len(words) > 4 and len(about) > 2:
            fs_type, what, options = about[:3]
            file_system = words[2] + (b" " + what if _SHARED_ROOTS.match(fs_type) else b"")
            layers = _layers(mounts.decoded(options)) if fs_type == b"overlay" else ()
            point = mounts.decoded(words[4])
            found[int(words[0])] = Mount(file_system, mounts.decoded(words[3]), point, layers)
    return found


def _layers(options: bytes) -> tuple[bytes, ...]:
    found = []
    for value in _LAYERS.findall(options):
        found += re.split(rb"(?<!\\)::?", value)
    return tuple(re.sub(rb"\\(.)", rb"\1", path) for path in found if path.startswith(b"/"))


def _add(
    found: set[Location], mount: Mount, below: bytes, table: Mapping[int, Mount], depth: int = 0
) -> None:
    found.add((mount.file_system, os.path.normpath(os.path.join(mount.root, below))))
    if depth < _MAX_LAYERS_DEEP:
        for layer in mount.layers:
            path = os.path.realpath(os.path.join(layer, below))
            if (lower := _mount_of(path, table)) is not None:
                _add(found, lower, os.path.relpath(path, lower.point), table, depth + 1)


def _mount_of(path: bytes, table: Mapping[int, Mount]) -> Mount | None:
    """The mount that a path is on, as far as the table tells: one may hide another."""
    above = [mount for mount in table.values() if _is_below(path, mount.point)]
    return max(reversed(above), key=lambda mount: len(mount.point), default=None)


def _is_below(path: bytes, above: bytes) -> bool:
    return path == above or path.startswith(above.rstrip(b"/") + b"/")


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
