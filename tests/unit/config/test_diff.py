"""What a reload has to do."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import pytest
from support import configs
from support.filters import excludes

from inosync.config.diff import Diff, Refilter, diff
from inosync.config.load import Config
from inosync.config.nodes import NodeSpec, Tree
from inosync.config.timetable import Timetable, constant
from inosync.filters import rule as rules
from inosync.filters.rule import Rule

X, Y = excludes(["x"]), excludes(["y"])
TREES = (Tree("/1", "/a", ()), Tree("/2", "/b", X))
NODE = NodeSpec("h:", "h", constant(0), (), (), 300)
OLD = Config(
    path="conf.py",
    trees=TREES,
    nodes=(NODE,),
    emask=frozenset({"IN_CREATE"}),
    equiet=0.05,
    rsync="/usr/bin/rsync",
    rslots=4,
    rundir="/run/inosync",
    statedir="/var/lib/inosync",
    **configs.DEFAULTS,
)


def with_node(**values: Any) -> Config:
    return dataclasses.replace(OLD, nodes=(dataclasses.replace(NODE, **values),))


def with_config(**values: Any) -> Config:
    return dataclasses.replace(OLD, **values)


@pytest.mark.parametrize(
    ("new", "full"),
    [
        (with_node(rspeed=constant(5)), ()),
        (with_node(rspeed=Timetable(((480, 0), (1380, 5)))), ()),
        (with_node(rtimeout=5.0), ()),
        (with_node(rwarm=False), ()),
        (with_node(node="h:/"), ("/1", "/2")),
        (with_node(extra=("-z",)), ("/1", "/2")),
        (with_node(own_rules=X), ()),
        (with_node(extra_rules=X), ()),
        (with_node(own_rules=rules.from_pattern("+ x")), ()),
        (with_config(rsync="/opt/rsync"), ()),
        (with_config(rretry=(2, 300)), ()),
        (with_config(rdelete=False), ()),
        (with_config(rdelete="running"), ()),
        (with_config(rdelete="startup"), ("/1", "/2")),
        (with_config(trees=TREES[::-1]), ()),
        (with_config(trees=TREES[:1]), ()),
        (with_config(trees=(*TREES, Tree("/3", "/c", ()))), ("/3",)),
        (with_config(trees=(TREES[0], Tree("/2", "/c", X))), ("/2",)),
        (with_config(trees=(TREES[0], Tree("/2", "/b", ()))), ()),
    ],
)
def test_changed_node_is_mirrored_in_full_only_where_it_must_be(new: Config, full: tuple[str, ...]) -> None:
    found = diff(OLD, new)
    assert found.nodes_changed == ("h",)
    assert found.full == {"h": full}


@pytest.mark.parametrize(
    "new",
    [
        OLD,
        with_config(edelay=1, equiet=1, emask=frozenset({"IN_DELETE"}), rslots=1, path="other.py"),
        with_config(nodes=(NODE, NodeSpec("i:", "i", constant(0), (), (), 300))),
    ],
)
def test_node_is_kept_if_nothing_changes_for_it(new: Config) -> None:
    found = diff(OLD, new)
    assert (found.nodes_changed, found.nodes_removed) == ((), ())
    assert (found.trees_added, found.trees_removed) == ((), ())
    assert found.full == {}


def test_node_is_unaffected_by_trees_that_it_does_not_get() -> None:
    only = with_node(wpaths=("/1",))
    assert diff(OLD, only).nodes_changed == ("h",)
    assert diff(OLD, only).full == {"h": ()}
    assert diff(only, OLD).full == {"h": ("/2",)}
    assert diff(OLD, with_node(wpaths=("/1", "/2"))).nodes_changed == ()
    without = dataclasses.replace(only, trees=TREES[:1])
    another = dataclasses.replace(only, trees=(*TREES, Tree("/3", "/c", ())))
    for new in (without, another, dataclasses.replace(only, trees=(TREES[0], Tree("/2", "/x", ())))):
        assert diff(only, new).nodes_changed == ()


def test_nodes_and_trees_are_added_and_removed() -> None:
    other = NodeSpec("i:", "i", constant(0), (), (), 300)
    new = with_config(nodes=(other,), trees=(Tree("/2", "/b", ()), Tree("/3", "/c", ())))
    everywhere = {"/2": Refilter(None, ("i",))}
    assert diff(OLD, new) == Diff(("i",), ("h",), (), ("/3",), ("/1",), everywhere, {})


def excluding(*patterns: str) -> tuple[Rule, ...]:
    return excludes(patterns)


SUBTREE = excluding("/sub/tree/")


@pytest.mark.parametrize(
    ("new", "refilter"),
    [
        (OLD, {}),
        (with_node(own_rules=SUBTREE), {"/1": (b"sub/tree",), "/2": (b"sub/tree",)}),
        (with_node(own_rules=X), {"/1": None}),
        (with_node(extra_rules=rules.from_pattern("!")), {"/2": None}),
        (with_config(trees=(Tree("/1", "/a", SUBTREE), TREES[1])), {"/1": (b"sub/tree",)}),
        (with_config(trees=(Tree("/1", "/elsewhere", ()), TREES[1])), {}),
        (with_config(trees=(TREES[0], Tree("/2", "/b", X + excluding("/y", "/z/*")))), {"/2": (b"y", b"z")}),
        # Only to be sent otherwise, not to be watched otherwise.
        (with_node(extra_rules=rules.from_filter("P /kept")), {"/1": (b"kept",), "/2": (b"kept",)}),
    ],
)
def test_new_rules_matter_where_they_may_match(
    new: Config, refilter: dict[str, tuple[bytes, ...] | None]
) -> None:
    found = diff(OLD, new)
    places = {wpath: None if paths is None else frozenset(paths) for wpath, paths in refilter.items()}
    assert {wpath: each.places for wpath, each in found.refilter.items()} == places
    assert not set(found.full.get("h", ())) & set(places)
    for each in found.refilter.values():
        assert each.nodes == ("h",)


@pytest.mark.parametrize(
    ("other", "places"),
    [
        (NodeSpec("i:", "i", constant(0), (), (), 300), frozenset()),
        # What another node excludes beside it takes no watch away.
        (NodeSpec("i:", "i", constant(0), (), Y, 300), frozenset()),
        (NodeSpec("i:", "i", constant(0), (), rules.from_pattern("+ /sub/x"), 300), frozenset({b"sub/x"})),
        (NodeSpec("i:", "i", constant(0), (), rules.from_pattern("+ x"), 300), None),
    ],
)
def test_added_node_may_need_more_watches(other: NodeSpec, places: frozenset[bytes] | None) -> None:
    found = diff(OLD, with_config(nodes=(NODE, other)))
    back = diff(with_config(nodes=(NODE, other)), OLD)
    assert found.nodes_changed == back.nodes_changed == ()
    if places == frozenset():
        assert found.refilter == back.refilter == {}
    else:
        # It is new: it waits for the watches, and nobody else has to be compared.
        assert found.refilter == {"/2": Refilter(places, ("i",))}
        assert back.refilter == {"/2": Refilter(places, ())}


def test_renamed_node_is_removed_and_added() -> None:
    found = diff(OLD, with_node(name="other"))
    assert (found.nodes_added, found.nodes_removed, found.full) == (("other",), ("h",), {})


@pytest.mark.parametrize("deletes", [True, False])
@pytest.mark.parametrize("rule", ["- /d/e", "H /d/e", "R /d/e", "-p /d/e"])
def test_hidden_but_unprotected_names_relist_their_directory(rule: str, deletes: bool) -> None:
    extra = ("--delete-excluded",) if deletes else ()
    found = diff(with_node(extra=extra), with_node(extra=extra, own_rules=rules.from_filter(rule))).refilter
    place = b"d/e" if rule[:2] == "- " and not deletes else b"d"
    assert found == {wpath: Refilter(frozenset({place}), ("h",)) for wpath in ("/1", "/2")}


def calls_of_diff(count: int) -> int:
    """Count the function calls of a diff of so many nodes with rules of their own."""
    nodes = [NodeSpec(f"h{n}:", f"h{n}", own_rules=excluding(f"/of/{n}")) for n in range(count)]
    changed = [dataclasses.replace(node, own_rules=(*node.own_rules, *SUBTREE)) for node in nodes]
    old, new = with_config(nodes=tuple(nodes)), with_config(nodes=tuple(changed))
    calls = 0

    def counted(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(counted)
    try:
        diff(old, new)
    finally:
        sys.setprofile(before)
    return calls


def test_diff_of_twice_the_nodes_takes_twice_the_calls() -> None:
    assert calls_of_diff(400) < 2.2 * calls_of_diff(200)
