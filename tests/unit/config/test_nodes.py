"""Node strings: which are understood, which are refused, and the rules of nodes."""

from __future__ import annotations

import pytest
from support.filters import excludes

from inosync.config.errors import Invalid
from inosync.config.nodes import (
    WARM_BY_DEFAULT,
    NodeSpec,
    Tree,
    check_node,
    check_warm,
    display_name,
    most_warm,
    watched_by,
)
from inosync.config.timetable import constant
from inosync.filters.rule import Rule, from_filter


@pytest.mark.parametrize(
    ("node", "wrong"),
    [
        ("", "is empty"),
        (" ", "is empty"),
        (None, "is not a string"),
        (b"host:", "is not a string"),
        ("-e sh:", "starts with '-'"),
        ("--rsh=sh", "starts with '-'"),
        ("ho\nst:", "control characters"),
        ("host:\0", "control characters"),
        ("host:\x1b[31m", "control characters"),
        ("host:\udcff", "control characters"),
        ("host", "not absolute"),
        ("./copy", "not absolute"),
        (":/www", "not an address"),
        ("user@:/www", "not an address"),
        ("::module", "not an address"),
        ("my host:/www", "not an address"),
        ("[::1:/www", "not an address"),
        ("user@-oProxyCommand=x:", "the name of the host starts with '-'"),
        ("rsync://-host/module", "the name of the host starts with '-'"),
        ("rsync://", "not an address"),
        ("rsync://host:port/module", "not an address"),
        ("ssh://host/www", "take ssh for the name of a host"),
        ("file:///mnt", "take file for the name of a host"),
        ("::1:/www", "IPv6"),
        ("2001:db8::1:", "IPv6"),
        ("u@fe80::1::", "IPv6"),
        ("rsync://user:secret@host/module", "has a password"),
        ("rsync://user:12/secret@host/module", None),
        ("rsync://user:sec/ret@host/module", "has a password"),
        ("user:secret@host:/www", "has a password"),
        ("user:secret@host::module", "has a password"),
    ],
)
def test_bad_node_is_refused(node: object, wrong: str | None) -> None:
    if wrong is None:  # by rsync's own rules this is the port 12 and the module "secret@host"
        assert check_node(node) == node
        return
    with pytest.raises(Invalid) as caught:
        check_node(node)
    (problem,) = caught.value.problems
    assert wrong in problem.problem


@pytest.mark.parametrize(
    ("node", "name"),
    [
        ("user@a.mirror.com:", "user@a.mirror.com"),
        ("a.mirror.com:/var/www/", "a.mirror.com:/var/www"),
        ("host::module", "host::module"),
        ("host::", "host"),
        ("rsync://host/module/", "rsync://host/module"),
        ("rsync://host:873/a@b", "rsync://host:873/a@b"),
        ("rsync://user:pw@host/module", "rsync://user@host/module"),
        ("user:pw@host:", "user@host"),
        ("host:/srv/a@b:c", "host:/srv/a@b:c"),
        ("/mnt/copy/", "/mnt/copy"),
        ("/", "/"),
    ],
)
def test_display_name_lacks_the_end_and_the_password(node: str, name: str) -> None:
    assert display_name(node) == name


def with_rules(own: str = "", after: str = "", node: str = "h:") -> NodeSpec:
    """A node with patterns as after --exclude; "+a" is for an include."""
    return NodeSpec(node, node, constant(0), (), ruled(own), 300.0, extra_rules=ruled(after))


def ruled(patterns: str) -> tuple[Rule, ...]:
    return excludes(pattern.replace("+", "+ ") for pattern in patterns.split())


def test_rules_of_a_node_come_first_and_those_in_extra_last() -> None:
    node = with_rules("own both", "both extra")
    assert node.rules(Tree("/1", "/a", ruled("both tree"))) == ruled("own both tree extra")
    assert node.transport == "ssh"
    assert node.target(Tree("/1", "/a", ())) == "h:/a"


def test_clearing_rule_clears_the_rules_of_nodes_and_trees() -> None:
    tree = Tree("/1", "/a", ruled("x ! tree"))
    assert with_rules("own x").rules(tree) == ruled("tree")
    assert with_rules("own", "x ! x last").rules(tree) == ruled("x last")


@pytest.mark.parametrize(
    ("of_nodes", "lists"),
    [
        ([("", "")], ["tree"]),
        ([("", "x"), ("", "x")], ["tree x"]),
        # More excludes than another node has take no watch away ...
        ([("own", ""), ("", "")], ["tree"]),
        ([("own", ""), ("more own", "")], ["own tree"]),
        # ... but includes add some, and what comes last is seldom asked.
        ([("+own", ""), ("", "")], ["+own tree", "tree"]),
        ([("", "x"), ("", "")], ["tree x", "tree"]),
        ([("a", ""), ("b", "")], ["a tree", "b tree"]),
        ([("", "!"), ("", "")], [""]),
        # What decides nothing is left out.
        ([("+own", "! +x")], [""]),
        ([("", "x +x +y")], ["tree x"]),
        ([], []),
    ],
)
def test_watched_by_keeps_the_lists_that_exclude_least(
    of_nodes: list[tuple[str, str]], lists: list[str]
) -> None:
    nodes = [with_rules(own, after, f"h{number}:") for number, (own, after) in enumerate(of_nodes)]
    assert watched_by(Tree("/1", "/a", ruled("tree")), nodes) == {ruled(patterns) for patterns in lists}


def test_protecting_rules_exclude_nothing_from_watching() -> None:
    rules = (
        *from_filter("P a"),
        *from_filter("-x a"),
        *from_filter("H b"),
    )
    assert watched_by(Tree("/1", "/a", rules), [with_rules()]) == {rules[2:]}


@pytest.mark.parametrize(
    ("rwarm", "nodes", "most"),
    [
        (True, 1, 4),
        (True, 10, 4),
        (True, 50, 4),
        (True, 51, 3),
        (True, 100, 2),
        (True, 101, 1),
        (True, 5000, 1),
        (False, 10, 0),
        (0, 10, 0),
        (1, 10, 1),
        (40, 500, 40),
    ],
)
def test_rwarm_bounds_the_connections_of_a_node_and_in_all(rwarm: object, nodes: int, most: int) -> None:
    assert most_warm(check_warm(rwarm), nodes) == most


def test_rwarm_of_one_is_another_value_than_true() -> None:
    # To Python they are equal, and a reload would see no difference.
    assert check_warm(1) != check_warm(True) == WARM_BY_DEFAULT
