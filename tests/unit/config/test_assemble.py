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


# Stages ------------------------------------------------------------------------------------------------

THREE = '["h:", {"node": "i:", "name": "ida"}, "j:"]'
PASS = '["/bin/true"]'


@pytest.mark.usefixtures("here")
def test_stages_name_nodes_as_written_or_by_their_names() -> None:
    made = config(rnodes=THREE, rstages='[["h:"], ["ida"], "rest"]', on_stage=PASS)
    assert made.rstages == (("h",), ("ida",), ("j",))
    assert config(rnodes=THREE).rstages == ()
    alone = config(rnodes=THREE, rstages='[["h"], ["ida", "j"], "rest"]')
    assert alone.rstages == (("h",), ("ida", "j")), "there is nothing left for the last one"
    assert alone.on_stage is None


@pytest.mark.usefixtures("here")
def test_all_mistakes_in_stages_are_reported_at_once() -> None:
    found = mistakes(text(rnodes=THREE, rstages='["rest", ["h"], ["idda", "h"]]', on_stage='["/no/check"]'))
    assert [line.partition(": ")[2] for line in found] == [
        "on_stage: '/no/check': is not found; install it, or write the path where it is",
        "rstages: 'rest': is not the last stage; all nodes that no stage names come last",
        "rstages: 'idda': is no node; did you mean ida?",
        "rstages: 'h': is in stage 2 and again in stage 3; leave one of them out",
    ]


@pytest.mark.usefixtures("here")
def test_node_in_no_stage_is_a_mistake() -> None:
    (found,) = mistakes(text(rnodes=THREE, rstages='[["h"], ["ida"]]'))
    assert found.endswith(
        "rstages: 'j': is in no stage; put it into a stage, or write \"rest\" as the last one"
    )


@pytest.mark.usefixtures("here")
def test_check_without_stages_is_a_mistake() -> None:
    (found,) = mistakes(text(on_stage=PASS))
    assert found.endswith("on_stage: there are no stages to decide between; set rstages")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ('{"command": ["/bin/true"], "settel": 1}', "'settel': is not known"),
        ('{"settle": 3}', "has no 'command' that could decide"),
        ('{"timeout": 3}', "has a 'timeout', but no 'command'"),
        ('{"command": ["/bin/true"], "only": [{"from": "/x"}]}', "has a file of patterns in it"),
        ('{"command": ["/bin/true"], "settle": -1, "patience": "x"}', "settle: -1: is negative"),
        ('"/bin/true"', "is a string, which nothing takes apart"),
    ],
)
@pytest.mark.usefixtures("here")
def test_mistakes_in_on_stage_are_reported(value: str, problem: str) -> None:
    found = mistakes(text(rnodes=THREE, rstages='[["h"], "rest"]', on_stage=value))
    assert any(problem in line for line in found), found


@pytest.mark.usefixtures("here")
def test_on_stage_with_patience_alone_checks_nothing() -> None:
    made = config(rnodes=THREE, rstages='[["h"], "rest"]', on_stage='{"patience": 60}')
    assert made.on_stage is not None
    assert (made.on_stage.hook, made.on_stage.patience) == (None, 60)
