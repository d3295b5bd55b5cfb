"""The kernel's watches, and the directory that each of them is on."""

from __future__ import annotations

import errno
import logging
import os

from inosync.text import plural
from inosync.watch import inotify
from inosync.watch.inotify import Inotify, InotifyError
from inosync.watch.renames import RenamePairs
from inosync.watch.tree import Directory, Root
from inosync.watch.unwatched import NO_WATCHES, Unwatched

log = logging.getLogger(__name__)

NEEDED_EVENTS = (
    inotify.IN_CREATE
    | inotify.IN_DELETE
    | inotify.IN_MOVED_FROM
    | inotify.IN_MOVED_TO
    | inotify.IN_DELETE_SELF
    | inotify.IN_MOVE_SELF
    | inotify.IN_ATTRIB
    | inotify.IN_MODIFY
    | inotify.IN_ONLYDIR
    | inotify.IN_EXCL_UNLINK
)
"""What the watcher needs to know, whatever the user's emask."""


class Watches:
    """Sets and ends watches; ``unwatched`` are the directories that should have one and cannot."""

    def __init__(self, inotify: Inotify) -> None:
        self._inotify = inotify
        self.by_wd: dict[int, Directory] = {}
        """The watched directories by their watch descriptors."""
        self.unwatched = Unwatched()
        self.renames = RenamePairs()
        self._to_unwatch: list[Directory] = []
        """Detached directories: their watches, and those of what is below them, are to be ended."""
        self._needed = 0
        """For how many watches ``_help`` was made."""
        self._help = ""
        """The command that raises the limit."""

    def add(self, fd: int, root: Root) -> int:
        """Watch an open directory of a tree; InotifyError if that is impossible."""
        return self._inotify.add(fd, NEEDED_EVENTS | root.events)

    def add_near(self, name: bytes, root: Root) -> int:
        """Watch the directory of that name in the current one; -1 if that is impossible."""
        return self._inotify.add_near(name, NEEDED_EVENTS | root.events)

    def wd_of(self, fd: int, root: Root) -> int:
        """The watch descriptor of an open directory; -1 if it is not watched."""
        try:
            wd = self.add(fd, root)
        except InotifyError:
            return -1
        if wd in self.by_wd:
            return wd
        self._inotify.remove(wd)  # it has one now, but perhaps it is not to be watched
        return -1

    def hold(self, directory: Directory, wd: int) -> None:
        """Note that a watch is on this directory, and on no other one."""
        if self.unwatched:
            self.unwatched.discard(directory)
        if directory.wd not in (-1, wd):  # its path leads to a new directory now
            self.end(directory)
        self.by_wd[wd] = directory
        directory.wd = wd

    def end(self, directory: Directory) -> None:
        if directory.wd >= 0:
            self._inotify.remove(directory.wd)
            self.note_ended(directory)

    def note_ended(self, directory: Directory) -> None:
        self.by_wd.pop(directory.wd, None)
        directory.wd = -1

    # Directories that have left their tree -----------------------------------------------------------

    def end_later(self, *directories: Directory) -> None:
        """End the watches of detached directories, and below them, soon; unless they turn up again."""
        self._to_unwatch += directories

    @property
    def has_to_end(self) -> bool:
        """Whether ``end_next`` has something to do."""
        return bool(self._to_unwatch)

    def end_next(self) -> None:
        """End the watch of one directory that has left its tree."""
        directory = self._to_unwatch.pop()
        if directory.parent is None:  # or else it has come back meanwhile
            self.end(directory)
            self.unwatched.discard(directory)
            self._to_unwatch += directory.release_kids()

    # What is not watched -----------------------------------------------------------------------------

    def log_unwatched(self) -> None:
        """Log how many directories are not watched, if that has changed much."""
        for wpath, count, example, why in self.unwatched.news():
            if not count:
                log.info("%s: all directories are watched again: %s", wpath, why)
                continue
            what, verb = plural(count, "directory"), "is" if count == 1 else "are"
            where = os.fsdecode(example) or "."
            log.warning(
                "%s: %s %s not watched, such as %s: %s", wpath, what, verb, where, self.with_help(why)
            )

    def with_help(self, why: str) -> str:
        """Why directories are not watched, and what helps if that is known."""
        if why != NO_WATCHES:
            return why
        needed = len(self.by_wd) + self.unwatched.because(NO_WATCHES)
        if needed != self._needed:
            self._needed, self._help = needed, inotify.raise_limit("watches", needed)
        return f"{why}: {self._help}"


def reason(error: OSError) -> str:
    if isinstance(error, InotifyError) and error.errno == errno.ENOSPC:
        return NO_WATCHES
    return error.strerror or str(error)
