"""Targets: where they are, which are refused, and which are too close to each other."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inosync.config.errors import Invalid, ValueProblem
from inosync.config.nodes import NodeSpec, Tree, check_node
from inosync.config.targets import TargetPlace, check_target, check_targets, overlaps
from inosync.config.timetable import constant
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
def test_target_is_where_rsync_puts_it(node: str, rpath: str, place: TargetPlace) -> None:
    assert check_target(check_node(node), rpath) == place
    assert transport(node) is place.transport


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
def test_bad_target_is_refused(node: str, rpath: str, wrong: str) -> None:
    with pytest.raises(Invalid) as caught:
        check_target(check_node(node), rpath)
    (problem,) = caught.value.problems
    assert wrong in problem.problem
    assert f"with rpath {rpath!r}" in problem.problem


@given(st.text(), st.text())
def test_any_text_is_a_target_or_invalid(node: str, rpath: str) -> None:
    with contextlib.suppress(Invalid):
        assert check_target(check_node(node), rpath).path


PATHS = st.lists(st.sampled_from("ab"), min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


@given(st.lists(st.tuples(st.sampled_from("xy"), PATHS), max_size=6))
def test_overlaps_are_exactly_the_places_inside_another(places: list[tuple[str, str]]) -> None:
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


def problems(nodes: list[NodeSpec], *trees: tuple[str, str]) -> list[ValueProblem]:
    links = {"/link": "/var/www", "/link/sub": "/var/www/sub"}
    some = [Tree(wpath, rpath, ()) for wpath, rpath in trees]

    def here(place: TargetPlace, _extra: object) -> str:
        return place.path if place.host == "@localhost" else ""

    def overlap(source: str, target: str) -> str:
        return "contains" if (source, target) == ("/var/www", "/bind") else ""

    return list(check_targets(nodes, some, lambda path: links.get(path, path), overlap, here))


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
        (["/bind"], [("/var/www", "")], ["contains the wpath '/var/www', by a mount"]),
        (["/bind"], [("/var/www2", "")], []),
        (["localhost:"], [("/var/www", "/var")], ["contains the wpath '/var/www'"]),
        (["localhost:"], [("/var/www", "/link/sub")], ["lies inside the wpath '/var/www'"]),
        (["elsewhere:"], [("/var/www", "/var/www")], []),
        (["/mnt/1"], [("/link", ""), ("/mnt", "/b")], ["lies inside the wpath '/mnt'"] * 2),
    ],
)
def test_targets_must_not_overlap(nodes: list[str], trees: list[tuple[str, str]], wrong: list[str]) -> None:
    found = problems([spec(node) for node in nodes], *trees)
    assert len(found) == len(wrong)
    assert all(part in problem.problem for part, problem in zip(wrong, found, strict=True))


def test_target_behind_another_ssh_port_is_another_machine() -> None:
    ports = ["--rsh=ssh -p 1", "--rsh=ssh -p 2"]
    assert problems([spec("h:", ports[0]), spec("h:/", ports[1])], ("/1", "/a")) == []
