"""Snapshots of trees, their differences, and a change that is a single event."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields

import pytest

MUNGED = b"/rsyncd-munged/"
"""The prefix of symlink targets from an rsync daemon without chroot: rsyncd.conf(5), munge symlinks."""

Path = bytes | str | os.PathLike[str]

TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


def replace(path: Path, content: str, fresh: Path) -> None:
    """Replace ``path`` by a file with this content: one event, and so one batch for each node.

    The file is made at ``fresh``, in the same file system and in a directory that is not watched.
    """
    with open(fresh, "w") as file:
        file.write(content)
    os.rename(fresh, path)


@dataclass(frozen=True, slots=True)
class Entry:
    """The attributes of an entry that a mirror and its source must have in common."""

    type: str
    mode: int
    """Permission bits; 0 for a symlink, which has none of its own on Linux."""
    mtime_ns: int
    uid: int
    gid: int
    size: int
    """Bytes of a file; 0 for others, because the size of a directory depends on its history."""
    digest: str = ""
    """SHA-256 of a file's content."""
    target: bytes = b""
    """The target of a symlink, without the prefix of an rsync daemon."""
    rdev: int = 0
    """The number of a device."""


Tree = dict[bytes, Entry]


def snapshot(path: Path, content: bool = True, ignore: Callable[[bytes], bool] | None = None) -> Tree:
    """Return the entries below ``path`` by their relative names; the root itself is not among them.

    No symlink is followed, and depth is limited by open files, not by PATH_MAX. Entries that vanish
    meanwhile are left out. Without ``content`` no file is opened and no digest made. Entries for whose
    relative name ``ignore`` is true are left out with all below them.
    """
    return dict(_walk(path, content, ignore))


def is_copy(
    tree: Tree, path: Path, content: bool = True, ignore: Callable[[bytes], bool] | None = None
) -> bool:
    """Whether a snapshot of ``path`` would equal ``tree``. It ends at the first difference."""
    found = 0
    for name, entry in _walk(path, content, ignore):
        if tree.get(name) != entry:
            return False
        found += 1
    return found == len(tree)


def diff(
    a: Mapping[bytes, Entry], b: Mapping[bytes, Entry], names: tuple[str, str] = ("source", "node")
) -> list[str]:
    """Return one readable line for each name in which two snapshots differ; empty if they are equal."""
    lines = []
    for name in sorted(a.keys() | b.keys()):
        here, there = a.get(name), b.get(name)
        if here == there:
            continue
        if here is None or there is None:
            entry, where = (here, names[0]) if here is not None else (there, names[1])
            assert entry is not None
            lines.append(f"{name!r}: only on the {where} ({entry.type})")
            continue
        attributes = [field.name for field in fields(Entry)]
        if here.type != there.type:
            attributes = ["type"]
        changed = [
            f"{key} {_show(key, getattr(here, key))} != {_show(key, getattr(there, key))}"
            for key in attributes
            if getattr(here, key) != getattr(there, key)
        ]
        lines.append(f"{name!r} ({here.type}): {', '.join(changed)}")
    return lines


def _show(key: str, value: object) -> str:
    if key == "mode" and isinstance(value, int):
        return f"{value:04o}"
    if key == "digest":
        return str(value)[:8] or "-"
    return str(value)


def _walk(path: Path, content: bool, ignore: Callable[[bytes], bool] | None) -> Iterator[tuple[bytes, Entry]]:
    root = os.open(os.fspath(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield from _descend(root, b"", content, ignore)
    finally:
        os.close(root)


def _descend(
    directory: int, prefix: bytes, content: bool, ignore: Callable[[bytes], bool] | None
) -> Iterator[tuple[bytes, Entry]]:
    """Yield the entries of ``directory``, open; ``prefix`` is its name with a slash, empty for the root."""
    for name in sorted(map(os.fsencode, os.listdir(directory))):
        path = prefix + name
        if ignore is not None and ignore(path):
            continue
        try:
            entry = _entry(directory, name, content)
        except (FileNotFoundError, NotADirectoryError):
            continue
        yield path, entry
        if entry.type != "directory":
            continue
        try:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            child = os.open(name, flags, dir_fd=directory)
        except (FileNotFoundError, NotADirectoryError):
            continue
        try:
            yield from _descend(child, path + b"/", content, ignore)
        finally:
            os.close(child)


def _entry(directory: int, name: bytes, content: bool) -> Entry:
    info = os.stat(name, dir_fd=directory, follow_symlinks=False)
    kind = stat.S_IFMT(info.st_mode)
    digest, target, rdev, size = "", b"", 0, 0
    mode = stat.S_IMODE(info.st_mode)
    if kind == stat.S_IFREG:
        size = info.st_size
        if content:
            digest = _digest(directory, name)
    elif kind == stat.S_IFLNK:
        try:
            target = os.readlink(name, dir_fd=directory).removeprefix(MUNGED)
        except OSError as error:
            # It has been replaced since stat: treat it as gone.
            raise FileNotFoundError(name) from error
        mode = 0
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        rdev = info.st_rdev
    return Entry(
        TYPES.get(kind, "unknown"),
        mode,
        info.st_mtime_ns,
        info.st_uid,
        info.st_gid,
        size,
        digest,
        target,
        rdev,
    )


def _digest(directory: int, name: bytes) -> str:
    # O_NONBLOCK, because the file may be a fifo by now, whose opening would never return.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(name, flags, dir_fd=directory)
    except PermissionError:
        return "not readable"
    except OSError as error:
        raise FileNotFoundError(name) from error
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise FileNotFoundError(name)
        return hashlib.file_digest(file, "sha256").hexdigest()


def exchange(one: Path, two: Path) -> None:
    """Swap two entries in one step: renameat2(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(two), ctypes.c_uint(2)) != 0:
        code = ctypes.get_errno()
        if code in (errno.EINVAL, errno.ENOSYS):
            pytest.skip("the file system cannot exchange names")
        raise OSError(code, os.strerror(code))
