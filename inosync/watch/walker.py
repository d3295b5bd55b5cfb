"""Walks through the trees in small steps, between which the kernel's queue is emptied."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from inosync.system import entries
from inosync.watch.listener import ChangeListener
from inosync.watch.poller import Poller
from inosync.watch.scan import Scanner
from inosync.watch.survey import Survey
from inosync.watch.tree import Directory, Root, Since, locate
from inosync.watch.watches import Watches

log = logging.getLogger(__name__)


class Walker:
    """Scans the directories that wait to be watched, and ends the watches of those that have left.

    ``inherited``: descriptors that a forked child has to close.
    """

    def __init__(
        self,
        watches: Watches,
        scanner: Scanner,
        poller: Poller,
        listener: ChangeListener,
        clock: Callable[[], float],
        inherited: Callable[[], list[int]] = list,
    ) -> None:
        self._watches, self._scanner, self._poller = watches, scanner, poller
        self._listener, self._clock, self._inherited = listener, clock, inherited
        self._roots: list[Root] = []
        """Those that are not lost."""
        self._scan: Iterator[None] | None = None
        """The scan that is under way."""
        self._survey: Survey | None = None
        """The look at files that is under way."""

    # Roots -------------------------------------------------------------------------------------------

    def add(self, root: Root, since: Since | None = None) -> None:
        """Watch a root and then its tree; OSError if it cannot be opened, which may be tried again.

        If there is no watch left, it is polled. ``since``: record what has changed since then.
        """
        with self._scanner.opened(root) as fd:
            root.identity = entries.identity(fd)
        self._roots.append(root)
        self.walk_tree(root)
        if since is not None and since.root == root.identity:
            root.since = since

    def abandon(self, root: Root) -> None:
        root.identity = root.since = None
        root.walk, root.refilter = [], None
        self._roots.remove(root)
        self._watches.end(root)
        self._watches.end_later(*root.release_kids())
        unwatched = self._watches.unwatched
        for directory in [d for d in unwatched if d is root or locate(d) is None]:
            unwatched.discard(directory)

    def walk_tree(self, root: Root) -> None:
        """Walk all of a tree, and report its end instead of each directory."""
        root.full_walk, root.since = True, None
        root.walk = [root]

    def refilter(self, root: Root) -> None:
        """Watch what new rules exclude no longer, end the watches of what they do, and report the end."""
        root.refilter = [root]

    def walk_at(self, root: Root, path: bytes) -> None:
        """Apply the root's rules at one path: walk what is there, unless it is excluded."""
        above, _, name = path.rpartition(b"/")
        directory = root.at(above)
        if directory is None:
            return  # what is above it is excluded, not there, or still to be walked
        kid = directory.kid(name) or directory.new_kid(name)
        if root.excluded(path, True):
            kid.detach()
            self._watches.end_later(kid)
        else:
            self.walk(kid)

    def walk_if_replaced(self, root: Root, path: bytes) -> bool:
        """Walk what is at a path if it is not the directory that is watched there; whether that is so."""
        directory = root.at(path)
        if directory is not None and self._scanner.is_in_place(root, directory):
            return False
        self.walk_at(root, path)
        return True

    def rescan(self) -> None:
        """Walk all trees: events were lost, so anything may have been missed."""
        self._scan = None
        self._poller.clear()
        for root in self._roots:
            self.walk_tree(root)

    # Directories -------------------------------------------------------------------------------------

    def walk(self, directory: Directory) -> None:
        """Watch and list a directory, and what is below it, soon, unless it was detached from its root."""
        if place := locate(directory):
            place[0].walk.append(directory)
            if place[0].since is not None:  # it may have come from elsewhere
                place[0].since.moved.add(directory)

    @property
    def is_walking(self) -> bool:
        unfinished = (root.walk or root.full_walk or root.refilter is not None for root in self._roots)
        return self._scan is not None or any(unfinished)

    @property
    def incomplete_trees(self) -> set[int]:
        return {root.tree for root in self._roots if root.full_walk or root.refilter is not None}

    @property
    def is_idle(self) -> bool:
        """Whether ``work`` has nothing to do."""
        return not (self.is_walking or self._watches.has_to_end) and self._poller.is_idle

    def work(self, seconds: float) -> None:
        until = self._clock() + seconds
        self._scanner.begin_slice(until)
        try:
            while self._advance() and self._clock() < until:
                pass
        finally:
            self._scanner.end_slice()

    def _advance(self) -> bool:
        """Do one small step; False when there is nothing to do."""
        if self._survey is not None and self._survey.is_over():
            self._end_survey()
        if self._watches.has_to_end:
            self._watches.end_next()
            return True
        if self._scan is not None:
            if next(self._scan, self) is self:
                self._scan = None
            return True
        for root in self._roots:
            if root.walk:
                self._scan = self._scanner.scan(root.walk.pop())
            elif root.since is not None and (scan := self._look_at_files(root, root.since)):
                self._scan = scan
            elif root.full_walk:
                has_recorded, root.since, root.full_walk = root.since is not None, None, False
                log.info("%s: %d directories are watched", root.path, len(self._watches.by_wd))
                report = self._listener.caught_up if has_recorded else self._listener.walked
                report(root.tree, self._clock())
            elif root.refilter:
                self._scan = self._scanner.scan(root.refilter.pop(), refilter=True)
            elif root.refilter is not None:
                root.refilter = None
                self._listener.refiltered(root.tree, self._clock())
            else:
                continue
            return True
        return self._poller.step()

    # Files -------------------------------------------------------------------------------------------

    def _look_at_files(self, root: Root, since: Since) -> Iterator[None] | None:
        """Return the scan for what has changed that comes next; None after the last one."""
        if self._survey is None or self._survey.since is not since:
            self._end_survey()
            self._survey = Survey(root, since, self._scanner, self._inherited)
        scan = self._survey.step()
        if scan is None:
            self._end_survey()
        return scan

    def _end_survey(self) -> None:
        if self._survey is not None:
            self._survey.end()
            self._survey = None

    def descriptors(self) -> list[int]:
        """What a forked child has to close."""
        return [] if self._survey is None else self._survey.descriptors()

    def close(self) -> None:
        """End all processes."""
        self._end_survey()
