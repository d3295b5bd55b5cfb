"""Watches all trees over one inotify instance and reports what changes in them."""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable, Collection

from inosync.messages import Change, Kind
from inosync.system import entries, mounts
from inosync.watch import inotify
from inosync.watch.event_handler import EventHandler
from inosync.watch.events import mask_of
from inosync.watch.inotify import Inotify
from inosync.watch.listener import FileListener
from inosync.watch.poller import Poller
from inosync.watch.scan import Scanner
from inosync.watch.tree import Directory, Root, Since, locate
from inosync.watch.walker import Walker
from inosync.watch.watches import Watches, reason

log = logging.getLogger(__name__)

FILE_CLOCK = 5
"""CLOCK_REALTIME_COARSE (clock_gettime(2)): no change from now on is stamped with an earlier time."""
CHECK_SECONDS = 1.0
"""How often to look at what emits no event, such as the renaming of a parent of a root."""


class Watcher:
    """The trees and what happens in them. ``clock`` is monotonic, in seconds; ``rand`` in [0, 1)."""

    def __init__(
        self,
        listener: FileListener,
        clock: Callable[[], float] = time.monotonic,
        rand: Callable[[], float] = random.random,
    ) -> None:
        self._listener, self._clock = listener, clock
        self._inotify = Inotify()
        self._mounts = mounts.Changes()
        self._mounted: dict[Directory, tuple[Root, bytes]] = {}
        """Where something may be mounted, and at which path: no table tells of a rename above it."""
        self._watches = Watches(self._inotify)
        scanner = Scanner(self._watches, listener, self._lose, clock)
        self._poller = Poller(scanner, self._watches.unwatched, clock, rand)
        self._walker = Walker(self._watches, scanner, self._poller, listener, clock)
        self._handler = EventHandler(self._watches, self._walker, scanner, self._poller, listener, self._lose)
        self._roots: dict[int, Root] = {}
        """By the number of the tree, lost ones as well."""
        self._next_check_at = clock()
        """When roots and mount points are looked at next."""
        self._marks_wd = -1
        """The watch of the directory for marks."""
        self._on_mark: Callable[[bytes], None] = lambda _name: None
        self.overflows = 0
        """How often the kernel's queue has overflowed."""
        self.events = 0
        """How many events were read."""
        self.caught_up_at = 0
        """Up to when all changes were reported: nanoseconds since the epoch, by the clock of files."""

    # Trees -------------------------------------------------------------------------------------------

    def add_tree(
        self,
        tree: int,
        path: str,
        events: frozenset[str],
        excluded: Callable[[bytes, bool], bool],
        wait: bool = False,
        one_file_system: bool = False,
        since: Since | None = None,
    ) -> None:
        """Watch a wpath from now on. ``walked`` is reported when all of it is watched.

        OSError if that is impossible; with ``wait``, ``lost`` is reported instead, and it is tried again.
        With ``since``, what has changed since then is recorded, and ``caught_up`` is reported. If the times
        turn out not to tell what has changed, ``walked`` is reported all the same.
        """
        root = Root(tree, path, mask_of(events), excluded, one_file_system)
        try:
            self._walker.add(root, since)
        except OSError as error:
            if not wait:
                raise OSError(error.errno, reason(error), path) from error
            self._listener.lost(tree, f"{path}: {reason(error)}")
        self._roots[tree] = root
        self._events_changed()
        self._listener.tree_added(root)

    def remove_tree(self, tree: int) -> None:
        root = self._roots.pop(tree)
        if root.identity is not None:
            self._walker.abandon(root)
        self._listener.tree_removed(root)

    def set_events(self, tree: int, events: frozenset[str]) -> None:
        root = self._roots[tree]
        root.events = mask_of(events)
        self._events_changed()
        if root.identity is not None:
            # Adding a watch again replaces its mask. Each directory is reported on the way, to be safe.
            self._walker.walk(root)

    def set_one_file_system(self, tree: int, one_file_system: bool) -> None:
        """Set whether the tree ends where another file system is mounted."""
        root = self._roots[tree]
        if root.one_file_system != one_file_system:
            root.one_file_system = one_file_system
            if root.identity is not None:
                self._walker.walk_tree(root)

    def refilter(
        self, tree: int, excluded: Callable[[bytes, bool], bool], places: Collection[bytes] | None
    ) -> None:
        """Set which paths are excluded.

        ``places``: where that may make a difference; they are listed like new directories. None: anywhere;
        then nothing is listed, and ``refiltered`` is reported when all is watched that is to be.
        """
        root = self._roots[tree]
        root.excluded = excluded
        self._listener.directories_changed()
        if root.identity is None:
            return  # all of it is walked when it is back
        if places is None:
            self._walker.refilter(root)
        for path in places or ():
            if not (excluded(path, True) and excluded(path, False)):
                self._listener.record(Change(tree, path, Kind.NAME), self._clock())
            self._walker.walk_at(root, path)

    def _events_changed(self) -> None:
        wanted = any(root.events & inotify.IN_MODIFY for root in self._roots.values())
        self._handler.set_modify_is_change(wanted)

    # Roots -------------------------------------------------------------------------------------------

    def root_identity(self, tree: int) -> tuple[int, int] | None:
        """Device and inode of the root that is watched; None if it is lost."""
        return self._roots[tree].identity

    def check_root(self, tree: int) -> None:
        """Report a root as lost, now, if its path does not lead to it any more."""
        root = self._roots[tree]
        try:
            found = entries.identity(root.path)
        except OSError as error:
            self._lose(root, f"{root.path}: {error.strerror}")
            return
        if root.identity is None:
            try:
                self._walker.add(root)
            except OSError as error:
                log.debug("%s: still cannot be watched: %s", root.path, error)
        elif found != root.identity:
            self._lose(root, f"{root.path} is another directory now")

    def _lose(self, root: Root, why: str) -> None:
        if root.identity is not None:
            self._walker.abandon(root)
            self._listener.lost(root.tree, why)

    @property
    def mount_tables(self) -> list[int]:
        """Descriptors of tables that tell of mounts: ``check_mounts`` is to be called when one changes."""
        return self._mounts.descriptors()

    def check_mounts(self, has_changed: bool = True) -> None:
        """Walk what a mount or umount has put in the place of a watched directory: neither emits an event."""
        points = self._mounts.take(has_changed)
        if not points:
            return
        mounted, self._mounted = self._mounted, {}
        for root in self._roots.values():
            if root.identity is None:
                continue
            real = os.path.realpath(os.fsencode(root.path)).rstrip(b"/") + b"/"
            for point in points:
                if point.startswith(real):
                    self._check_mount(root, point[len(real) :])
                    if point in self._mounts.known and (directory := root.at(point[len(real) :])):
                        self._mounted[directory] = root, point[len(real) :]
        for directory, (root, path) in mounted.items():
            if directory in self._mounted or root.identity is None or self._roots.get(root.tree) is not root:
                continue
            if place := locate(directory):
                self._check_mount(*place)
            elif root.at(path.rpartition(b"/")[0]) is None:
                # What it is in was renamed before it could be looked at. By itself it was removed.
                self._walker.walk_tree(root)

    def _check_mount(self, root: Root, path: bytes) -> None:
        if self._walker.walk_if_replaced(root, path):
            self._listener.directories_changed()

    # What is known of the trees ----------------------------------------------------------------------

    def __len__(self) -> int:
        """How many directories are watched."""
        return len(self._watches.by_wd)

    @property
    def is_walking(self) -> bool:
        """Whether directories wait to be walked: there may be unseen changes in them."""
        return self._walker.is_walking

    @property
    def incomplete_trees(self) -> set[int]:
        """The trees that are walked as a whole: what is in them is not known yet, or not any more."""
        return self._walker.incomplete_trees

    @property
    def searching_since(self) -> float | None:
        """Since when files have changed of which not all names are known yet; None if there are none."""
        return self._listener.searching_since

    def unwatched(self, trees: Collection[int] | None = None) -> tuple[int, str]:
        """Return how many directories of these trees (None: of all) are unwatched, and why most are."""
        count, why = self._watches.unwatched.of(trees)
        return count, self._watches.with_help(why)

    def unreadable(self, trees: Collection[int]) -> int:
        """Return how many directories of these trees are neither watched nor polled."""
        return self._watches.unwatched.unreadable(trees)

    def unseen_since(self, trees: Collection[int]) -> float | None:
        """Since when there may be unseen changes in directories of these trees, by the clock, or None."""
        return self._watches.unwatched.unseen_since(trees, self._poller.covered_since)

    def has_polled(self, trees: Collection[int], since: float) -> bool:
        """Return whether unwatched directories of these trees were compared since; if not, they soon are."""
        return not self._watches.unwatched.of(trees)[0] or self._poller.has_covered(since)

    @property
    def mount_points(self) -> frozenset[bytes]:
        """All mount points, as far as they were noticed."""
        return frozenset(self._mounts.known)

    @property
    def polled_since(self) -> float | None:
        """Since when unwatched directories were compared, by the clock; None if all are watched."""
        return self._poller.covered_since if self._watches.unwatched else None

    def unclosed(self) -> frozenset[tuple[int, bytes]] | None:
        """Return tree and path of each file that is recorded only when its writer closes it.

        None while other changes, too, may have been read and not recorded.
        """
        if self.is_walking or self._handler.is_moving or self.searching_since is not None:
            return None
        return self._handler.unclosed()

    # The loop ----------------------------------------------------------------------------------------

    def fileno(self) -> int:
        return self._inotify.fd

    def descriptors(self) -> list[int]:
        return [self._inotify.fd, *self.mount_tables]

    def set_poll_interval(self, seconds: float) -> None:
        """Set how often unwatched directories are tried again, and compared."""
        self._poller.set_interval(seconds)

    def watch_marks(self, path: str, on_mark: Callable[[bytes], None]) -> None:
        """Call ``on_mark`` with each name that appears in a directory, which is in no tree.

        What has happened in the trees before was reported by then, or waits to be walked: the kernel queues
        the events of an instance in their order (inotify(7)), unless it drops some. OSError if it cannot be
        watched.
        """
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            self._marks_wd, self._on_mark = self._inotify.add(directory, inotify.IN_CREATE), on_mark
        finally:
            os.close(directory)

    def read(self) -> int:
        """Handle one buffer of what the kernel has queued; return the number of events in it."""
        began = time.clock_gettime_ns(FILE_CLOCK)
        found = inotify.decode(self._inotify.read())
        if not found and not self._walker.is_walking:
            self.caught_up_at = began
        self.events += len(found)
        now, handle = self._clock(), self._handler.handle
        for event in found:
            if not handle(event, now):
                if event.mask & inotify.IN_Q_OVERFLOW:
                    self._repair_overflow()
                elif event.wd == self._marks_wd and event.name:
                    self._on_mark(event.name)
        self._listener.batch_ended(now, is_caught_up=not found and not self._handler.is_moving)
        return len(found)

    def _repair_overflow(self) -> None:
        self.overflows += 1
        log.warning("the kernel's event queue overflowed: all trees are walked and compared again")
        self._walker.rescan()
        self._listener.events_lost()

    def record_unclosed(self) -> None:
        """Report files whose close is waited for, and that no process has open."""
        now = self._clock()
        self._handler.record_unclosed(float("inf"), now)
        self._listener.batch_ended(now, is_caught_up=False)

    @property
    def is_idle(self) -> bool:
        """Whether ``work`` has nothing to do."""
        return self._walker.is_idle and self._listener.deadline() > self._clock()

    def work(self, seconds: float) -> None:
        """Walk for about that long, if there is anything to do. Meant to be called between reads."""
        self._walker.work(seconds)
        if self._walker.is_idle:
            self._listener.work(seconds)

    def deadline(self) -> float:
        """When ``run_due`` has something to do at the latest."""
        listener, poller = self._listener.deadline(), self._poller.deadline()
        return min(self._next_check_at, self._handler.deadline(), poller, listener)

    def run_due(self) -> None:
        """Do what has become due: moves that left the tree, files never closed, roots that came back."""
        now = self._clock()
        self._handler.run_due(now)
        if now >= self._next_check_at:
            self._next_check_at = now + CHECK_SECONDS
            for tree in list(self._roots):
                self.check_root(tree)
            self.check_mounts(has_changed=False)
            self._watches.log_unwatched()
        self._poller.run_due(now)
        self._listener.batch_ended(now, is_caught_up=False)

    def close(self) -> None:
        self._inotify.close()
        self._mounts.close()
