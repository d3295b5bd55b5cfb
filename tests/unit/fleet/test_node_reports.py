"""What senders say of nodes: what is read is what was written, and nonsense does no harm."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inosync.fleet.node_reports import (
    MAX_BYTES,
    MAX_EVENTS,
    ReportedNode,
    decode_events,
    decode_nodes,
    encode_events,
    encode_nodes,
)
from inosync.text import NodeState

NODE: dict[str, Any] = {
    "name": "n",
    "state": "retrying",
    "reason": "Connection refused",
    "percent": None,
    "batches": 3,
    "fulls": 1,
    "bytes": 5,
    "attempts": 2,
    "last_ok": 90.0,
}


def test_what_is_told_is_read_as_it_was_written() -> None:
    told = ReportedNode(NodeState.RETRYING, "Connection refused", None, 3, 1, 5, 2, 10.0)
    assert decode_nodes(encode_nodes([NODE], 100.0)) == {"n": told}


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"5", b'{"n": 5}', b"\xff", b"[" * 100_000, b'{"n": {}}' + b" " * MAX_BYTES],
)
def test_nonsense_is_of_no_node(text: bytes) -> None:
    assert decode_nodes(text) == {}


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers())


@given(st.dictionaries(st.sampled_from([*NODE]), VALUES))
def test_values_that_nobody_writes_become_harmless(one: dict[str, object]) -> None:
    told = decode_nodes(json.dumps({"n": one}).encode())["n"]
    assert isinstance(told.state, NodeState)
    assert told.reason.isprintable()
    assert told.percent is None or 0 <= told.percent <= 100
    assert min(told.batches, told.fulls, told.bytes, told.attempts) >= 0
    assert told.last_ok is None or 0 <= told.last_ok < 1e9


def test_events_are_read_as_they_were_written() -> None:
    events = {"n": [(5.5, "state", "is ok", 1), (7.0, "failed", "Connection \u2026 refused", 3)], "m": []}
    assert decode_events(encode_events(events)) == events


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"{", {}),
        (b"[1]", {}),
        (b"[" * 100_000, {}),
        (b"{}" + b" " * MAX_BYTES, {}),
        (b'{"n": 5, "m": [5, [], [1, 2, 3]]}', {"m": []}),
        (b'{"n": [["x", 5, null, -1]]}', {"n": [(0.0, "", "", 0)]}),
        (b'{"n": [[1e300, "a\\u001b", "b\\nc", 2]]}', {"n": [(0.0, "a\\x1b", "b\\nc", 2)]}),
        (b'{"n": [[NaN, "a", "b", true]]}', {"n": [(0.0, "a", "b", 0)]}),
    ],
)
def test_events_that_are_nonsense_do_no_harm(text: bytes, expected: dict[str, Any]) -> None:
    assert decode_events(text) == expected


def test_events_of_a_node_are_bounded() -> None:
    events = [(float(number), "state", "x" * 10_000, 1) for number in range(100)]
    found = decode_events(encode_events({"n": events}))["n"]
    assert [at for at, *_ in found] == [float(number) for number in range(100 - MAX_EVENTS, 100)]
    assert len(found[0][2]) <= 500
