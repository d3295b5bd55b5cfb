"""The state as bytes: everything survives, and nothing that is damaged is taken for a state."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inosync.changes import Kind
from inosync.guard.loss import Memory
from inosync.state import document
from inosync.state.document import (
    NodeEvent,
    Owed,
    RootFacts,
    SavedNode,
    SavedTree,
    State,
    StateError,
    decode,
    encode,
)
from inosync.state.saved_fleet import SavedFleet

TREE = SavedTree(RootFacts("ext4", "ab", 2), {"mnt": "cd 5"}, Memory(2, mounted=True, bare=True), True)
NODE = SavedNode(
    time=5.25,
    trees={"/w": {"rules": "x"}},
    owed=(
        Owed("/w", b"a\xff\n\0b", Kind.LIST, False, 3, 1.5),
        Owed("/w", b"c", Kind.NAME, True, 0, None),
    ),
    problem="full disk \u20ac",
    paused=True,
    untidy=True,
    hooks_lost=True,
    last_ok=1.0,
    verified_at=None,
    differences=7,
    events=(NodeEvent(4.5, "failed", "x \u20ac\n", 3), NodeEvent(5.0, "state", "is ok")),
)
STATE = State(
    "/etc/c.py", 9.5, "boot", 1.25, True, {"ruser": "r"}, {"/w": TREE}, {"n": NODE, "m": SavedNode()}
)


def test_state_survives_as_it_is() -> None:
    assert decode(encode(STATE)) == STATE


@given(st.binary(min_size=1, max_size=40), st.text(max_size=20))
def test_any_name_of_a_file_survives(path: bytes, problem: str) -> None:
    node = SavedNode(owed=(Owed("/w", path),), problem=problem.encode("utf-8", "replace").decode())
    assert decode(encode(replace(STATE, nodes={"n": node}))).nodes["n"] == node


@given(st.data())
def test_torn_or_damaged_bytes_are_no_state(data: st.DataObject) -> None:
    whole = encode(STATE)
    end = data.draw(st.integers(0, len(whole) - 1))
    damaged = bytearray(whole)
    damaged[end] ^= data.draw(st.integers(1, 255))
    for wrong in (whole[:end], bytes(damaged), whole + b"x", whole[end:] + whole[:end] if end else b""):
        with pytest.raises(StateError):
            decode(wrong)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is empty"),
        (bytes(4096), "is not readable"),
        (b"inosync-state 2 abc\n{}", "is of another version of inosync (format '2', not 1)"),
        (b"inosync-state 1 abc\n{}", "is damaged: its checksum is wrong"),
    ],
)
def test_reason_says_what_is_wrong(data: bytes, why: str) -> None:
    with pytest.raises(StateError) as caught:
        decode(data)
    assert str(caught.value) == why


def with_body(body: Any) -> bytes:
    text = json.dumps(body).encode()
    return f"inosync-state 1 {hashlib.sha256(text).hexdigest()}\n".encode() + text


def body() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(encode(STATE).partition(b"\n")[2])
    return found


def test_body_with_a_right_checksum_is_read() -> None:
    assert decode(with_body(body())) == STATE


def test_state_of_an_older_inosync_is_read() -> None:
    older = body()
    del older["trees"]["/w"]["memory"][-1]
    del older["nodes"]["n"]["events"]
    assert decode(with_body(older)) == replace(STATE, nodes={**STATE.nodes, "n": replace(NODE, events=())})


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("written",), "soon"),
        (("written",), True),
        (("written",), float("nan")),
        (("written",), float("inf")),
        (("config",), None),
        (("nodes",), []),
        (("nodes", "n"), None),
        (("nodes", "n", "paused"), 1),
        (("nodes", "n", "time"), "1"),
        (("nodes", "n", "trees", "/w"), {"rules": 5}),
        (("nodes", "n", "owed", 0), ["/w", "a"]),
        (("nodes", "n", "owed", 0, 2), 9),
        (("nodes", "n", "owed", 0, 2), True),
        (("nodes", "n", "events"), {}),
        (("nodes", "n", "events", 0), [1.0, "state"]),
        (("nodes", "n", "events", 0, 0), None),
        (("nodes", "n", "events", 0, 3), 1.5),
        (("trees", "/w", "root"), ["ext4", "ab"]),
        (("trees", "/w", "root", 2), "2"),
        (("trees", "/w", "memory"), [None]),
        (("trees", "/w", "memory", 0), 1.5),
        (("trees", "/w", "memory", 4), 5),
        (("trees", "/w", "mounts"), {"mnt": 1}),
    ],
)
def test_value_of_a_wrong_type_is_no_state(place: tuple[Any, ...], value: object) -> None:
    found = body()
    inner: Any = found
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with pytest.raises(StateError):
        decode(with_body(found))


@pytest.mark.parametrize("key", ["config", "nodes", "trees", "common", "clean"])
def test_missing_value_is_no_state(key: str) -> None:
    found = body()
    del found[key]
    with pytest.raises(StateError):
        decode(with_body(found))


def test_too_many_owed_names_become_their_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "MAX_OWED", 3)
    few = SavedNode(owed=tuple(Owed("/w", b"%d" % number) for number in range(2)))
    many = SavedNode(owed=tuple(Owed(f"/{number % 2}", b"%d" % number) for number in range(9)))
    found = decode(encode(replace(STATE, nodes={"few": few, "many": many, "rest": few})))
    assert found.nodes["few"] == few
    assert {(one.wpath, one.path, one.kind) for one in found.nodes["many"].owed} == {
        ("/0", b"", Kind.TREE),
        ("/1", b"", Kind.TREE),
    }
    assert {one.kind for one in found.nodes["rest"].owed} == {Kind.TREE}


def test_too_long_owed_names_become_their_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "MAX_OWED_BYTES", 100)
    node = SavedNode(owed=tuple(Owed("/w", b"x" * 60) for _ in range(2)))
    assert decode(encode(replace(STATE, nodes={"n": node}))).nodes["n"].owed == (Owed("/w", b"", Kind.TREE),)


def test_hold_is_kept_and_was_unknown_to_earlier_versions() -> None:
    assert decode(encode(replace(STATE, held_until=7.5))).held_until == 7.5
    found = body()
    del found["held_until"]
    assert decode(with_body(found)).held_until is None
    found["held_until"] = "soon"
    with pytest.raises(StateError):
        decode(with_body(found))


def test_fleet_is_kept_and_was_unknown_to_earlier_versions() -> None:
    state = replace(STATE, fleet=SavedFleet("c", "e", 9, 3, 5.0))
    assert decode(encode(state)) == state
    found = body()
    del found["fleet"]
    assert decode(with_body(found)) == STATE
    kept = json.loads(encode(state).partition(b"\n")[2])["fleet"]
    wrongs: list[object] = [5, [], {}, {**kept, "floor": "3"}]
    for wrong in wrongs:
        with pytest.raises(StateError):
            decode(with_body({**found, "fleet": wrong}))


def test_orders_for_far_nodes_are_kept_and_were_unknown_before() -> None:
    for orders in ({}, {"a": "1 0 0 0"}, None):
        state = replace(STATE, far_orders=orders)
        assert decode(encode(state)) == state
    found = body()
    del found["far_orders"]
    assert decode(with_body(found)).far_orders is None
    for wrong in ("a", [1], {"a": 1}):
        with pytest.raises(StateError):
            decode(with_body({**found, "far_orders": wrong}))
