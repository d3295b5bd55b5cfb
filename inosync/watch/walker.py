"""Walks through the trees in small steps, between which the kernel's queue is emptied."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from inosync.watch.inotify import Inotify
from inosync.watch.listener import ChangeListener
from inosync.watch.poller import Poller
from inosync.watch.scan import Scanner, queue
from inosync.watch.tree import Directory, Root, identity, locate
from inosync.watch.watches import Watches


class Walker:
    """The directories that wait to be watched or to be let go.

    ``events`` is the mask for every watch beside the root's own; ``replaced`` is told of a root whose path
    leads elsewhere now.
    """

    def __init__(
        self,
        inotify: Inotify,
        events: int,
        sink: ChangeListener,
        replaced: Callable[[Root, str], None],
        clock: Callable[[], float],
        rand: Callable[[], float],
    ) -> None:
        self._inotify, self._events, self._sink, self._clock = inotify, events, sink, clock
        self.watches = Watches(inotify)
        self._doomed: list[Directory] = []
        self._visitor = Scanner(inotify, events, self.watches, self._doomed, sink, replaced, clock)
        self.patrol = Poller(self._visitor, self.watches.unwatched, clock, rand)
        self._roots: list[Root] = []
        self._scan: Iterator[None] | None = None

    # Roots -------------------------------------------------------------------------------------------

    def add(self, root: Root) -> None:
        """Watch a root and then its tree; OSError if it cannot be opened, which may be tried again.

        It is a tree as well if the root itself is not watched, since there is no watch left.
        """
        try:
            root.identity = identity(self._visitor.opener.open(root))
        finally:
            self._visitor.rest()
        self._roots.append(root)
        self.walk_tree(root)

    def abandon(self, root: Root) -> None:
        """Let go of a root and its tree."""
        root.identity = None
        root.walk, root.refilter = [], None
        self._roots.remove(root)
        self.watches.end(root)
        self._doomed += root.release_kids()
        unwatched = self.watches.unwatched
        for directory in [d for d in unwatched if d is root or locate(d) is None]:
            unwatched.discard(directory)

    def walk_tree(self, root: Root) -> None:
        """Walk all of a tree, and tell its end instead of each directory."""
        root.quiet = True
        root.walk = [root]

    def refilter(self, root: Root) -> None:
        """Watch what the root's rules exclude no longer, let go of what they do, and tell the end of it."""
        root.refilter = [root]

    def look_again(self, root: Root, path: bytes) -> None:
        """Do so at one path only, and list what is there and below it, unless it is excluded."""
        above, _, name = path.rpartition(b"/")
        directory = _at(root, above)
        if directory is None:
            return  # what is above it is excluded, not there, or still to be walked
        kid = directory.kid(name)
        if kid is None:
            kid = Directory(name, None)
            directory.attach(kid, name)
        if root.excluded(path, True):
            kid.detach()
            self._doomed.append(kid)
        else:
            queue(kid)

    def look_whether_other(self, root: Root, path: bytes) -> bool:
        """Do so if another directory than the one that is watched is at a path now; whether that is so."""
        directory = _at(root, path)
        try:
            if directory is not None and self._visitor.is_in_place(root, directory):
                return False
        finally:
            self._visitor.rest()
        self.look_again(root, path)
        return True

    def rescan(self) -> None:
        """Walk all trees: events were lost, so anything may have been missed."""
        self._scan = None
        self.patrol.begin_anew()
        for root in self._roots:
            self.walk_tree(root)

    # Directories -------------------------------------------------------------------------------------

    def walk(self, directory: Directory) -> None:
        """Watch and list a directory, and what is below it, soon."""
        queue(directory)

    def let_go(self, directory: Directory) -> None:
        """End the watches of a directory that was cut off, and below it, soon; unless it turns up again."""
        self._doomed.append(directory)

    @property
    def is_walking(self) -> bool:
        """Whether directories wait to be walked: there may be changes that nobody has seen yet."""
        unfinished = (root.walk or root.quiet or root.refilter is not None for root in self._roots)
        return self._scan is not None or any(unfinished)

    @property
    def incomplete_trees(self) -> set[int]:
        """The trees of which a whole walk has not come to its end."""
        return {root.tree for root in self._roots if root.quiet or root.refilter is not None}

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do, neither to be watched nor to be let go."""
        return not (self.is_walking or self._doomed) and self.patrol.is_idle

    def work(self, seconds: float) -> None:
        """Walk for about that long, if there is anything to do."""
        self._visitor.until = until = self._clock() + seconds
        try:
            while self._advance() and self._clock() < until:
                pass
        finally:
            self._visitor.rest()

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
                self._scan = self._visitor.visit(root.walk.pop())
                return True
            if root.quiet:
                root.quiet = False
                self._sink.walked(root.tree, self._clock())
                return True
            if root.refilter:
                self._scan = self._visitor.visit(root.refilter.pop(), known=True)
                return True
            if root.refilter is not None:
                root.refilter = None
                self._sink.refiltered(root.tree, self._clock())
                return True
        return self.patrol.step()

    def _bury(self, directory: Directory) -> None:
        if directory.parent is None:  # or else it has come back meanwhile
            self.watches.end(directory)
            self.watches.unwatched.discard(directory)
            self._doomed += directory.release_kids()

    def is_reachable(self, directory: Directory, check: Callable[[int], bool]) -> bool:
        """What ``check`` says of the directory's descriptor; False if it cannot be opened."""
        try:
            with contextlib.suppress(OSError):
                return check(self._visitor.opener.open(directory))
            return False
        finally:
            self._visitor.rest()


def _at(root: Root, path: bytes) -> Directory | None:
    """The known directory at a path."""
    directory: Directory | None = root
    for name in path.split(b"/") if path else ():
        directory = directory.kid(name) if directory else None
    return directory
