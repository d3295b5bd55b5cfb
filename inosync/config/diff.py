"""The difference of two configurations: what a reload has to do. Linear in the number of nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from inosync.config.hook import Hook
from inosync.config.nodes import NodeSpec, Tree, watched_by
from inosync.filters.affected import affected, listings, merged
from inosync.filters.rule import Rule
from inosync.rsync.options import options


class Configuration(Protocol):
    """What workers use of a configuration."""

    @property
    def trees(self) -> tuple[Tree, ...]: ...
    @property
    def nodes(self) -> tuple[NodeSpec, ...]: ...
    @property
    def rsync(self) -> str: ...
    @property
    def rretry(self) -> tuple[float, float]: ...
    @property
    def rdelete(self) -> bool | str: ...
    @property
    def on_sync(self) -> Hook | None: ...
    @property
    def on_state(self) -> Hook | None: ...


@dataclass(frozen=True, slots=True)
class Refilter:
    """A tree to which other rules apply."""

    places: frozenset[bytes] | None
    """The subtrees in which they may make a difference; None: it may be anywhere."""
    nodes: tuple[str, ...]
    """If it may be anywhere: the nodes to be mirrored in full once the tree is watched as it is to be."""


@dataclass(frozen=True, slots=True)
class Diff:
    """What a reload has to do. Nodes by name, trees by wpath, each in the order of its file."""

    nodes_added: tuple[str, ...]
    nodes_removed: tuple[str, ...]
    nodes_changed: tuple[str, ...]
    """Those for which something that their worker uses is different."""
    trees_added: tuple[str, ...]
    trees_removed: tuple[str, ...]
    refilter: Mapping[str, Refilter]
    """The trees that stay, and to which other rules apply."""
    full: Mapping[str, tuple[str, ...]]
    """For each changed node the wpaths to be mirrored in full again; its place in the others is kept."""


def diff(old: Configuration, new: Configuration) -> Diff:
    old_nodes, new_nodes = ({node.name: node for node in config.nodes} for config in (old, new))
    old_trees, new_trees = ({tree.wpath: tree for tree in config.trees} for config in (old, new))
    nodes_added = tuple(name for name in new_nodes if name not in old_nodes)
    full = {
        name: tuple(
            tree.wpath
            for tree in filter(node.gets, new.trees)
            if _needs_full(old, old_nodes[name], old_trees.get(tree.wpath), new, node, tree)
        )
        for name, node in new_nodes.items()
        if name in old_nodes and _used_by_worker(old, old_nodes[name]) != _used_by_worker(new, node)
    }
    refilter = {}
    for wpath, tree in new_trees.items():
        if wpath in old_trees:
            found = _refilter(old_nodes, old_trees[wpath], new_nodes, tree)
            if found.places is None or found.places:
                others = (name for name, wpaths in full.items() if wpath in wpaths)
                added = (name for name in nodes_added if new_nodes[name].gets(tree))
                names = tuple(dict.fromkeys((*found.nodes, *others, *added)))
                refilter[wpath] = replace(found, nodes=names)
    return Diff(
        nodes_added=nodes_added,
        nodes_removed=tuple(name for name in old_nodes if name not in new_nodes),
        nodes_changed=tuple(full),
        trees_added=tuple(wpath for wpath in new_trees if wpath not in old_trees),
        trees_removed=tuple(wpath for wpath in old_trees if wpath not in new_trees),
        refilter=refilter,
        full=full,
    )


def _refilter(
    old_nodes: Mapping[str, NodeSpec], old_tree: Tree, new_nodes: Mapping[str, NodeSpec], tree: Tree
) -> Refilter:
    """Return where other rules matter to nodes that have the tree already, or to what is watched of it."""
    by_node = {
        name: _affected(old_nodes[name].rules(old_tree), node.rules(tree), node)
        for name, node in new_nodes.items()
        if name in old_nodes and old_nodes[name].gets(old_tree) and node.gets(tree)
    }
    places = merged([*by_node.values(), _watched_otherwise(old_nodes, old_tree, new_nodes, tree)])
    return Refilter(places, tuple(name for name, own in by_node.items() if own is None or own))


def _affected(old: tuple[Rule, ...], new: tuple[Rule, ...], node: NodeSpec) -> frozenset[bytes] | None:
    if old == new:
        return frozenset()
    places = affected(old, new)
    one_sided = {("s", False), ("r", True)}  # H, which does not protect, and R, which lifts protection
    may_go = any(rule.perishable or (rule.sides, rule.include) in one_sided for rule in (*old, *new))
    if may_go or any(option == "--delete-excluded" for option, _ in options(node.extra)):
        return listings(places)  # what is hidden may have to be removed, and is no name that can be sent
    return places


def _watched_otherwise(
    old_nodes: Mapping[str, NodeSpec], old_tree: Tree, new_nodes: Mapping[str, NodeSpec], tree: Tree
) -> frozenset[bytes] | None:
    """Return where something else is to be watched: a path is not watched if every list excludes it.

    A list that comes or goes makes a difference only where it differs from one that stays.
    """
    old, new = watched_by(old_tree, old_nodes.values()), watched_by(tree, new_nodes.values())
    staying = next(iter(old & new or old), ())
    return merged(affected(staying, rules) for rules in old ^ new)


def _used_by_worker(config: Configuration, node: NodeSpec) -> tuple[object, ...]:
    trees = tuple(filter(node.gets, config.trees))
    node = replace(node, wpaths=None, rverify=0.0, rchecksum=False)  # of these the worker hears in each order
    return node, config.rsync, config.rdelete, config.rretry, config.on_sync, config.on_state, trees


def _needs_full(
    old: Configuration,
    old_node: NodeSpec,
    old_tree: Tree | None,
    new: Configuration,
    node: NodeSpec,
    tree: Tree,
) -> bool:
    """Whether what a node has confirmed says nothing about what it is to have of a tree now."""
    return (
        old_tree is None
        or not old_node.gets(old_tree)
        or old_node.target(old_tree) != node.target(tree)
        or old_node.extra != node.extra  # another shell may lead elsewhere, another option may send more
        or (old.rdelete != new.rdelete and new.rdelete in (True, "startup"))  # what is to go is still there
    )
