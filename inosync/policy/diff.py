"""The difference of two configurations: what a reload has to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from inosync.policy.nodes import NodeSpec, Tree, watched_by


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
    trees_rewatched: tuple[str, ...]
    """Of those that stay: what is to be watched of them is different, since other rules apply."""
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
    rewatched = tuple(
        wpath
        for wpath, tree in new_trees.items()
        if wpath in old_trees and watched_by(tree, new.nodes) != watched_by(old_trees[wpath], old.nodes)
    )
    return Diff(*nodes, *_parted(old_trees, new_trees), rewatched, full)


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
    return replace(node, wpaths=None), config.rsync, config.rdelete, config.rretry, trees


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
        or old_node.rules(old_tree) != node.rules(tree)
        or old_node.extra != node.extra  # another shell may lead elsewhere, another option send more
        or (old.rdelete != new.rdelete and new.rdelete in (True, "startup"))  # what is to go is still there
    )
