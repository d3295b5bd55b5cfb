"""Nodes and a daemon as ``status --json`` describes them, in short."""

from __future__ import annotations

from typing import Any

NOW = 1_750_000_000.0


def node(**more: Any) -> dict[str, Any]:
    return {
        "node": "u@a:",
        "name": "a",
        "state": "ok",
        "lag": 0.0,
        "pending": 0,
        "reason": "",
        "retry_at": None,
        "attempts": 0,
        "percent": None,
        "last_ok": NOW - 5,
        "batches": 3,
        "bytes": 1_234_567,
        **more,
    }


def master(**more: Any) -> dict[str, Any]:
    description = {
        "summary": "1 node: 1 ok",
        "directories": 7,
        "unwatched": 0,
        "unwatched_reason": "",
        "uptime": 61.0,
    }
    return {**description, "halted": [], "refused": [], **more}
