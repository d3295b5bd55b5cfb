"""Which directory each watch of the kernel's is of."""

from __future__ import annotations

import errno

from inosync.directories import Directory
from inosync.system.inotify import Inotify, InotifyError


class Watches:
    """The watches by their descriptors, and the directories that should have one and cannot."""

    def __init__(self, inotify: Inotify) -> None:
        self._inotify = inotify
        self.by_wd: dict[int, Directory] = {}
        self.blind: dict[Directory, str] = {}
        """Directories that cannot be watched, and why."""

    def hold(self, directory: Directory, wd: int) -> None:
        """A watch is this directory's from now on, and it is no other one's."""
        if self.blind:
            self.blind.pop(directory, None)
        if directory.wd not in (-1, wd):  # its path leads to a new directory now
            self.end(directory)
        self.by_wd[wd] = directory
        directory.wd = wd

    def end(self, directory: Directory) -> None:
        """End the watch of a directory, if it has one."""
        if directory.wd >= 0:
            self.by_wd.pop(directory.wd, None)
            self._inotify.remove(directory.wd)
            directory.wd = -1

    def ended(self, directory: Directory) -> None:
        """The kernel has ended the watch of a directory."""
        self.by_wd.pop(directory.wd, None)
        directory.wd = -1


def explained(error: OSError) -> str:
    """Why a directory cannot be watched, and what helps if that is not obvious (inotify(7))."""
    if isinstance(error, InotifyError) and error.errno == errno.ENOSPC:
        return "no watches left: raise fs.inotify.max_user_watches with sysctl"
    return error.strerror or str(error)
