"""Which changes concern a node: those of the trees that it mirrors, less what its rules exclude."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from inosync.changes import Change
from inosync.config.nodes import NodeSpec, Tree, watched_by
from inosync.filters.rule import Rule
from inosync.filters.rules import Rules


@dataclass(frozen=True, slots=True, eq=False)
class Subscription:
    """Nodes that share one are sent the same. Trees by their numbers."""

    rules: Mapping[int, Rules]
    """The rules of each tree that is mirrored."""
    partially_excluded: frozenset[int]
    """The trees in which more is watched, for other nodes, than is mirrored here."""
    everything: bool
    """Whether every change in the journal concerns it."""

    @property
    def trees(self) -> tuple[int, ...]:
        return tuple(self.rules)

    def concerns(self, change: Change) -> bool:
        """Whether a node has to look at a change. Where that depends on the kind of file, it has to."""
        rules = self.rules.get(change.tree)
        return rules is not None and not (change.tree in self.partially_excluded and rules.hides(change.path))


NOTHING = Subscription({}, frozenset(), False)


def subscriptions(
    nodes: Iterable[NodeSpec], trees: Sequence[Tree], numbers: Mapping[str, int]
) -> dict[str, Subscription]:
    """Return the subscription of each node, by its name; ``numbers`` are those of the trees, by wpath."""
    nodes = tuple(nodes)
    compiled: dict[tuple[str, tuple[Rule, ...]], Rules] = {}
    made: dict[tuple[object, ...], Subscription] = {}
    watched = {tree.wpath: watched_by(tree, nodes) for tree in trees}
    found = {}
    for node in nodes:
        own = {tree: node.rules(tree) for tree in filter(node.gets, trees)}
        key = tuple((tree.wpath, rules) for tree, rules in own.items())
        if key not in made:
            for tree, rules in own.items():
                compiled.setdefault((tree.wpath, rules), Rules(rules, root=os.fsencode(tree.wpath)))
            partial = [tree for tree in own if watched[tree.wpath] != watched_by(tree, [node])]
            made[key] = Subscription(
                {numbers[tree.wpath]: compiled[tree.wpath, rules] for tree, rules in own.items()},
                frozenset(numbers[tree.wpath] for tree in partial),
                everything=not partial and len(own) == len(trees),
            )
        found[node.name] = made[key]
    return found
