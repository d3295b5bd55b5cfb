"""Events -> changes, for all trees, over one inotify instance."""

from __future__ import annotations

import logging
import os
import random
import stat
import time
from collections.abc import Callable, Collection

from inosync.messages import Change, Kind
from inosync.system import mounts
from inosync.watch import inotify
from inosync.watch.hardlinks import HardLinks, status_at
from inosync.watch.inotify import Event, Inotify
from inosync.watch.listener import ChangeListener
from inosync.watch.open_files import OpenFiles, is_being_written
from inosync.watch.tree import Directory, Root, identity, join, locate
from inosync.watch.walker import Walker
from inosync.watch.watches import explained

log = logging.getLogger(__name__)

NEEDED = (
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
"""What the watcher itself has to know, whatever the user's emask."""

MOVE_WAIT = 0.1
"""Seconds that the second half of a move may lag behind the first. The kernel queues them together, but
events of other processors come between them, and a read may end there."""
CHECK = 1.0
"""Seconds between looks at what no event tells, such as at the roots: renaming a parent of one sends none."""

_ENDS = inotify.IN_DELETE_SELF | inotify.IN_MOVE_SELF | inotify.IN_UNMOUNT | inotify.IN_IGNORED
_MAKES = inotify.IN_CREATE | inotify.IN_MODIFY
_CHANGES = inotify.IN_CLOSE_WRITE | inotify.IN_ATTRIB | inotify.IN_MODIFY
"""What is done to a file, whatever it is called."""


class Watcher:
    """The trees and what happens in them. ``clock`` is monotonic, in seconds; ``rand`` in [0, 1)."""

    def __init__(
        self,
        sink: ChangeListener,
        clock: Callable[[], float] = time.monotonic,
        rand: Callable[[], float] = random.random,
    ) -> None:
        self._sink = sink
        self._clock = clock
        self._inotify = Inotify()
        self._mounts = mounts.Changes()
        self._walker = Walker(self._inotify, NEEDED, sink, self._lose, clock, rand)
        self._links = HardLinks(sink, self._watched_roots, clock)
        self._roots: dict[int, Root] = {}
        self._moving: dict[int, tuple[Directory, float]] = {}
        """By cookie: directories that left their place, and until when they may turn up elsewhere."""
        self._open_files = OpenFiles()
        self._modify_is_no_change = True
        self._next_check = clock()
        self._marks: tuple[int, Callable[[bytes], None]] | None = None
        """The watch of the directory for marks, and who is told of one."""
        self.overflows = 0
        """How often the kernel's queue has overflowed."""
        self.events = 0
        """How many events were read."""

    # What the master asks for ------------------------------------------------------------------------

    def fileno(self) -> int:
        """The descriptor that is readable when there are events."""
        return self._inotify.fd

    def descriptors(self) -> list[int]:
        """What a forked child has to close."""
        return [self._inotify.fd, *self._mounts.descriptors()]

    def __len__(self) -> int:
        """How many directories are watched."""
        return len(self._walker.watches.by_wd)

    def add_tree(
        self,
        tree: int,
        path: str,
        events: frozenset[str],
        excluded: Callable[[bytes, bool], bool],
        wait: bool = False,
        stays: bool = False,
    ) -> None:
        """Watch a wpath from now on. ``walked`` tells when all of it is.

        ``stays``: not what other file systems have below mount points.
        OSError if that is impossible; with ``wait`` it is ``lost`` then, and tried again and again.
        """
        root = Root(tree, path, _mask(events), excluded)
        root.stays = stays
        try:
            self._walker.add(root)
        except OSError as error:
            if not wait:
                raise OSError(error.errno, explained(error), path) from error
            self._sink.lost(tree, f"{path}: {explained(error)}")
        self._roots[tree] = root
        self._tune()

    def remove_tree(self, tree: int) -> None:
        """Watch a wpath no longer."""
        self._links.forget()
        root = self._roots.pop(tree)
        if root.identity is not None:
            self._walker.abandon(root)

    def set_events(self, tree: int, events: frozenset[str]) -> None:
        """Let other events be a change from now on."""
        root = self._roots[tree]
        root.mask = _mask(events)
        self._tune()
        if root.identity is not None:
            # Adding a watch again replaces its mask. Each directory is told on the way, to be safe.
            self._walker.walk(root)

    def set_one_file_system(self, tree: int, stays: bool) -> None:
        """Belong what is below mount points to a wpath or not, from now on."""
        root = self._roots[tree]
        if root.stays != stays:
            root.stays = stays
            if root.identity is not None:
                self._walker.walk_tree(root)

    def refilter(
        self, tree: int, excluded: Callable[[bytes, bool], bool], places: Collection[bytes] | None
    ) -> None:
        """Let other paths be excluded from now on.

        ``places``: where that may make a difference; they are listed like new directories. None: anywhere;
        ``refiltered`` tells when all is watched that is to be, and nothing is listed.
        """
        root = self._roots[tree]
        root.excluded = excluded
        self._links.doubt()
        if root.identity is None:
            return  # all of it is walked when it is back
        if places is None:
            self._walker.refilter(root)
        for path in places or ():
            if not (excluded(path, True) and excluded(path, False)):
                self._sink.record(Change(tree, path, Kind.NAME), self._clock())
            self._walker.look_again(root, path)

    def watch_marks(self, path: str, seen: Callable[[bytes], None]) -> None:
        """Tell of each name that comes to be in a directory, which is in no tree.

        What has happened in the trees before was told, or is being walked: the kernel queues the events of
        an instance in their order (inotify(7)), unless it drops some. OSError if it cannot be watched.
        """
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            self._marks = self._inotify.add(directory, inotify.IN_CREATE), seen
        finally:
            os.close(directory)

    def record_unclosed(self) -> None:
        """Wait no longer for the close of files that nobody has open any more."""
        now = self._clock()
        self._links.fresh()
        for directory, name in self._open_files.overdue(float("inf")):
            self._not_closed(directory, name, now)

    def _watched_roots(self) -> list[Root]:
        return [root for root in self._roots.values() if root.identity is not None]

    def _tune(self) -> None:
        self._modify_is_no_change = not any(root.mask & inotify.IN_MODIFY for root in self._roots.values())

    def check_root(self, tree: int) -> None:
        """Look now whether a root is what it was; it is ``lost`` if not."""
        self._check_root(self._roots[tree])

    def root_identity(self, tree: int) -> tuple[int, int] | None:
        """Device and inode of the root that is watched; None if it is lost."""
        return self._roots[tree].identity

    @property
    def is_walking(self) -> bool:
        """Whether directories wait to be walked: there may be changes that nobody has seen yet."""
        return self._walker.is_walking

    @property
    def incomplete_trees(self) -> set[int]:
        """The trees that are walked as a whole: what they hold is not known yet, or not any more."""
        return self._walker.incomplete_trees

    @property
    def is_idle(self) -> bool:
        """Whether ``work`` has nothing to do."""
        return self._walker.is_idle and self._links.deadline() > self._clock()

    @property
    def searching_since(self) -> float | None:
        """Since when files have changed of which not all names are known yet; None if there are none."""
        return self._links.since

    def set_poll_interval(self, seconds: float) -> None:
        """How often to try what could not be watched, and to compare it."""
        self._walker.patrol.every = seconds

    def unwatched(self, trees: Collection[int] | None = None) -> tuple[int, str]:
        """How many directories of these trees (None: of all) are not watched, and why most of them."""
        watches = self._walker.watches
        count, why = watches.unwatched.of(trees)
        return count, watches.helped(why)

    def unreadable(self, trees: Collection[int]) -> int:
        """How many directories of these trees are not watched, and cannot be compared instead."""
        return self._walker.watches.unwatched.unseen(trees)

    def has_polled(self, trees: Collection[int], since: float) -> bool:
        """Whether the directories of these trees that are not watched were compared since then.

        If not, they soon will be.
        """
        patrol = self._walker.patrol
        if patrol.covered >= since or not self._walker.watches.unwatched.of(trees)[0]:
            return True
        patrol.hurry(since)
        return False

    def deadline(self) -> float:
        """When ``tend`` has something to do at the latest."""
        moved = next(iter(self._moving.values()))[1] if self._moving else float("inf")
        rounds = min(self._walker.patrol.deadline(), self._links.deadline())
        return min(self._next_check, moved, self._open_files.deadline(), rounds)

    def read(self) -> int:
        """Take what the kernel has queued, one buffer of it; how many events that were."""
        events = inotify.decode(self._inotify.read())
        self.events += len(events)
        now = self._clock()
        self._links.fresh()
        for event in events:
            self._handle(event, now)
        self._links.look_again(now)
        if not events and not self._moving:
            self._links.caught_up()
        return len(events)

    def work(self, seconds: float) -> None:
        """Walk for about that long, if there is anything to do. Meant to be called between reads."""
        self._walker.work(seconds)
        if self._walker.is_idle:
            self._links.work(seconds)

    def run_due(self) -> None:
        """Do what has become due: moves that left the tree, files never closed, roots that came back."""
        now = self._clock()
        self._links.fresh()
        for cookie, (directory, until) in list(self._moving.items()):
            if until > now:
                break
            del self._moving[cookie]
            self._walker.let_go(directory)
        for directory, name in self._open_files.overdue(now):
            self._not_closed(directory, name, now)
        if now >= self._next_check:
            self._next_check = now + CHECK
            for root in list(self._roots.values()):
                self._check_root(root)
            self._look_at_mounts()
            self._walker.watches.tell()
        self._walker.patrol.tend(now)

    def close(self) -> None:
        """End all watches."""
        self._inotify.close()
        self._mounts.close()

    # Roots -------------------------------------------------------------------------------------------

    def _check_root(self, root: Root) -> None:
        try:
            found = identity(root.path)
        except OSError as error:
            self._lose(root, f"{root.path}: {error.strerror}")
            return
        if root.identity is None:
            try:
                self._walker.add(root)
            except OSError as error:
                log.debug("%s: still not to be watched: %s", root.path, error)
        elif found != root.identity:
            self._lose(root, f"{root.path} is another directory now")

    def _lose(self, root: Root, why: str) -> None:
        if root.identity is not None:
            self._walker.abandon(root)
            self._links.doubt()
            self._sink.lost(root.tree, why)

    def _look_at_mounts(self) -> None:
        """Where something was mounted or unmounted another directory is now, of which no event tells."""
        points = self._mounts.take()
        for root in self._watched_roots() if points else ():
            real = os.path.realpath(os.fsencode(root.path)).rstrip(b"/") + b"/"
            for point in points:
                if point.startswith(real) and self._walker.look_whether_other(root, point[len(real) :]):
                    self._links.doubt()

    # Events ------------------------------------------------------------------------------------------

    def _handle(self, event: Event, now: float) -> None:
        wd, mask, cookie, name = event
        if mask & inotify.IN_Q_OVERFLOW:
            self.overflows += 1
            log.warning("the kernel's event queue overflowed: all trees are walked and compared again")
            self._walker.rescan()
            self._links.forget()
            return
        directory = self._walker.watches.by_wd.get(wd)
        if directory is None:
            if self._marks is not None and wd == self._marks[0] and name:
                self._marks[1](name)
            return  # or of a watch that has ended since
        if not name:
            self._handle_self(directory, mask, now)
            return
        if mask == inotify.IN_MODIFY and self._modify_is_no_change and (directory, name) in self._open_files:
            return  # the one event of which there may be a hundred thousand in a second
        place = locate(directory)
        if place is None:
            # It is on the move, or out of the tree: wherever it turns up, it is listed again.
            if mask & _CHANGES and not mask & inotify.IN_ISDIR:
                self._links.changed_out_of_sight((directory, name), now)
            return
        root, above = place
        path = join(above, name)
        is_directory = bool(mask & inotify.IN_ISDIR)
        if root.excluded(path, is_directory):
            if not is_directory:
                self._excluded_changed(root, directory, name, path, mask, now)
            return
        if mask & (inotify.IN_DELETE | inotify.IN_MOVED_FROM):
            if self._open_files.forget(directory, name):
                self._links.changed(root, path, (directory, name), now)  # not to be closed under this name
            self._left(directory, name, cookie if mask & inotify.IN_MOVED_FROM else 0, is_directory, now)
            if mask & root.mask:
                self._sink.gone(root.tree, path, now)
        elif mask & inotify.IN_MOVED_TO:
            self._arrived(directory, name, cookie, is_directory)
            if not is_directory:
                # Changed under its former name, it is not found there any more.
                self._links.changed(root, path, (directory, name), now)
            if mask & root.mask:
                # What it replaced may have been recorded with things below it.
                self._sink.gone(root.tree, path, now)
        else:
            if is_directory:
                self._seen(directory, name)
                mask &= _attributes(root)
            elif mask & _MAKES:
                mask = self._made(root, directory, name, path, mask, now)
            else:
                self._open_files.forget(directory, name)
                mask &= root.mask
            if mask:
                self._sink.record(Change(root.tree, path, Kind.NAME), now)
                if not is_directory and not mask & inotify.IN_CREATE:
                    self._links.changed(root, path, (directory, name), now)

    def _handle_self(self, directory: Directory, mask: int, now: float) -> None:
        if mask & inotify.IN_IGNORED:
            self._walker.watches.ended(directory)
        if isinstance(directory, Root):
            if mask & _ENDS:
                what = "unmounted" if mask & inotify.IN_UNMOUNT else "moved or removed"
                self._lose(directory, f"{directory.path} was {what}")
            elif mask & _attributes(directory):
                self._sink.record(Change(directory.tree, b"", Kind.LIST), now)
        elif mask & inotify.IN_UNMOUNT:
            self._walker.walk(directory)  # what was hidden below the mount has come to light

    def _left(self, directory: Directory, name: bytes, cookie: int, is_directory: bool, now: float) -> None:
        """An entry was removed, or moved away (``cookie`` is not 0)."""
        kid = directory.kid(name)
        if kid is None:
            return
        if not is_directory:
            # Where a file left, this directory has come. What was recorded of it is swallowed by the leaving.
            self._walker.walk(kid)
            return
        kid.detach()
        if cookie:
            self._moving[cookie] = kid, now + MOVE_WAIT
            # In an exchange (renameat2(2)) the other one has come before this one is said to leave.
            self._seen(directory, name)
        else:
            self._walker.let_go(kid)

    def _arrived(self, directory: Directory, name: bytes, cookie: int, is_directory: bool) -> None:
        """An entry was moved here, from where the cookie tells if that is a place of ours."""
        moved, _ = self._moving.pop(cookie, (None, 0.0))
        replaced = directory.kid(name)
        if replaced is not None and replaced is not moved:
            replaced.detach()
            self._walker.let_go(replaced)
        if is_directory:
            kid = moved or Directory(name, None)
            directory.attach(kid, name)
            self._walker.walk(kid)
            self._links.doubt()
            if moved is not None:
                self._links.renamed()

    def _seen(self, directory: Directory, name: bytes) -> None:
        """There is a subdirectory of that name: a new one, or one whose attributes have changed."""
        kid = directory.kid(name)
        if kid is None:
            kid = Directory(name, None)
            directory.attach(kid, name)
            self._walker.walk(kid)
            self._links.doubt()
        else:
            self._walker.patrol.look_at(kid)  # if it could not be read, that may be otherwise now

    # Files -------------------------------------------------------------------------------------------

    def _made(self, root: Root, directory: Directory, name: bytes, path: bytes, mask: int, now: float) -> int:
        """A file was made or modified: the events that are a change now, since nobody will close it.

        Sent while somebody writes it, it would be sent half, and what follows would wait for that.
        """
        if not root.mask & inotify.IN_CLOSE_WRITE:
            return mask & root.mask
        links = 1
        if mask & inotify.IN_CREATE:
            status = status_at(root, path)
            links = status.st_nlink if status and stat.S_ISREG(status.st_mode) else 0
            if links > 1:
                self._links.appeared(status, (directory, name))
            # Written under another name, it is also closed under that one.
            if links < 1 or (links > 1 and not self._is_being_written(directory, name)):
                return mask & root.mask
        expected = self._open_files.expect(directory, name, now)
        return mask if links > 1 or not expected else mask & root.mask & inotify.IN_MODIFY

    def _excluded_changed(
        self, root: Root, directory: Directory, name: bytes, path: bytes, mask: int, now: float
    ) -> None:
        """A file of an excluded name: it may have names that are not."""
        expected = False
        if mask & inotify.IN_MODIFY:
            mask = self._made(root, directory, name, path, inotify.IN_MODIFY, now)
        else:
            expected = self._open_files.forget(directory, name)
        if expected or mask & (root.mask & _CHANGES | inotify.IN_MOVED_TO):
            self._links.changed(root, path, (directory, name), now)

    def _not_closed(self, directory: Directory, name: bytes, now: float) -> None:
        """A file was not closed for a while: if nobody has it open, nobody will."""
        place = locate(directory)
        if place is None:
            self._links.changed_out_of_sight((directory, name), now)
            return
        # Asked again and again: the close may be told of a name that is not in the tree, or is gone.
        if self._is_being_written(directory, name) and self._open_files.expect(directory, name, now):
            return
        root, above = place
        path = join(above, name)
        if not root.excluded(path, False):
            self._sink.record(Change(root.tree, path, Kind.NAME), now)
        self._links.changed(root, path, (directory, name), now)

    def _is_being_written(self, directory: Directory, name: bytes) -> bool:
        return self._walker.is_reachable(directory, lambda fd: is_being_written(fd, name))


def _mask(events: frozenset[str]) -> int:
    mask = 0
    for name in events:
        mask |= inotify.EVENTS[name]
    return mask


def _attributes(root: Root) -> int:
    """The events that are a change of a directory: setting its mtime alone sends IN_MODIFY (utimensat(2))."""
    return root.mask | (inotify.IN_MODIFY if root.mask & inotify.IN_ATTRIB else 0)
