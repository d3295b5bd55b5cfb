"""What a sender says of the nodes that it serves, for status and events at the origin. Pure.

Whoever can write to Redis can write anything: what is read is checked, and only shown.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from inosync.text import NodeState, one_line

MAX_BYTES = 1 << 23
"""The longest text of a sender."""
MAX_TEXT = 500
MAX_COUNT = 1 << 62
MAX_SECONDS = 1e9
MAX_TIME = 1e11
"""Seconds since the epoch that a date can be made of."""
MAX_EVENTS = 10
"""Of one node, from one sender."""
Event = tuple[float, str, str, int]
"""When it happened, by the clock of the sender; kind, text, and how often."""
_STATES = {state.value for state in NodeState}
_COUNTS = ("batches", "fulls", "bytes", "attempts")


@dataclass(frozen=True, slots=True)
class ReportedNode:
    """How a node is, as its sender says."""

    state: NodeState
    reason: str = ""
    percent: int | None = None
    batches: int = 0
    fulls: int = 0
    bytes: int = 0
    attempts: int = 0
    last_ok: float | None = None
    """Seconds ago, because clocks may be apart."""


def encode_nodes(nodes: Iterable[Mapping[str, Any]], now: float) -> bytes:
    """Return the text for nodes as ``status --json`` describes them; ``now`` in seconds since the epoch."""
    found = {}
    for node in nodes:
        last_ok = None if node["last_ok"] is None else round(now - node["last_ok"], 1)
        one = {key: node[key] for key in ("state", "percent", *_COUNTS)}
        found[node["name"]] = {**one, "reason": node["reason"][:MAX_TEXT], "last_ok": last_ok}
    return json.dumps(found, separators=(",", ":")).encode("ascii")


def decode_nodes(text: bytes) -> dict[str, ReportedNode]:
    """Return what a sender says of its nodes, by name, as far as it can be understood."""
    return {name: _node(one) for name, one in _by_name(text).items() if isinstance(one, dict)}


def _by_name(text: bytes) -> dict[str, Any]:
    """Return what a text says by the names of nodes; nothing if it is too long, or something else."""
    if len(text) > MAX_BYTES:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _node(one: Mapping[str, Any]) -> ReportedNode:
    state, reason = one.get("state"), one.get("reason")
    percent = _count(one.get("percent"))
    batches, fulls, size, attempts = (_count(one.get(key)) for key in _COUNTS)
    return ReportedNode(
        NodeState(state) if isinstance(state, str) and state in _STATES else NodeState.STARTING,
        _text(reason),
        None if one.get("percent") is None else min(percent, 100),
        batches,
        fulls,
        size,
        attempts,
        _seconds(one.get("last_ok")),
    )


def encode_events(events: Mapping[str, Iterable[Event]]) -> bytes:
    """Return the text for the events of nodes, by name."""
    return json.dumps({name: list(some) for name, some in events.items()}, separators=(",", ":")).encode(
        "ascii"
    )


def decode_events(text: bytes) -> dict[str, list[Event]]:
    """Return the events of nodes by name, as far as they can be understood."""
    return {
        name: [_event(one) for one in some[-MAX_EVENTS:] if isinstance(one, list) and len(one) == 4]
        for name, some in _by_name(text).items()
        if isinstance(some, list)
    }


def _event(one: list[object]) -> Event:
    at, kind, text, count = one
    return _seconds(at, MAX_TIME) or 0.0, _text(kind), _text(text), _count(count)


def _text(value: object) -> str:
    return one_line(value[:MAX_TEXT]) if isinstance(value, str) else ""


def _seconds(value: object, most: float = MAX_SECONDS) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if 0 <= value < most else None


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        return 0
    return min(max(value, 0), MAX_COUNT)
