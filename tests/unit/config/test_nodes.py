"""Node strings and targets: what is understood, what is refused, and which targets collide."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.filters import excludes

from inosync.config.errors import Invalid, ValueProblem
from inosync.config.nodes import NodeSpec, Tree, check_node, display_name, watched_by
from inosync.config.targets import TargetPlace, check_target, check_targets, overlaps
from inosync.config.timetable import constant
from inosync.filters import rule as filter_rules
from inosync.filters.rule import Rule
from inosync.rsync.target import Transport, transport

SSH, DAEMON, LOCAL = Transport.SSH, Transport.DAEMON, Transport.LOCAL


@pytest.mark.parametrize(
    ("node", "rpath", "place"),
    [
        ("a.mirror.com:", "/var/www/", TargetPlace(SSH, "@a.mirror.com", "/var/www")),
        ("user1@A.mirror.com:", "/var//www/.", TargetPlace(SSH, "user1@a.mirror.com", "/var/www")),
        ("a.mirror.com:/var/www/", "", TargetPlace(SSH, "@a.mirror.com", "/var/www")),
        ("user@host:/srv", "/www", TargetPlace(SSH, "user@host", "/srv/www")),
        ("user@host:/srv/", "www", TargetPlace(SSH, "user@host", "/srv/www")),
        ("user@host:", "www", TargetPlace(SSH, "user@host", "www")),
        ("user@host:", "~/www", TargetPlace(SSH, "user@host", "~/www")),
        ("user@host:", "./", TargetPlace(SSH, "user@host", ".")),
        ("user@host:", "/a:b", TargetPlace(SSH, "user@host", "/a:b")),
        ("[::1]:", "/www", TargetPlace(SSH, "@[::1]", "/www")),
        ("user@[fe80::1%eth0]:", "/www", TargetPlace(SSH, "user@[fe80::1%eth0]", "/www")),
        ("host::", "module/www", TargetPlace(DAEMON, "@host:873", "module/www")),
        ("host::module", "", TargetPlace(DAEMON, "@host:873", "module")),
        ("host::module", "/", TargetPlace(DAEMON, "@host:873", "module")),
        ("u@[::1]::module", "/www", TargetPlace(DAEMON, "u@[::1]:873", "module/www")),
        ("rsync://host/module", "/www/", TargetPlace(DAEMON, "@host:873", "module/www")),
        ("RSYNC://u@host:8730/module/", "www", TargetPlace(DAEMON, "u@host:8730", "module/www")),
        ("rsync://[::1]:8730/module", "", TargetPlace(DAEMON, "@[::1]:8730", "module")),
        ("rsync://host", "/module", TargetPlace(DAEMON, "@host:873", "module")),
        ("/mnt/copy", "", TargetPlace(LOCAL, "", "/mnt/copy")),
        ("/mnt/a:b", "/var/www", TargetPlace(LOCAL, "", "/mnt/a:b/var/www")),
        ("/", "/mnt", TargetPlace(LOCAL, "", "/mnt")),
    ],
)
def test_a_target_is_where_rsync_puts_it(node: str, rpath: str, place: TargetPlace) -> None:
    assert check_target(check_node(node), rpath) == place
    assert transport(node) is place.transport


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
def test_a_bad_node_is_refused(node: object, wrong: str | None) -> None:
    if wrong is None:  # by rsync's own rules this is the port 12 and the module "secret@host"
        assert check_node(node) == node
        return
    with pytest.raises(Invalid) as caught:
        check_node(node)
    (problem,) = caught.value.problems
    assert wrong in problem.problem


@pytest.mark.parametrize(
    ("node", "rpath", "wrong"),
    [
        *(("h:", path, "root directory") for path in ("/", "//", "/.", "/./", "/..", "/var/..", "/../..")),
        ("h:/", "", "root directory"),
        ("h:/", "/", "root directory"),
        *(("h:", path, "home directory of") for path in ("", "~", "~/", "~root", "~www/", ".//.", "www/..")),
        *(("h:", path, "leads out of the home") for path in ("..", "../", "../other", "www/../..")),
        ("h:", "-x", "starts with '-'"),
        ("h:", ":module", "another node"),
        ("h:/srv", "www", "this makes 'h:/srvwww'"),
        ("h::", "", "module of the rsync daemon is missing"),
        ("h::", "/www", "module of the rsync daemon is missing"),
        ("h::", ":x", "no module"),
        ("rsync://h", "", "module of the rsync daemon is missing"),
        ("rsync://h/", "", "module of the rsync daemon is missing"),
        ("rsync://h/", "/www", "module of the rsync daemon is missing"),
        ("rsync://h", "www", "another node"),
        ("rsync://h:87", "3/m", "another node"),
        ("h::m", "www", "this makes 'h::mwww'"),
        ("rsync://h/m", "www", "this makes 'rsync://h/mwww'"),
        ("h::m", "/../other", "leads out of the module"),
        ("/", "", "root directory"),
        ("/mnt", "/..", "root directory"),
        ("/mnt", "www", "this makes '/mntwww'"),
    ],
)
def test_a_bad_target_is_refused(node: str, rpath: str, wrong: str) -> None:
    with pytest.raises(Invalid) as caught:
        check_target(check_node(node), rpath)
    (problem,) = caught.value.problems
    assert wrong in problem.problem
    assert f"with rpath {rpath!r}" in problem.problem


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
def test_a_node_is_named_without_its_end_and_its_password(node: str, name: str) -> None:
    assert display_name(node) == name


@given(st.text(), st.text())
def test_any_text_is_a_place_or_invalid(node: str, rpath: str) -> None:
    with contextlib.suppress(Invalid):
        assert check_target(check_node(node), rpath).path


PATHS = st.lists(st.sampled_from("ab"), min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


@given(st.lists(st.tuples(st.sampled_from("xy"), PATHS), max_size=6))
def test_overlaps_are_exactly_the_places_that_hold_another(places: list[tuple[str, str]]) -> None:
    def holds(outer: tuple[str, str], inner: tuple[str, str]) -> bool:
        return outer[0] == inner[0] and (inner[1] + "/").startswith(outer[1] + "/")

    found = list(overlaps(places))
    assert all(holds(places[outer], places[inner]) and inner != outer for inner, outer in found)
    expected = {
        i
        for i, place in enumerate(places)
        for j, other in enumerate(places)
        if holds(other, place) and (place != other or j < i)
    }
    assert {inner for inner, _ in found} == expected


def spec(node: str, *extra: str) -> NodeSpec:
    return NodeSpec(node, node.rstrip(":"), constant(0), extra, (), 300.0)


def faults(nodes: list[NodeSpec], *trees: tuple[str, str]) -> list[ValueProblem]:
    links = {"/link": "/var/www", "/link/sub": "/var/www/sub"}
    some = [Tree(wpath, rpath, ()) for wpath, rpath in trees]
    return list(check_targets(nodes, some, lambda path: links.get(path, path)))


@pytest.mark.parametrize(
    ("nodes", "trees", "wrong"),
    [
        (["h:"], [("/1", "/a"), ("/2", "/a")], ["is the same place as 'h:/a'"]),
        (["h:"], [("/1", "/a"), ("/2", "/a/b")], ["lies inside 'h:/a'"]),
        (["h:"], [("/1", "/a/b"), ("/2", "/a")], ["lies inside 'h:/a'"]),
        (["h:", "i:"], [("/1", "/a/b"), ("/2", "/a")], ["lies inside 'h:/a'"]),
        (["h:"], [("/1", "./"), ("/2", "a")], ["lies inside 'h:./'"]),
        (["h:"], [("/1", "/a"), ("/2", "/ab")], []),
        (["h:"], [("/1", "a"), ("/2", "/a")], []),
        (["h:", "h:/"], [("/1", "/a")], ["is the same place as 'h:/a'"]),
        (["h:", "u@h:", "h::m"], [("/1", "/a")], []),
        (["h::m", "rsync://h/m"], [("/1", "/a")], ["is the same place as 'h::m/a'"]),
        (["h::m", "rsync://h:874/m"], [("/1", "/a")], []),
        (["/mnt"], [("/var/www", "/a")], []),
        (["/var/www"], [("/var/www", "")], ["is the wpath '/var/www'"]),
        (["/var/www/copy"], [("/var/www", "")], ["lies inside the wpath '/var/www'"]),
        (["/var"], [("/var/www", "")], ["contains the wpath '/var/www'"]),
        (["/link"], [("/var/www", "")], ["is the wpath '/var/www'"]),
        (["/mnt/1"], [("/link", ""), ("/mnt", "/b")], ["lies inside the wpath '/mnt'"] * 2),
    ],
)
def test_targets_keep_out_of_each_others_way(
    nodes: list[str], trees: list[tuple[str, str]], wrong: list[str]
) -> None:
    found = faults([spec(node) for node in nodes], *trees)
    assert len(found) == len(wrong)
    assert all(part in problem.problem for part, problem in zip(wrong, found, strict=True))


def test_another_port_for_ssh_is_another_machine() -> None:
    ports = ["--rsh=ssh -p 1", "--rsh=ssh -p 2"]
    assert faults([spec("h:", ports[0]), spec("h:/", ports[1])], ("/1", "/a")) == []


def with_rules(own: str = "", after: str = "", node: str = "h:") -> NodeSpec:
    """A node with patterns as after --exclude; "+a" is for an include."""
    return NodeSpec(node, node, constant(0), (), ruled(own), 300.0, extra_rules=ruled(after))


def ruled(patterns: str) -> tuple[Rule, ...]:
    return excludes(pattern.replace("+", "+ ") for pattern in patterns.split())


def test_the_rules_of_a_node_come_first_and_those_in_extra_last() -> None:
    node = with_rules("own both", "both extra")
    assert node.rules(Tree("/1", "/a", ruled("both tree"))) == ruled("own both tree extra")
    assert node.transport == "ssh"
    assert node.target(Tree("/1", "/a", ())) == "h:/a"


def test_what_clears_the_rules_clears_those_of_nodes_and_trees_before_it() -> None:
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
def test_what_the_nodes_do_not_need_watched(of_nodes: list[tuple[str, str]], lists: list[str]) -> None:
    nodes = [with_rules(own, after, f"h{number}:") for number, (own, after) in enumerate(of_nodes)]
    assert watched_by(Tree("/1", "/a", ruled("tree")), nodes) == {ruled(patterns) for patterns in lists}


def test_what_only_protects_from_deletion_is_watched() -> None:
    rules = (
        *filter_rules.from_filter("P a"),
        *filter_rules.from_filter("-x a"),
        *filter_rules.from_filter("H b"),
    )
    assert watched_by(Tree("/1", "/a", rules), [with_rules()]) == {rules[2:]}
