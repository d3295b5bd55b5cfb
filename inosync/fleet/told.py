"""What a sender says of the nodes that it serves, for the status at the origin. Pure.

Whoever can write to Redis can write anything: what is read is checked, and only shown.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from inosync.messages import NodeState
from inosync.text import one_line

MAX_BYTES = 1 << 23
"""The longest text of a sender."""
MAX_TEXT = 500
MAX_COUNT = 1 << 62
MAX_SECONDS = 1e9
_STATES = {state.value for state in NodeState}
_COUNTS = ("batches", "fulls", "bytes", "attempts")


@dataclass(frozen=True, slots=True)
class ToldNode:
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


def encode(nodes: Iterable[Mapping[str, Any]], now: float) -> bytes:
    """Return the text for nodes as ``status --json`` describes them; ``now`` in seconds since the epoch."""
    told = {}
    for node in nodes:
        last_ok = None if node["last_ok"] is None else round(now - node["last_ok"], 1)
        one = {key: node[key] for key in ("state", "percent", *_COUNTS)}
        told[node["name"]] = {**one, "reason": node["reason"][:MAX_TEXT], "last_ok": last_ok}
    return json.dumps(told, separators=(",", ":")).encode("ascii")


def decode(text: bytes) -> dict[str, ToldNode]:
    """Return what a sender says of its nodes, by name, as far as it can be understood."""
    if len(text) > MAX_BYTES:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: _node(one) for name, one in found.items() if isinstance(one, dict)}


def _node(one: Mapping[str, Any]) -> ToldNode:
    state, reason = one.get("state"), one.get("reason")
    percent = _count(one.get("percent"))
    batches, fulls, size, attempts = (_count(one.get(key)) for key in _COUNTS)
    return ToldNode(
        NodeState(state) if isinstance(state, str) and state in _STATES else NodeState.STARTING,
        one_line(reason[:MAX_TEXT]) if isinstance(reason, str) else "",
        None if one.get("percent") is None else min(percent, 100),
        batches,
        fulls,
        size,
        attempts,
        _seconds(one.get("last_ok")),
    )


def _seconds(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if 0 <= value < MAX_SECONDS else None


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        return 0
    return min(max(value, 0), MAX_COUNT)
