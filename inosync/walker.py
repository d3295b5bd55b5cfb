"""Watching directories: walks in small steps, between which the kernel's queue is emptied.

A directory is watched first and listed afterwards, so that nothing that is made in it falls between the two;
and what is recorded about it, once it is watched, is its listing.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Callable, Iterator
from typing import Protocol

from inosync.directories import Directory, Opener, Replaced, Root, identity, locate
from inosync.messages import Change, Kind
from inosync.system.inotify import Inotify, InotifyError

log = logging.getLogger(__name__)

_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE, errno.ENXIO)
_STEP = 256  # entries of one directory between two looks at the time


def explained(error: OSError) -> str:
    """Why a directory cannot be watched, and what helps if that is not obvious (inotify(7))."""
    if isinstance(error, InotifyError) and error.errno == errno.ENOSPC:
        return "no watches left: raise fs.inotify.max_user_watches with sysctl"
    return error.strerror or str(error)


class Sink(Protocol):
    """Who is told what the trees are like. ``now`` is when that was seen."""

    def record(self, change: Change, now: float) -> None:
        """A path may differ."""

    def gone(self, tree: int, path: bytes, now: float) -> None:
        """What was there is not there any more, subtree and all."""

    def walked(self, tree: int, now: float) -> None:
        """Every directory of the tree is watched: it can be compared whole."""

    def lost(self, tree: int, why: str) -> None:
        """The root is not what it was. ``walked`` follows when it is back."""


class Walker:
    """The watches, and the directories that wait to be watched or to be let go.

    ``events`` is the mask for every watch beside the root's own; ``replaced`` is told of a root whose path
    leads elsewhere now.
    """

    def __init__(
        self,
        inotify: Inotify,
        events: int,
        sink: Sink,
        replaced: Callable[[Root, str], None],
        clock: Callable[[], float],
    ) -> None:
        self._inotify, self._events, self._sink = inotify, events, sink
        self._replaced, self._clock = replaced, clock
        self.opener = Opener()
        self.watches: dict[int, Directory] = {}
        self.blind: dict[Directory, str] = {}
        """Directories that cannot be watched, and why."""
        self._roots: list[Root] = []
        self._doomed: list[Directory] = []
        self._scan: Iterator[None] | None = None

    # Roots -------------------------------------------------------------------------------------------

    def add(self, root: Root) -> None:
        """Watch a root and then its tree; OSError if the root cannot be watched, which may be tried again."""
        try:
            fd = self.opener.open(root)
            root.wd = self._inotify.add(fd, self._events | root.mask)
            root.identity = identity(fd)
        finally:
            self.opener.close()
        self.watches[root.wd] = root
        self._roots.append(root)
        self.walk_tree(root)

    def abandon(self, root: Root) -> None:
        """Let go of a root and its tree."""
        root.identity = None
        root.walk = []
        self._roots.remove(root)
        self._unwatch(root)
        self._doomed += root.release_kids()
        for directory in [d for d in self.blind if d is root or locate(d) is None]:
            del self.blind[directory]

    def walk_tree(self, root: Root) -> None:
        """Walk all of a tree, and tell its end instead of each directory."""
        root.quiet = True
        root.walk = [root]

    def rescan(self) -> None:
        """Walk all trees: events were lost, so anything may have been missed."""
        self._scan = None
        for root in self._roots:
            self.walk_tree(root)

    # Directories -------------------------------------------------------------------------------------

    def walk(self, directory: Directory) -> None:
        """Watch and list a directory, and what is below it, soon."""
        place = locate(directory)
        if place is not None:
            place[0].walk.append(directory)

    def let_go(self, directory: Directory) -> None:
        """End the watches of a directory that was cut off, and below it, soon; unless it turns up again."""
        self._doomed.append(directory)

    def ended(self, directory: Directory) -> None:
        """The kernel has ended the watch of a directory."""
        self.watches.pop(directory.wd, None)
        directory.wd = -1

    @property
    def busy(self) -> bool:
        """Whether directories wait to be walked: there may be changes that nobody has seen yet."""
        return self._scan is not None or any(root.walk or root.quiet for root in self._roots)

    @property
    def walking(self) -> set[int]:
        """The trees of which a whole walk has not come to its end."""
        return {root.tree for root in self._roots if root.quiet}

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do, neither to be watched nor to be let go."""
        return not (self.busy or self._doomed)

    def work(self, seconds: float) -> None:
        """Walk for about that long, if there is anything to do."""
        end = self._clock() + seconds
        try:
            while self._advance() and self._clock() < end:
                pass
        finally:
            self.opener.close()

    def _advance(self) -> bool:
        """One small step; False when there is nothing to do."""
        if self._doomed:
            self._bury(self._doomed.pop())
            return True
        if self._scan is not None:
            if next(self._scan, self) is self:
                self._scan = None
            return True
        for root in self._roots:
            if root.walk:
                self._scan = self._visit(root.walk.pop())
                return True
            if root.quiet:
                root.quiet = False
                self._sink.walked(root.tree, self._clock())
                return True
        return False

    def _bury(self, directory: Directory) -> None:
        if directory.parent is None:  # or else it has come back meanwhile
            self._unwatch(directory)
            self.blind.pop(directory, None)
            self._doomed += directory.release_kids()

    def _unwatch(self, directory: Directory) -> None:
        if directory.wd >= 0:
            self.watches.pop(directory.wd, None)
            self._inotify.remove(directory.wd)
            directory.wd = -1

    # One directory -----------------------------------------------------------------------------------

    def _visit(self, directory: Directory) -> Iterator[None]:
        """Watch a directory, record its listing, and queue the directories in it. Yields now and then."""
        place = locate(directory)
        if place is None:
            return
        try:
            # The opener's descriptor is good until its next call only.
            own = os.dup(self.opener.open(directory))
        except Replaced as error:
            self._replaced(place[0], str(error))
            return
        except OSError as error:
            self._not_watched(*place, directory, error)
            return
        try:
            if self._watch(directory, own, *place):
                yield from self._list(directory, own, *place)
        except OSError as error:
            self._not_watched(*place, directory, error)
        finally:
            os.close(own)

    def _list(self, directory: Directory, fd: int, root: Root, path: bytes) -> Iterator[None]:
        if not root.quiet:
            self._sink.record(Change(root.tree, path, Kind.LIST), self._clock())
        self._visit_kids(root, directory, path)
        with os.scandir(fd) as entries:
            for count, entry in enumerate(entries, 1):
                if entry.is_dir(follow_symlinks=False):
                    self._found(root, directory, path, os.fsencode(entry.name))
                if count % _STEP == 0:
                    yield
                    # Events were handled meanwhile: it may be elsewhere by now, or out of the tree.
                    place = locate(directory)
                    if place is None or place[0].identity is None:
                        return
                    root, path = place

    def _visit_kids(self, root: Root, directory: Directory, path: bytes) -> None:
        """Queue the known kids, listed or not: what is gone is found out by opening."""
        for kid in list(directory.kids.values()) if directory.kids else ():
            if root.excluded(path + b"/" + kid.name if path else kid.name, True):
                kid.detach()  # its new path has made a rule match it
                self._doomed.append(kid)
            else:
                root.walk.append(kid)

    def _found(self, root: Root, directory: Directory, path: bytes, name: bytes) -> None:
        known = directory.kid(name)
        if known is None and not root.excluded(path + b"/" + name if path else name, True):
            kid = Directory(name, None)
            directory.attach(kid, name)
            root.walk.append(kid)

    def _watch(self, directory: Directory, fd: int, root: Root, path: bytes) -> bool:
        wd = self._inotify.add(fd, self._events | root.mask)
        known = self.watches.get(wd)
        if known is not None and known is not directory:
            if self._is_at(known, fd):
                twice = OSError(errno.EDEADLK, "it is mounted in another place of the tree, too")
                self._not_watched(root, path, directory, twice)
                return False
            # It has moved here. Whatever is in the other place by now is another directory, or nothing.
            known.wd = -1
            self.walk(known)
        self.blind.pop(directory, None)
        if directory.wd not in (-1, wd):  # its path leads to a new directory now
            self._unwatch(directory)
        self.watches[wd] = directory
        directory.wd = wd
        return True

    def _is_at(self, known: Directory, fd: int) -> bool:
        """Whether the place where ``known`` hangs leads to the directory that is open."""
        if locate(known) is None:
            return False
        try:
            return os.path.samestat(os.fstat(fd), os.fstat(self.opener.open(known)))
        except OSError:
            return False

    def _not_watched(self, root: Root, path: bytes, directory: Directory, error: OSError) -> None:
        if error.errno in _GONE and not isinstance(error, InotifyError):
            if directory is not root:  # its parent is watched, and tells what became of it
                directory.detach()
                self._doomed.append(directory)
            return
        why = explained(error)
        if directory not in self.blind:
            log.warning("%s: %s cannot be watched: %s", root.path, os.fsdecode(path) or ".", why)
        self.blind[directory] = why

    def is_reachable(self, directory: Directory, check: Callable[[int], bool]) -> bool:
        """What ``check`` says of the directory's descriptor; False if it cannot be opened."""
        try:
            with contextlib.suppress(OSError):
                return check(self.opener.open(directory))
            return False
        finally:
            self.opener.close()
