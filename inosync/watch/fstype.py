"""What the file system of an open directory promises: fstatfs(2)."""

from __future__ import annotations

import ctypes

from inosync.system.libc import LIBC

_COUNTING = {0xEF53: "ext2, ext3, ext4", 0x58465342: "xfs", 0x01021994: "tmpfs"}
"""File systems, by magic number, whose directories have a link for each subdirectory. Others always say 1 or
2 (btrfs, FUSE, CIFS, what overlayfs has merged), or what a server says (NFS)."""


class _Statfs(ctypes.Structure):
    _fields_ = (("f_type", ctypes.c_long), ("rest", ctypes.c_char * 248))  # 120 bytes, on most machines


def type_of(directory: int) -> int:
    """Return the magic number of the file system of an open directory; -1 if it is not known."""
    about = _Statfs()
    return about.f_type if LIBC.fstatfs(directory, ctypes.byref(about)) == 0 else -1


def counts_subdirectories(directory: int) -> bool:
    """Whether a link count of 2 means, on this file system, that no directory is in a directory.

    The ``..`` of each would be one more link. ``directory`` is a descriptor; False if it is not known.
    """
    return type_of(directory) in _COUNTING
