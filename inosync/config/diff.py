"""The difference of two configurations: what a reload has to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from inosync.config.hook import Hook
from inosync.config.nodes import NodeSpec, Tree, watched_by
from inosync.filters.affected import affected, listings, merged
from inosync.filters.rules import Rule
from inosync.rsync.options import options


class Configuration(Protocol):
    """What a worker uses of a configuration."""

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
    """Other rules for a tree."""

    places: frozenset[bytes] | None
    """The subtrees in which they may make a difference; None: it may be anywhere."""
    nodes: tuple[str, ...]
    """If it may be anywhere: the nodes to be mirrored in full once all is watched that is to be."""


@dataclass(frozen=True, slots=True)
class Diff:
    """What a reload has to do. Nodes by name, trees by wpath, each in the order of its file."""

    nodes_added: tuple[str, ...]
    nodes_removed: tuple[str, ...]
    nodes_changed: tuple[str, ...]
    """Something that their worker uses is different."""
    nodes_kept: tuple[str, ...]
    trees_added: tuple[str, ...]
    trees_removed: tuple[str, ...]
    trees_changed: tuple[str, ...]
    trees_kept: tuple[str, ...]
    refilter: Mapping[str, Refilter]
    """For those trees that stay, and for which other rules apply, what that means."""
    full: Mapping[str, tuple[str, ...]]
    """For each changed node the wpaths to be mirrored in full again; of the others it keeps its place."""


def diff(old: Configuration, new: Configuration) -> Diff:
    """What is different in ``new``."""
    old_nodes, new_nodes = ({n.name: n for n in config.nodes} for config in (old, new))
    old_trees, new_trees = ({t.wpath: t for t in config.trees} for config in (old, new))
    nodes = _parted(
        {name: _used_by_worker(old, node) for name, node in old_nodes.items()},
        {name: _used_by_worker(new, node) for name, node in new_nodes.items()},
    )
    full = {
        name: tuple(
            tree.wpath
            for tree in filter(new_nodes[name].gets, new.trees)
            if _needs_full(old, old_nodes[name], old_trees.get(tree.wpath), new, new_nodes[name], tree)
        )
        for name in nodes[2]
    }
    refilter = {}
    for wpath, tree in new_trees.items():
        if wpath in old_trees:
            found = _refilter(old_nodes, old_trees[wpath], new_nodes, tree)
            if found.places is None or found.places:
                others = (name for name, wpaths in full.items() if wpath in wpaths)
                added = (name for name in nodes[0] if new_nodes[name].gets(tree))
                refilter[wpath] = Refilter(
                    found.places, tuple(dict.fromkeys((*found.nodes, *others, *added)))
                )
    return Diff(*nodes, *_parted(old_trees, new_trees), refilter, full)


def _refilter(
    old_nodes: Mapping[str, NodeSpec], old_tree: Tree, new_nodes: Mapping[str, NodeSpec], tree: Tree
) -> Refilter:
    """Where other rules matter, to nodes that have the tree already or to what is watched of it."""
    by_node = {
        name: _affected(old_nodes[name].rules(old_tree), node.rules(tree), node)
        for name, node in new_nodes.items()
        if name in old_nodes and old_nodes[name].gets(old_tree) and node.gets(tree)
    }
    places = merged([*by_node.values(), _watched_otherwise(old_nodes, old_tree, new_nodes, tree)])
    return Refilter(places, tuple(name for name, own in by_node.items() if own is None or own))


def _affected(old: tuple[Rule, ...], new: tuple[Rule, ...], node: NodeSpec) -> frozenset[bytes] | None:
    places = affected(old, new)
    hides_only = {("s", False), ("r", True)}  # H, which does not protect, and R, which lifts protection
    bare = any(rule.perishable or (rule.sides, rule.include) in hides_only for rule in (*old, *new))
    if bare or any(option == "--delete-excluded" for option, _ in options(node.extra)):
        return listings(places)  # what is hidden may have to go, and is no name that can be sent
    return places


def _watched_otherwise(
    old_nodes: Mapping[str, NodeSpec], old_tree: Tree, new_nodes: Mapping[str, NodeSpec], tree: Tree
) -> frozenset[bytes] | None:
    """Where something else is to be watched: what is not is what each of the lists excludes.

    Outside of the places where a list that comes or goes differs from one that is there anyway, it agrees
    with that one, and makes no difference.
    """
    old, new = watched_by(old_tree, old_nodes.values()), watched_by(tree, new_nodes.values())
    anyway = next(iter(old & new or old), ())
    return merged(affected(anyway, one) for one in old ^ new)


_Keys = tuple[str, ...]


def _parted(old: Mapping[str, object], new: Mapping[str, object]) -> tuple[_Keys, _Keys, _Keys, _Keys]:
    """Added, removed, changed and kept keys."""
    both = [key for key in new if key in old]
    return (
        tuple(key for key in new if key not in old),
        tuple(key for key in old if key not in new),
        tuple(key for key in both if new[key] != old[key]),
        tuple(key for key in both if new[key] == old[key]),
    )


def _used_by_worker(config: Configuration, node: NodeSpec) -> tuple[object, ...]:
    trees = tuple(filter(node.gets, config.trees))
    # What is left out is told to it with each order, or is none of its business.
    node = replace(node, wpaths=None, rverify=0.0, rchecksum=False)
    return node, config.rsync, config.rdelete, config.rretry, config.on_sync, config.on_state, trees


def _needs_full(
    old: Configuration,
    old_node: NodeSpec,
    old_tree: Tree | None,
    new: Configuration,
    node: NodeSpec,
    tree: Tree,
) -> bool:
    """Whether what a node has confirmed says nothing any more about what it is to have of a tree now."""
    return (
        old_tree is None
        or not old_node.gets(old_tree)
        or old_node.target(old_tree) != node.target(tree)
        or old_node.extra != node.extra  # another shell may lead elsewhere, another option send more
        or (old.rdelete != new.rdelete and new.rdelete in (True, "startup"))  # what is to go is still there
    )
