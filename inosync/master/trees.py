"""The wpaths of a configuration, each as a tree with a number: how batches and the journal call it."""

from __future__ import annotations

import os

from inosync.config.diff import Refilter
from inosync.config.load import Config
from inosync.config.nodes import Tree, watched_by
from inosync.filters import rules as filter_rules
from inosync.filters.rules import Excluded, Rules
from inosync.guard.guard import Guard
from inosync.rsync.options import one_file_system
from inosync.watch.watcher import Watcher


class Trees:
    """Has the watcher follow what the configuration says of the trees. A number is never used again."""

    def __init__(self, watcher: Watcher, guard: Guard) -> None:
        self._watcher, self._guard = watcher, guard
        self.numbers: dict[str, int] = {}
        """By wpath."""
        self.excluded: dict[int, Excluded] = {}
        """By number: whether nobody is sent a path."""
        self._last = 0
        self._uncompared: dict[int, set[str]] = {}
        """By number: the nodes that wait for other rules to be in force all over the tree."""

    def wpath(self, number: int) -> str:
        """What a tree is a number of."""
        return next((wpath for wpath, known in self.numbers.items() if known == number), "?")

    def add(self, tree: Tree, config: Config, wait: bool) -> None:
        """Watch a tree. OSError if its root cannot be watched, unless it is to be waited for."""
        self._last += 1
        self.numbers[tree.wpath] = self._last
        excluded = self.excluded[self._last] = _excluded(tree, config)
        self._guard.add_tree(self._last, tree.wpath, excluded)
        stays = _stays(tree, config)
        self._watcher.add_tree(self._last, tree.wpath, config.emask, excluded, wait, stays)

    def remove(self, wpath: str) -> int:
        """Watch a tree no longer; the number that it had."""
        number = self.numbers.pop(wpath)
        del self.excluded[number]
        self._uncompared.pop(number, None)
        self._watcher.remove_tree(number)
        self._guard.remove_tree(number)
        return number

    def refilter(self, tree: Tree, config: Config, change: Refilter) -> None:
        """Let other rules decide what is watched; ``uncompared`` holds who waits for the end of that."""
        number = self.numbers[tree.wpath]
        if change.places is None:
            self._uncompared.setdefault(number, set()).update(change.nodes)
        excluded = self.excluded[number] = _excluded(tree, config)
        self._guard.refilter(number, excluded)
        self._watcher.refilter(number, excluded, change.places)

    def uncompared(self, number: int) -> set[str]:
        """The names of the nodes that have waited until a tree is watched by its new rules."""
        return self._uncompared.pop(number, set())

    def cross(self, config: Config) -> None:
        """Let other trees have what is below mount points."""
        for tree in config.trees:
            self._watcher.set_one_file_system(self.numbers[tree.wpath], _stays(tree, config))

    def retune(self, config: Config) -> None:
        """Let other events be a change."""
        for number in self.numbers.values():
            self._watcher.set_events(number, config.emask)


def _excluded(tree: Tree, config: Config) -> Excluded:
    """Whether nobody needs a path of a tree to be watched."""
    root = os.fsencode(tree.wpath)
    return filter_rules.hidden_by_all(Rules(rules, root=root) for rules in watched_by(tree, config.nodes))


def _stays(tree: Tree, config: Config) -> bool:
    """Whether nobody is sent what other file systems have in a tree."""
    return all(one_file_system(node.extra) for node in config.nodes if node.gets(tree))
