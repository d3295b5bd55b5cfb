"""What senders say of nodes: what is read is what was written, and nonsense does no harm."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inosync.fleet.told import MAX_BYTES, ToldNode, decode, encode
from inosync.messages import NodeState

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
    told = ToldNode(NodeState.RETRYING, "Connection refused", None, 3, 1, 5, 2, 10.0)
    assert decode(encode([NODE], 100.0)) == {"n": told}


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"5", b'{"n": 5}', b"\xff", b"[" * 100_000, b'{"n": {}}' + b" " * MAX_BYTES],
)
def test_nonsense_is_of_no_node(text: bytes) -> None:
    assert decode(text) == {}


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers())


@given(st.dictionaries(st.sampled_from([*NODE]), VALUES))
def test_values_that_nobody_writes_become_harmless(one: dict[str, object]) -> None:
    told = decode(json.dumps({"n": one}).encode())["n"]
    assert isinstance(told.state, NodeState)
    assert told.reason.isprintable()
    assert told.percent is None or 0 <= told.percent <= 100
    assert min(told.batches, told.fulls, told.bytes, told.attempts) >= 0
    assert told.last_ok is None or 0 <= told.last_ok < 1e9
