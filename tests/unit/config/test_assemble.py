"""Trees and nodes out of the values of a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.configs import config, mistakes, text
from support.filters import excludes

from inosync.config.nodes import WARM_BY_DEFAULT, NodeSpec
from inosync.config.timetable import constant


@pytest.mark.usefixtures("here")
def test_node_overrides_the_file_or_adds_to_it() -> None:
    node = "{'node': 'h:', 'name': 'one', 'rspeed': 5, 'extra': '-z', 'rexcludes': ['x'], 'rtimeout': 7.5}"
    other = "{'node': 'i:', 'rverify': 60, 'rchecksum': True}"
    taken = config(rnodes=f"[{node}, {other}]", extra="['-v']", rspeed="9", rtimeout="8")
    assert taken.nodes == (
        NodeSpec("h:", "one", constant(5), ("-v", "-z"), excludes(["x"]), 7.5, rverify=86_400),
        NodeSpec("i:", "i", constant(9), ("-v",), (), 8, rverify=60, rchecksum=True),
    )


def test_node_gets_the_wpaths_that_it_names_or_all(here: Path) -> None:
    one = "{'node': 'h:', 'wpaths': ['b/']}"
    taken = config(wpaths="['a', 'b']", rpaths="['/x/a', '/x/b']", rnodes=f"[{one}, 'i:']")
    assert [node.wpaths for node in taken.nodes] == [(str(here / "b"),), None]
    assert [[node.gets(tree) for tree in taken.trees] for node in taken.nodes] == [
        [False, True],
        [True, True],
    ]


@pytest.mark.usefixtures("here")
def test_targets_may_be_one_place_if_no_tree_goes_to_both_nodes() -> None:
    nodes = "[{{'node': 'h:', 'wpaths': [{}]}}, {{'node': 'h:/', 'name': 'other', 'wpaths': ['b']}}]"
    trees = {"wpaths": "['a/', 'b/']", "rpaths": "['/x', '/y']"}
    assert len(config(**trees, rnodes=nodes.format("'a'")).nodes) == 2
    (mistake,) = mistakes(text(**trees, rnodes=nodes.format("'a', 'b'")))
    assert "is the same place as" in mistake


def test_excludes_of_a_wpath_come_before_those_for_all(here: Path) -> None:
    rules = f"{{'*': ['all', 'both'], 'a/': ['one', 'both'], {str(here / 'a')!r}: ['more']}}"
    taken = config(wpaths="['a', 'b']", rpaths="['/x/a', '/x/b']", rexcludes=rules)
    patterns = [[rule.pattern for rule in taken.nodes[0].rules(tree)] for tree in taken.trees]
    assert patterns == [[b"one", b"both", b"more", b"all"], [b"all", b"both"]]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("of_all", "of_others"), [("True", WARM_BY_DEFAULT), ("False", 0), ("1", 1), ("9", 9)]
)
def test_rwarm_of_a_node_overrides_that_of_the_file(of_all: str, of_others: int) -> None:
    expected = [0, WARM_BY_DEFAULT, of_others]
    nodes = "[{'node': 'h:', 'rwarm': False}, {'node': 'i:', 'rwarm': True}, 'j:']"
    assert [node.rwarm for node in config(rnodes=nodes, rwarm=of_all).nodes] == expected


@pytest.mark.usefixtures("here")
def test_rwarm_is_true_by_default() -> None:
    assert [node.rwarm for node in config(rnodes="['h:', {'node': 'i:'}]").nodes] == [WARM_BY_DEFAULT] * 2


def test_local_target_is_compared_through_links(here: Path) -> None:
    (here / "link").symlink_to("a")
    (line,) = mistakes(text(rnodes=repr([str(here / "link")]), rpaths="['/copy']"))
    assert "lies inside the wpath" in line
