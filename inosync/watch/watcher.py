"""Watches all trees over one inotify instance and reports what changes in them."""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable

from inosync.system import mounts
from inosync.watch import inotify
from inosync.watch.coverage import Coverage
from inosync.watch.event_handler import EventHandler
from inosync.watch.inotify import Inotify
from inosync.watch.listener import FileListener
from inosync.watch.mount_points import MountPoints
from inosync.watch.poller import Poller
from inosync.watch.roots import Roots
from inosync.watch.scan import Scanner
from inosync.watch.tree import Root
from inosync.watch.walker import Walker
from inosync.watch.watches import Watches

log = logging.getLogger(__name__)

FILE_CLOCK = 5
"""CLOCK_REALTIME_COARSE (clock_gettime(2)): no change from now on is stamped with an earlier time."""
CHECK_SECONDS = 1.0
"""How often to look at what emits no event, such as the renaming of a parent of a root."""


class Watcher:
    """What happens in the trees, over one loop. ``clock`` is monotonic, in seconds; ``rand`` in [0, 1).

    ``inherited``: descriptors that a forked child has to close, those of the watcher itself among them.
    ``roots`` are the trees, ``coverage`` says how well they are watched.
    """

    def __init__(
        self,
        listener: FileListener,
        clock: Callable[[], float] = time.monotonic,
        rand: Callable[[], float] = random.random,
        inherited: Callable[[], list[int]] = list,
    ) -> None:
        self._listener, self._clock = listener, clock
        roots: Roots

        def lose(root: Root, why: str) -> None:
            roots.lose(root, why)

        self._inotify = Inotify()
        self._watches = Watches(self._inotify)
        scanner = Scanner(self._watches, listener, lose, clock)
        self._poller = Poller(scanner, self._watches.unwatched, clock, rand)
        self._walker = Walker(self._watches, scanner, self._poller, listener, clock, inherited)
        self._handler = EventHandler(self._watches, self._walker, scanner, self._poller, listener, lose)
        self.roots = roots = Roots(self._walker, listener, self._handler.set_modify_is_change, clock)
        self.mounts = MountPoints(roots, self._walker, listener, mounts.Changes())
        self.coverage = Coverage(self._watches, self._poller)
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

    # What is known of the trees ----------------------------------------------------------------------

    @property
    def is_walking(self) -> bool:
        """Whether directories wait to be walked: there may be unseen changes in them."""
        return self._walker.is_walking

    @property
    def is_catching_up(self) -> bool:
        """Whether the walk records what has changed since a time."""
        return any(root.since is not None for root in self.roots.present())

    @property
    def incomplete_trees(self) -> set[int]:
        """The trees that are walked as a whole: what is in them is not known yet, or not any more."""
        return self._walker.incomplete_trees

    @property
    def searching_since(self) -> float | None:
        """Since when files have changed of which not all names are known yet; None if there are none."""
        return self._listener.searching_since

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
        return [self._inotify.fd, *self.mounts.descriptors(), *self._walker.descriptors()]

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
            self.roots.check_all()
            self.mounts.check(has_changed=False)
            self._watches.log_unwatched()
        self._poller.run_due(now)
        self._listener.batch_ended(now, is_caught_up=False)

    def close(self) -> None:
        self._walker.close()
        self._inotify.close()
        self.mounts.close()
