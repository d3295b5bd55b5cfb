"""Which nodes the page shows together, and the commands it offers."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from support import statuses

from inosync.console.groups import commands, grouped


def arranged(nodes: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(group.title, group.reason) for group in grouped(nodes)]


def failing(name: str, reason: str, **more: Any) -> dict[str, Any]:
    return statuses.node(name, "retrying", 3.0, reason=reason, **more)


def test_no_nodes_are_no_groups() -> None:
    assert grouped([]) == []


def test_nodes_without_trouble_are_one_group_and_the_last() -> None:
    nodes = [statuses.node(str(number), "ok" if number % 3 else "syncing") for number in range(55)]
    assert arranged([statuses.node("p", "paused"), *nodes]) == [("1 paused", ""), ("36 ok, 19 syncing", "")]
    assert [group.is_good for group in grouped(nodes)] == [True]


@pytest.mark.parametrize(
    ("reasons", "common"),
    [
        (("Connection refused", "Connection refused"), "Connection refused"),
        (
            ("connect to host a1.x port 22: refused", "connect to host b2.x port 22: refused"),
            "connect to host … port 22: refused",
        ),
        (("10.0.0.1 is full", "10.0.0.12 is full"), "… is full"),
        (("a1.x: no", "b2.x: no"), "…: no"),
        (("no module at a1.x.", "no module at b2.x."), "no module at …."),
        (("3 directories", "41 directories"), "… directories"),
    ],
)
def test_nodes_with_one_reason_are_one_group(reasons: tuple[str, str], common: str) -> None:
    nodes = [failing("a1.x", reasons[0]), failing("b2.x", reasons[1])]
    assert arranged(nodes) == [("2 retrying", common)]


@pytest.mark.parametrize(
    ("reason", "other"),
    [
        ("Connection refused", "Permission denied"),
        ("connect to xa1.x", "connect to b2.x"),
        ("connect to a1.x-1", "connect to b2.x"),
        ("connect to a1.x.org", "connect to b2.x"),
    ],
)
def test_nodes_with_two_reasons_are_two_groups(reason: str, other: str) -> None:
    assert len(grouped([failing("a1.x", reason), failing("b2.x", other)])) == 2


def test_name_and_address_of_a_node_are_no_part_of_its_reason() -> None:
    nodes = [
        failing("first", "rsync://h1:873/m: unknown module", node="rsync://h1:873/m"),
        failing("second", "rsync://h2:873/m: unknown module", node="rsync://h2:873/m"),
        failing("third", "h3: unknown module", node="u@h3:"),
        failing("a.*(", "[::1]: unknown module", node="u@[::1]:/x"),
    ]
    assert [group.title for group in grouped(nodes)] == ["4 retrying"]


def test_one_reason_in_two_states_is_two_groups() -> None:
    nodes = [failing("a", "x"), statuses.node("b", "halted", reason="x")]
    assert arranged(nodes) == [("1 retrying", "x"), ("1 halted", "x")]


def test_groups_come_in_the_order_of_their_first_nodes_and_keep_theirs() -> None:
    nodes = [failing(name, reason) for name, reason in ("1x", "2y", "3x", "4y")]
    found = [(group.reason, [node["name"] for node in group.nodes]) for group in grouped(nodes)]
    assert found == [("x", ["1", "3"]), ("y", ["2", "4"])]


def test_key_of_a_group_is_the_same_when_its_numbers_change() -> None:
    keys = [
        grouped([failing(name, f"{count} left") for name in names])[0].key
        for count, names in ((3, "ab"), (2, "abc"))
    ]
    assert keys[0] == keys[1]


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("halted", ["accept"]),
        ("paused", ["resume", "a b"]),
        ("retrying", ["resync", "a b"]),
        ("ok", ["diff", "a b"]),
        ("degraded", ["diff", "a b"]),
    ],
)
def test_commands_can_be_pasted_into_a_shell(state: str, words: list[str]) -> None:
    found = [shlex.split(command) for _, command in commands(statuses.node("a b", state), "/etc/x y.py")]
    start = ["inosync", "-c", "/etc/x y.py", "-s"]
    assert found == [[*start, *words], [*start, "events", "a b"]]


def test_held_node_is_let_go_on_by_one_of_two_commands() -> None:
    found = [command.split()[-1] for _, command in commands(statuses.node("a", "held"), "/etc/x.py")]
    assert found == ["retry", "accept", "a"]
