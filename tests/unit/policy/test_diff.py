"""What a reload has to do."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from inosync.config import Config, Diff, NodeSpec, Tree, diff
from inosync.policy import filters

X, Y = filters.excludes(["x"]), filters.excludes(["y"])
TREES = (Tree("/1", "/a", ()), Tree("/2", "/b", X))
NODE = NodeSpec("h:", "h", 0, (), (), 300)
OLD = Config(
    path="conf.py",
    trees=TREES,
    nodes=(NODE,),
    emask=frozenset({"IN_CREATE"}),
    edelay=10,
    equiet=0.05,
    rsync="/usr/bin/rsync",
    rslots=4,
    rretry=(1, 300),
    rdelete=True,
    logfile=None,
    rundir="/run/inosync",
    pattern_files={},
    warnings=(),
)


def with_node(**values: Any) -> Config:
    return dataclasses.replace(OLD, nodes=(dataclasses.replace(NODE, **values),))


def with_config(**values: Any) -> Config:
    return dataclasses.replace(OLD, **values)


@pytest.mark.parametrize(
    ("new", "full"),
    [
        (with_node(rspeed=5), ()),
        (with_node(rtimeout=5.0), ()),
        (with_node(rwarm=False), ()),
        (with_node(node="h:/"), ("/1", "/2")),
        (with_node(extra=("-z",)), ("/1", "/2")),
        (with_node(own=X), ("/1",)),
        (with_node(after=X), ("/1",)),
        (with_node(own=filters.from_pattern("+ x")), ("/1", "/2")),
        (with_config(rsync="/opt/rsync"), ()),
        (with_config(rretry=(2, 300)), ()),
        (with_config(rdelete=False), ()),
        (with_config(rdelete="running"), ()),
        (with_config(rdelete="startup"), ("/1", "/2")),
        (with_config(trees=TREES[::-1]), ()),
        (with_config(trees=TREES[:1]), ()),
        (with_config(trees=(*TREES, Tree("/3", "/c", ()))), ("/3",)),
        (with_config(trees=(TREES[0], Tree("/2", "/c", X))), ("/2",)),
        (with_config(trees=(TREES[0], Tree("/2", "/b", ()))), ("/2",)),
    ],
)
def test_a_changed_node_is_mirrored_in_full_only_where_it_must_be(new: Config, full: tuple[str, ...]) -> None:
    found = diff(OLD, new)
    assert (found.nodes_changed, found.nodes_kept) == (("h",), ())
    assert found.full == {"h": full}


@pytest.mark.parametrize(
    "new",
    [
        OLD,
        with_config(edelay=1, equiet=1, emask=frozenset({"IN_DELETE"}), rslots=1, path="other.py"),
        with_config(nodes=(NODE, NodeSpec("i:", "i", 0, (), (), 300))),
    ],
)
def test_a_node_that_nothing_changes_for_is_kept(new: Config) -> None:
    found = diff(OLD, new)
    assert found.nodes_kept == ("h",)
    assert found.trees_kept == ("/1", "/2")
    assert found.full == {}


def test_a_node_has_nothing_to_do_with_the_trees_that_it_does_not_get() -> None:
    only = with_node(wpaths=("/1",))
    assert diff(OLD, only).nodes_changed == ("h",)
    assert diff(OLD, only).full == {"h": ()}
    assert diff(only, OLD).full == {"h": ("/2",)}
    assert diff(OLD, with_node(wpaths=("/1", "/2"))).nodes_kept == ("h",)
    without = dataclasses.replace(only, trees=TREES[:1])
    another = dataclasses.replace(only, trees=(*TREES, Tree("/3", "/c", ())))
    for new in (without, another, dataclasses.replace(only, trees=(TREES[0], Tree("/2", "/x", ())))):
        assert diff(only, new).nodes_kept == ("h",)


def test_nodes_and_trees_come_and_go() -> None:
    other = NodeSpec("i:", "i", 0, (), (), 300)
    new = with_config(nodes=(other,), trees=(Tree("/2", "/b", ()), Tree("/3", "/c", ())))
    assert diff(OLD, new) == Diff(("i",), ("h",), (), (), ("/3",), ("/1",), ("/2",), (), ("/2",), {})


@pytest.mark.parametrize(
    ("new", "rewatched"),
    [
        (OLD, ()),
        (with_node(own=X), ("/1",)),
        (with_node(after=filters.from_pattern("!")), ("/2",)),
        (with_config(trees=(Tree("/1", "/a", X), TREES[1])), ("/1",)),
        (with_config(trees=(Tree("/1", "/elsewhere", ()), TREES[1])), ()),
        (with_config(trees=(TREES[0], Tree("/2", "/b", X + Y))), ("/2",)),
        # What another node excludes beside it takes no watch away.
        (with_config(nodes=(NODE, NodeSpec("i:", "i", 0, (), Y, 300))), ()),
        (with_config(nodes=(NODE, NodeSpec("i:", "i", 0, (), filters.from_pattern("+ x"), 300))), ("/2",)),
    ],
)
def test_a_tree_is_watched_anew_where_the_rules_for_all_nodes_are_others(
    new: Config, rewatched: tuple[str, ...]
) -> None:
    assert diff(OLD, new).trees_rewatched == rewatched


def test_a_renamed_node_starts_anew() -> None:
    found = diff(OLD, with_node(name="other"))
    assert (found.nodes_added, found.nodes_removed, found.full) == (("other",), ("h",), {})
