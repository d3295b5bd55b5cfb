"""What concerns a node, and who shares a view."""

from __future__ import annotations

import pytest
from support.filters import excludes

from inosync.changes import Change, Kind
from inosync.config.nodes import NodeSpec, Tree
from inosync.config.timetable import constant
from inosync.journal.subscription import NOTHING, subscriptions

CACHE = excludes(["/cache/"])
TREES = (Tree("/1", "/a", CACHE), Tree("/2", "/b", ()))
NUMBERS = {"/1": 11, "/2": 12}


def node(name: str, *patterns: str, wpaths: tuple[str, ...] | None = None) -> NodeSpec:
    return NodeSpec(f"{name}:", name, constant(0), (), excludes(patterns), 300, wpaths=wpaths)


def name(tree: int, path: bytes, kind: Kind = Kind.NAME) -> Change:
    return Change(tree, path, kind)


def test_nodes_with_the_same_trees_and_rules_share_a_subscription() -> None:
    found = subscriptions([node("a"), node("b")], TREES, NUMBERS)
    assert found["a"] is found["b"]
    assert found["a"].everything
    assert found["a"].trees == (11, 12)
    # What the watcher leaves out is not tested again.
    assert found["a"].partially_excluded == frozenset()


def test_node_with_wpaths_of_its_own_is_concerned_by_them_only() -> None:
    found = subscriptions([node("a"), node("b", wpaths=("/2",)), node("c", wpaths=("/2",))], TREES, NUMBERS)
    view = found["b"]
    assert view is found["c"]
    assert (view.trees, view.everything) == ((12,), False)
    assert view.concerns(name(12, b"f"))
    assert not view.concerns(name(11, b"f"))
    assert found["a"].everything


def test_node_is_not_concerned_by_what_it_excludes() -> None:
    found = subscriptions([node("a"), node("b", "/drafts/", "*.tmp")], TREES, NUMBERS)
    view = found["b"]
    assert view is not found["a"]
    assert (view.partially_excluded, view.everything) == (frozenset({11, 12}), False)
    for path in (b"drafts/f", b"drafts/d/f", b"x.tmp", b"d/x.tmp", b"d/x.tmp/below"):
        assert not view.concerns(name(12, path)), path
    # As a file it would be sent.
    assert view.concerns(name(12, b"drafts"))
    assert not view.concerns(name(12, b"drafts/d", Kind.LIST))
    for change in (name(12, b"f"), name(11, b"", Kind.LIST), name(11, b"", Kind.TREE)):
        assert view.concerns(change)


@pytest.mark.parametrize("path", [b"cache/f", b"cache/keep/f"])
def test_node_alone_is_concerned_by_what_only_it_includes(path: bytes) -> None:
    found = subscriptions([node("a"), node("b", "+ /cache/")], TREES, NUMBERS)
    assert not found["a"].concerns(name(11, path))
    assert found["b"].concerns(name(11, path))
    assert not found["a"].everything


def test_empty_subscription_is_concerned_by_nothing() -> None:
    assert not NOTHING.concerns(name(11, b"f"))
    assert subscriptions([], TREES, NUMBERS) == {}
