"""Made-up statuses of a daemon, for the tests of the page and the metrics."""

from __future__ import annotations

import random
from typing import Any

from inosync.console.history import History, Snapshot

BUCKETS = (0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, None)
REASONS = {
    "retrying": "ssh: connect to host {} port 22: Connection refused",
    "halted": "/var/www: all of its 4,120 entries are gone",
    "degraded": "3 directories are not watched: sysctl fs.inotify.max_user_watches=524288",
}
NOW = 1_800_000_000.0


def node(name: str, state: str = "ok", lag: float = 0.0, **more: Any) -> dict[str, Any]:
    """Return one node of a status."""
    return {
        "node": f"www@{name}:",
        "name": name,
        "state": state,
        "lag": lag,
        "pending": int(lag * 3),
        "pid": 4711,
        "rss": 23_500_000,
        "last_ok": NOW - lag - 7,
        "reason": REASONS.get(state, "").format(name),
        "retry_at": NOW + 41 if state == "retrying" else None,
        "attempts": 3 if state == "retrying" else 0,
        "percent": 47 if state == "full" else None,
        "batches": 1204,
        "paths": 15_310,
        "bytes": 48_211_003,
        "fulls": 1,
        "failures": {"12": 3, "255": 1} if state == "retrying" else {},
        "renamed_bytes": 1_048_576,
        "rsyncs": 1300,
        "deaths": 0,
        "latency": {
            "buckets": [[b, 1000 + n * 20] for n, b in enumerate(BUCKETS)],
            "sum": 9.5,
            "count": 1160,
        },
        "paused": state == "paused",
        "verified_at": NOW - 9000,
        "differences": 0,
        **more,
    }


def status(nodes: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Return a whole status."""
    states: dict[str, int] = {}
    for one in nodes:
        states[one["state"]] = states.get(one["state"], 0) + 1
    master = {
        "version": "0.3.0",
        "pid": 4242,
        "config": "/etc/inosync/default.py",
        "started_at": NOW - 93_000,
        "uptime": 93_000.0,
        "states": states,
        "summary": f"{len(nodes)} nodes",
        "directories": 12_045,
        "unwatched": 0,
        "unwatched_reason": "",
        "journal": 1_380,
        "events": 8_100_233,
        "overflows": 0,
        "rss": 41_000_000,
        "halted": [],
        "reloaded_at": None,
        "refused": [],
        **more,
    }
    return {"master": master, "nodes": nodes}


FLEET: dict[str, Any] = {
    "redis": "",
    "unserved": 1,
    "senders": [
        {
            "name": "eu",
            "ready": True,
            "late": False,
            "nodes": ["a", "b"],
            "arrived": 41,
            "lag": 3.5,
            "heard": 0.4,
            "reason": "",
        },
        {
            "name": "us",
            "ready": False,
            "late": False,
            "nodes": [],
            "arrived": None,
            "lag": 0.0,
            "heard": None,
            "reason": "it has not been heard of for a while",
        },
    ],
}
"""What the status of an origin says of its fleet."""
WORDS = ("retrying", "degraded", "lagging", "paused", "full")


def fleet(count: int, seed: int = 1) -> list[dict[str, Any]]:
    """Return so many nodes, most of them ok, the worst first."""
    rand = random.Random(seed)
    sick = max(count // 12, 5) if count > 1 else 0
    made = []
    for number in range(count):
        state, lag = "ok", 0.0
        if number < sick:
            state = WORDS[number * len(WORDS) // sick]
            lag = {"degraded": 0.0, "full": 80.0}.get(state, rand.expovariate(1 / 400))
        elif rand.random() < 0.05:
            state, lag = "syncing", rand.random()
        made.append(node(f"web{number:03}.mirror.example.com", state, round(lag, 3)))
    return made


def lived(nodes: list[dict[str, Any]], seed: int = 2) -> History:
    """Return a history of one hour of these nodes."""
    rand, history = random.Random(seed), History()
    for left in range(359, -1, -1):
        then = []
        for one in nodes:
            lag = max(one["lag"] - left * 10, 0.0)
            lag = rand.expovariate(0.5) if rand.random() < 0.02 else lag
            then.append({**one, "lag": lag})
        history.add_points(Snapshot(NOW - left * 10, {}, then))
    return history
