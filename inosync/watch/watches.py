"""Which directory each watch of the kernel's is of."""

from __future__ import annotations

import errno
import logging
import os

from inosync.watch import inotify
from inosync.watch.inotify import Inotify, InotifyError
from inosync.watch.tree import Directory
from inosync.watch.unwatched import NO_WATCHES, Unwatched

log = logging.getLogger(__name__)


class Watches:
    """The watches by their descriptors, and the directories that should have one and cannot."""

    def __init__(self, inotify: Inotify) -> None:
        self._inotify = inotify
        self.by_wd: dict[int, Directory] = {}
        self.unwatched = Unwatched()
        self._needed, self._help = 0, ""

    def hold(self, directory: Directory, wd: int) -> None:
        """A watch is this directory's from now on, and it is no other one's."""
        if self.unwatched:
            self.unwatched.discard(directory)
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

    def tell(self) -> None:
        """Let the log say what is not watched, if that is another number than the last time."""
        for wpath, count, example, why in self.unwatched.news():
            if not count:
                log.info("%s: all directories are watched that were not: %s", wpath, why)
                continue
            what = "1 directory is" if count == 1 else f"{count} directories are"
            where = os.fsdecode(example) or "."
            log.warning("%s: %s not watched, such as %s: %s", wpath, what, where, self.helped(why))

    def helped(self, why: str) -> str:
        """Why directories are not watched, and what helps if that is known."""
        if why != NO_WATCHES:
            return why
        needed = len(self.by_wd) + self.unwatched.because(NO_WATCHES)
        if needed != self._needed:
            self._needed, self._help = needed, inotify.more("watches", needed)
        return f"{why}: {self._help}"

    def ended(self, directory: Directory) -> None:
        """The kernel has ended the watch of a directory."""
        self.by_wd.pop(directory.wd, None)
        directory.wd = -1


def explained(error: OSError) -> str:
    """Why a directory cannot be watched."""
    if isinstance(error, InotifyError) and error.errno == errno.ENOSPC:
        return NO_WATCHES
    return error.strerror or str(error)
