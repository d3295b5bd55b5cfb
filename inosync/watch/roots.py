"""The trees that are watched: added, changed and removed as a configuration wants, lost and found again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator

from inosync.changes import Change, Kind
from inosync.system import entries
from inosync.watch import inotify
from inosync.watch.events import mask_of
from inosync.watch.listener import FileListener
from inosync.watch.tree import Root, Since
from inosync.watch.walker import Walker
from inosync.watch.watches import reason

log = logging.getLogger(__name__)


class Roots:
    """The trees by their numbers. ``on_events`` is told whether IN_MODIFY is a change in any of them."""

    def __init__(
        self,
        walker: Walker,
        listener: FileListener,
        on_events: Callable[[bool], None],
        clock: Callable[[], float],
    ) -> None:
        self._walker, self._listener, self._clock = walker, listener, clock
        self._on_events = on_events
        self._roots: dict[int, Root] = {}
        """Lost ones as well."""

    def add(
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

    def remove(self, tree: int) -> None:
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
        self._on_events(any(root.events & inotify.IN_MODIFY for root in self._roots.values()))

    # Lost and found ----------------------------------------------------------------------------------

    def present(self) -> Iterator[Root]:
        """Yield those that are not lost."""
        return (root for root in self._roots.values() if root.identity is not None)

    def identity(self, tree: int) -> tuple[int, int] | None:
        """Device and inode of the root that is watched; None if it is lost."""
        return self._roots[tree].identity

    def check_all(self) -> None:
        for tree in list(self._roots):
            self.check(tree)

    def check(self, tree: int) -> None:
        """Report a root as lost, now, if its path does not lead to it any more."""
        root = self._roots[tree]
        try:
            found = entries.identity(root.path)
        except OSError as error:
            self.lose(root, f"{root.path}: {error.strerror}")
            return
        if root.identity is None:
            try:
                self._walker.add(root)
            except OSError as error:
                log.debug("%s: still cannot be watched: %s", root.path, error)
        elif found != root.identity:
            self.lose(root, f"{root.path} is another directory now")

    def lose(self, root: Root, why: str) -> None:
        """Watch nothing of a tree until its root is back; nothing happens if that is known."""
        if root.identity is not None:
            self._walker.abandon(root)
            self._listener.lost(root.tree, why)
