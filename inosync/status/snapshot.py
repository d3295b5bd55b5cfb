"""The snapshot that ``status`` shows: the daemon and its nodes in plain values."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inosync import __version__
from inosync.nodes.lifecycle import Phase
from inosync.nodes.node import Node
from inosync.status import titles
from inosync.status.far_node import FarNode
from inosync.status.state import NodeStates
from inosync.system import process
from inosync.text import NodeState, without_password

if TYPE_CHECKING:  # loaded where there is a fleet
    from inosync.status.far_nodes import FarNodes

WORST_FIRST = (
    NodeState.HALTED,
    NodeState.HELD,
    NodeState.RETRYING,
    NodeState.DEGRADED,
    NodeState.LAGGING,
    NodeState.PAUSED,
    NodeState.STARTING,
    NodeState.FULL,
    NodeState.SYNCING,
    NodeState.OK,
)
MAX_AGE_SECONDS = 0.1
"""How long a snapshot of all nodes is reused: a hundred clients at once cost one."""


@dataclass(slots=True)
class Reloads:
    """The result of the last reload."""

    path: str
    """The configuration file."""
    succeeded_at: float | None = None
    """When a reload last took effect, by the clock."""
    refused: Sequence[str] = ()
    """Why the last reload was refused."""


class SnapshotBuilder:
    """Describes the daemon and its nodes in plain values, as ``status --json`` prints them."""

    def __init__(
        self,
        states: NodeStates,
        reloads: Reloads,
        clock: Callable[[], float],
        far: FarNodes | None = None,
    ) -> None:
        self._far = far
        """The nodes that other machines serve; None: there is no fleet, or this is a sender."""
        self._states, self._backlog = states, states.dispatch.backlog
        self._watcher, self._guard = states.watcher, states.guard
        self._reloads, self._clock = reloads, clock
        self._started_at = clock()
        self._last: tuple[float, dict[str, Any]] = float("-inf"), {}
        """The last snapshot of all nodes, and when it was made."""

    def of_all(self) -> dict[str, Any]:
        """Return the master and every node, the worst first; it may be ``MAX_AGE_SECONDS`` old."""
        at, snapshot = self._last
        if not 0 <= self._clock() - at < MAX_AGE_SECONDS:
            far = self._all_far()
            snapshot = self._of(self._states.nodes.values(), far, far)
            self._last = self._clock(), snapshot
        return snapshot

    def of_nodes(self, nodes: Iterable[Node], far: Iterable[FarNode] = ()) -> dict[str, Any]:
        """Return the master and these nodes, the worst first. ``far``: those that other machines serve."""
        return self._of(nodes, far, self._all_far())

    def _of(
        self, nodes: Iterable[Node], far: Iterable[FarNode], all_far: Iterable[FarNode]
    ) -> dict[str, Any]:
        described = [*map(self._node, nodes), *(dict(node.description) for node in far)]
        return {"master": self._master(all_far), "nodes": sorted(described, key=_badness)}

    def described(self, nodes: Iterable[Node]) -> list[dict[str, Any]]:
        """Return these nodes in plain values."""
        return list(map(self._node, nodes))

    def lag_of(self, node: Node | FarNode) -> dict[str, Any]:
        """Return what ``flush`` tells of a node that is behind."""
        described = node.description if isinstance(node, FarNode) else self._node(node)
        return {key: described[key] for key in ("name", "state", "lag", "pending", "reason")}

    def _master(self, all_far: Iterable[FarNode]) -> dict[str, Any]:
        counts = Counter(map(self._states.state_of, self._states.nodes.values()))
        counts.update(NodeState(node.description["state"]) for node in all_far)
        states = {state.value: counts[state] for state in WORST_FIRST if counts[state]}
        unwatched, why = self._watcher.coverage.unwatched()
        return {
            "version": __version__,
            "pid": os.getpid(),
            "config": self._reloads.path,
            "started_at": self._wall(self._started_at),
            "uptime": round(self._clock() - self._started_at, 3),
            "states": states,
            "summary": titles.summary(dict(reversed(states.items()))),  # the good ones first, as in titles
            "directories": self._watcher.coverage.directories,
            "unwatched": unwatched,
            "unwatched_reason": why if unwatched else "",
            "journal": len(self._backlog.journal),
            "events": self._watcher.events,
            "overflows": self._watcher.overflows,
            "rss": process.rss(os.getpid()),
            "halted": self._guard.reasons(self._guard.halted),
            "held_until": self._wall(self._states.held_until),
            "reloaded_at": self._wall(self._reloads.succeeded_at),
            "refused": list(self._reloads.refused),
            **({} if self._far is None else {"fleet": self._far.fleet()}),
        }

    def _all_far(self) -> Sequence[FarNode]:
        return () if self._far is None else self._far.all()

    def _node(self, node: Node) -> dict[str, Any]:
        state, worker, counters = self._states.state_of(node), node.worker.state, node.counters
        is_retrying = state is NodeState.RETRYING
        has_retry_time = worker.phase in (Phase.WAITING, Phase.AWAY, Phase.DOWN) and worker.wake_at < math.inf
        pid, second = node.worker.pid, node.second
        return {
            "node": without_password(node.spec.node),
            "name": node.name,
            "state": state.value,
            "lag": round(self._states.lag_of(node), 3),
            "pending": self._backlog.pending(node),
            "reason": self._states.reason_for(node, state),
            "retry_at": self._wall(worker.wake_at) if is_retrying and has_retry_time else None,
            "attempts": (worker.attempt or worker.deaths) if is_retrying else 0,
            "percent": worker.percent if state is NodeState.FULL else None,
            "big_files": None if second is None else second.batch.count,
            "big_files_percent": None if second is None else second.percent,
            "paused": node.paused,
            "pid": pid,
            "rss": None if pid is None else process.rss(pid),
            "last_ok": self._wall(node.last_ok),
            "verified_at": self._wall(node.verified_at),
            "differences": node.differences if node.verified_at is not None else None,
            "batches": counters.batches,
            "fulls": counters.fulls,
            "paths": counters.paths,
            "bytes": counters.bytes,
            "renamed_bytes": counters.renamed_bytes,
            "rsyncs": counters.rsyncs,
            "deaths": counters.deaths,
            "hooks": counters.hooks,
            "hook_failures": counters.hook_failures,
            "failures": dict(sorted(counters.failures.items())),
            "latency": {
                "buckets": counters.latency.cumulative(),
                "sum": round(counters.latency.sum, 6),
                "count": counters.latency.count,
            },
        }

    def _wall(self, at: float | None) -> float | None:
        """Return a time of the clock as seconds since the epoch."""
        return None if at is None else round(time.time() - (self._clock() - at), 3)


def _badness(node: Mapping[str, Any]) -> tuple[int, float, str]:
    return WORST_FIRST.index(NodeState(node["state"])), -node["lag"], node["name"]
