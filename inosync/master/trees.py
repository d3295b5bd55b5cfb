"""The wpaths of a configuration as trees. Batches and the journal know a tree by its number."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from inosync.config.diff import Diff
from inosync.config.load import Config
from inosync.config.nodes import Tree, watched_by
from inosync.filters import rules as filter_rules
from inosync.filters.rules import Excluded, Rules
from inosync.guard.guard import Guard
from inosync.journal.journal import Journal
from inosync.rsync.options import one_file_system
from inosync.watch.roots import Roots
from inosync.watch.tree import Since


@dataclass(slots=True)
class TreeTable:
    """The trees and their numbers. A number is never used again."""

    numbers: dict[str, int] = field(default_factory=dict)
    """By wpath."""
    excluded: dict[int, Excluded] = field(default_factory=dict)
    """By number: whether no node is sent a path."""
    refiltering: dict[int, set[str]] = field(default_factory=dict)
    """By number: the nodes to be compared once other rules are in force all over the tree."""
    last: int = 0
    """The number given last."""

    def wpath(self, number: int) -> str:
        """The directory that a number stands for."""
        return next((wpath for wpath, known in self.numbers.items() if known == number), "?")


@dataclass(slots=True)
class Trees:
    """Has the watcher and the guard follow what a configuration says of the trees."""

    table: TreeTable
    roots: Roots
    guard: Guard
    journal: Journal
    roots_only: bool = False
    """Whether changes below the roots come from elsewhere."""

    def add(self, tree: Tree, config: Config, wait: bool, since: Since | None = None) -> None:
        """Watch a tree. OSError if its root cannot be watched, unless ``wait``.

        ``since``: record what has changed since then, instead of comparing all of it.
        """
        self.table.last = number = self.table.last + 1
        self.table.numbers[tree.wpath] = number
        excluded = self.table.excluded[number] = excluded_by_all(tree, config)
        self.guard.add_tree(number, tree.wpath, excluded)
        one_system = is_one_file_system(tree, config)
        unwatched = _everything if self.roots_only else excluded
        self.roots.add(number, tree.wpath, config.emask, unwatched, wait, one_system, since)

    def follow(self, old: Config, new: Config, changes: Diff) -> None:
        """Watch what another configuration wants. A root that cannot be watched is waited for."""
        trees = {tree.wpath: tree for tree in new.trees}
        for wpath in changes.trees_removed:  # first: a tree may have moved to above another
            self._remove(wpath)
        for wpath in changes.trees_added:
            self.add(trees[wpath], new, wait=True)
        for wpath, change in changes.refilter.items():
            number = self.table.numbers[wpath]
            if change.places is None:
                self.table.refiltering.setdefault(number, set()).update(change.nodes)
            excluded = self.table.excluded[number] = excluded_by_all(trees[wpath], new)
            self.guard.refilter(number, excluded)
            self.roots.refilter(number, excluded, change.places)
        for wpath, tree in trees.items():
            self.roots.set_one_file_system(self.table.numbers[wpath], is_one_file_system(tree, new))
            if new.emask != old.emask:
                self.roots.set_events(self.table.numbers[wpath], new.emask)

    def _remove(self, wpath: str) -> None:
        number = self.table.numbers.pop(wpath)
        del self.table.excluded[number]
        self.table.refiltering.pop(number, None)
        self.roots.remove(number)
        self.guard.remove_tree(number)
        self.journal.drop_tree(number)


def _everything(_path: bytes, _is_dir: bool) -> bool:
    return True


def excluded_by_all(tree: Tree, config: Config) -> Excluded:
    """Return a test whether a path of a tree need not be watched, because no node gets it."""
    root = os.fsencode(tree.wpath)
    return filter_rules.hidden_by_all(
        Rules(rules, root=root) for rules in watched_by(tree, config.watched_for)
    )


def is_one_file_system(tree: Tree, config: Config) -> bool:
    """Whether no node is sent what is below the mount points of a tree."""
    return all(one_file_system(node.extra) for node in config.watched_for if node.gets(tree))
