"""What is told of a running daemon to whoever asks (``status``): plain values, as they travel."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inosync import __version__
from inosync.guard.guard import Guard
from inosync.messages import NodeState
from inosync.nodes.dispatch import Dispatcher
from inosync.nodes.lifecycle import Phase
from inosync.nodes.node import Node
from inosync.status import titles
from inosync.status.state import Overview
from inosync.system import process
from inosync.text import without_password
from inosync.watch.watcher import Watcher

WORST_FIRST = (
    NodeState.HALTED,
    NodeState.RETRYING,
    NodeState.DEGRADED,
    NodeState.LAGGING,
    NodeState.PAUSED,
    NodeState.STARTING,
    NodeState.FULL,
    NodeState.SYNCING,
    NodeState.OK,
)
_FRESH = 0.1
"""Seconds that what was told of all nodes is told again: a hundred who ask at once cost one look."""


@dataclass(slots=True)
class Reloads:
    """What became of the last reload."""

    path: str
    """The configuration file."""
    succeeded_at: float | None = None
    """When the configuration last took effect, by the clock."""
    refused: Sequence[str] = ()
    """Why the last reload was refused."""


class Report:
    """Looks at everything, and changes nothing. ``nodes`` is the master's own, by name."""

    def __init__(
        self,
        nodes: Mapping[str, Node],
        overview: Overview,
        dispatch: Dispatcher,
        watcher: Watcher,
        guard: Guard,
        reloads: Reloads,
        clock: Callable[[], float],
    ) -> None:
        self._nodes, self._overview, self._dispatch = nodes, overview, dispatch
        self._watcher, self._guard, self._reloads, self._clock = watcher, guard, reloads, clock
        self._started = clock()
        self._last: tuple[float, dict[str, Any]] = float("-inf"), {}

    def all(self) -> dict[str, Any]:
        """The master, and every node, the worst first."""
        now = self._clock()
        at, told = self._last
        if not 0 <= now - at < _FRESH:
            told = self.of(self._nodes.values())
            self._last = self._clock(), told
        return told

    def of(self, nodes: Iterable[Node]) -> dict[str, Any]:
        """The master, and these nodes, the worst first."""
        told = sorted((self._node(node) for node in nodes), key=_badness)
        return {"master": self._master(), "nodes": told}

    def behind(self, node: Node) -> dict[str, Any]:
        """Who is behind, by how much, and why."""
        told = self._node(node)
        return {key: told[key] for key in ("name", "state", "lag", "pending", "reason")}

    def _master(self) -> dict[str, Any]:
        found = Counter(self._overview.verdict(node) for node in self._nodes.values())
        # The good ones first, as in the titles; what is wrong stands in the table.
        states = {word.value: found[word] for word in reversed(WORST_FIRST) if found[word]}
        unwatched, why = self._watcher.unwatched()
        return {
            "version": __version__,
            "pid": os.getpid(),
            "config": self._reloads.path,
            "started_at": self._wall(self._started),
            "uptime": round(self._clock() - self._started, 3),
            "states": dict(reversed(states.items())),
            "summary": titles.summary(states),
            "directories": len(self._watcher),
            "unwatched": unwatched,
            "unwatched_reason": why if unwatched else "",
            "journal": len(self._dispatch.backlog.journal),
            "events": self._watcher.events,
            "overflows": self._watcher.overflows,
            "rss": process.rss(os.getpid()),
            "halted": self._guard.reasons(self._guard.halted),
            "reloaded_at": self._wall(self._reloads.succeeded_at),
            "refused": list(self._reloads.refused),
        }

    def _node(self, node: Node) -> dict[str, Any]:
        verdict, state, tally = self._overview.verdict(node), node.state, node.counters
        failing = verdict is NodeState.RETRYING
        waits = state.phase in (Phase.WAITING, Phase.AWAY, Phase.DOWN) and state.wake_at < float("inf")
        pid = node.process.pid if node.process is not None else None
        return {
            "node": without_password(node.spec.node),
            "name": node.name,
            "state": verdict.value,
            "lag": round(self._dispatch.backlog.lag(node), 3),
            "pending": self._dispatch.backlog.pending(node),
            "reason": self._overview.reason(node, verdict),
            "retry_at": self._wall(state.wake_at) if failing and waits else None,
            "attempts": (state.attempt or state.deaths) if failing else 0,
            "percent": state.percent if verdict is NodeState.FULL else None,
            "paused": node.paused,
            "pid": pid,
            "rss": None if pid is None else process.rss(pid),
            "last_ok": self._wall(node.last_ok),
            "verified_at": self._wall(node.verified_at),
            "differences": node.differences if node.verified_at is not None else None,
            "batches": tally.batches,
            "fulls": tally.fulls,
            "paths": tally.paths,
            "bytes": tally.bytes,
            "rsyncs": tally.rsyncs,
            "deaths": tally.deaths,
            "hooks": tally.hooks,
            "hook_failures": tally.hook_failures,
            "failures": dict(sorted(tally.failures.items())),
            "latency": {
                "buckets": tally.latency.cumulative(),
                "sum": round(tally.latency.sum, 6),
                "count": tally.latency.count,
            },
        }

    def _wall(self, at: float | None) -> float | None:
        """A time of the clock as seconds since the epoch."""
        return None if at is None else round(time.time() - (self._clock() - at), 3)


def _badness(told: Mapping[str, Any]) -> tuple[int, float, str]:
    return WORST_FIRST.index(NodeState(told["state"])), -told["lag"], told["name"]
