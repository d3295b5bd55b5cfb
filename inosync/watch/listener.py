"""The interfaces through which the watcher reports what happens in the trees."""

from __future__ import annotations

import os
from typing import Protocol

from inosync.changes import Change, Rename, Step
from inosync.watch.tree import Name, Root


class ChangeListener(Protocol):
    """Hears of changes. ``now`` is when they were seen."""

    def record(self, change: Change, now: float) -> None:
        """A path may differ."""

    def gone(self, tree: int, path: bytes, now: float, step: Step = Step.REMOVED) -> None:
        """What was at a path is not there any more, with all that was below it.

        Unless ``step`` is REMOVED, something else was moved there; NEW: and nothing was there before.
        """

    def directory_left(self, tree: int, path: bytes) -> None:
        """What ``gone`` has just reported was a directory that was moved, with all that is in it.

        ``renamed`` follows at once if it is still in the tree.
        """

    def renamed(self, tree: int, rename: Rename) -> None:
        """Something large was renamed within a tree. ``gone`` was reported for both names before."""

    def walked(self, tree: int, now: float) -> None:
        """Every directory of the tree is watched: it can be compared as a whole."""

    def caught_up(self, tree: int, now: float) -> None:
        """Every directory of the tree is watched, and what has changed since the wanted time was recorded."""

    def refiltered(self, tree: int, now: float) -> None:
        """Every directory that new rules do not exclude is watched: it can be compared by them."""

    def lost(self, tree: int, why: str) -> None:
        """The root is missing, or is another directory. ``walked`` follows when it is back."""


class FileListener(ChangeListener, Protocol):
    """Hears of files and directories as well, and may find changes of its own by working on it."""

    def tree_added(self, root: Root) -> None:
        """A tree is watched from now on."""

    def tree_removed(self, root: Root) -> None:
        """A tree is watched no longer."""

    def file_changed(self, path: tuple[Root, bytes] | None, name: Name, now: float) -> None:
        """A file was changed under a name, mirrored or excluded; ``path`` is None if it left the tree."""

    def file_linked(self, status: os.stat_result, name: Name) -> None:
        """A file that has other names, too, was given this one."""

    def directories_changed(self) -> None:
        """Directories have come, or other ones are excluded; what is in them is not reported name by name."""

    def directory_moved(self) -> None:
        """A directory is at another path now, with all that is in it."""

    def batch_ended(self, now: float, is_caught_up: bool) -> None:
        """What belongs together was reported; ``is_caught_up``: and everything that has happened."""

    def events_lost(self) -> None:
        """The kernel has dropped events: all trees are walked again."""

    @property
    def searching_since(self) -> float | None:
        """Since when there are changes of which not all paths were reported; None if there are none."""

    def deadline(self) -> float:
        """When ``work`` has something to do."""

    def work(self, seconds: float) -> None:
        """Look for changes for about that long."""
