"""The nodes of a fleet that senders serve, as the origin shows them."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from inosync.config.nodes import NodeSpec
from inosync.fleet.node_reports import Event, ReportedNode
from inosync.fleet.records import Arrived, Beat, NodeRecord
from inosync.journal.journal import Journal
from inosync.status.far_node import UNKNOWN, FarNode
from inosync.system.loop import Loop
from inosync.text import NodeState, without_password


class FleetFacts(Protocol):
    """What is known from Redis."""

    @property
    def problem(self) -> str: ...
    @property
    def records(self) -> Mapping[str, NodeRecord]: ...
    @property
    def holders(self) -> Mapping[str, str]: ...
    @property
    def reported(self) -> Mapping[str, ReportedNode]: ...
    @property
    def beats(self) -> Mapping[str, Beat]: ...
    @property
    def arrived(self) -> Mapping[str, Arrived]: ...
    @property
    def ages(self) -> Mapping[str, float]: ...
    @property
    def paused(self) -> Collection[str]: ...
    @property
    def owed(self) -> Collection[str]: ...
    @property
    def events(self) -> Mapping[str, Mapping[str, Sequence[Event]]]: ...
    @property
    def recorded(self) -> int: ...


@dataclass(slots=True)
class FarNodes:
    """Describes them. Lag is by the clock and the journal of the origin alone."""

    names: tuple[str, ...]
    """Of the senders."""
    specs: tuple[NodeSpec, ...]
    facts: FleetFacts
    journal: Journal
    max_lag: float
    """The lag that is normal, in seconds (edelay)."""
    loop: Loop

    def all(self) -> list[FarNode]:
        """Return all of them."""
        return self._nodes(self.specs)

    def events(self, name: str) -> list[Event]:
        """Return what senders say that happened to a node, oldest first, by their clocks."""
        return sorted(one for events in self.facts.events.values() for one in events.get(name, ()))

    def senders(self) -> list[dict[str, Any]]:
        """Return what ``senders`` tells of each of them."""
        return list(map(self._sender, self.names))

    def _sender(self, name: str) -> dict[str, Any]:
        arrived, beat = self.facts.arrived.get(name), self.facts.beats.get(name)
        position = 0 if arrived is None else arrived.position
        oldest = self.journal.oldest_since(position)
        if self.facts.problem:
            reason = "Redis cannot be used"
        else:
            reason = "it has not been heard of for a while" if beat is None else beat.reason
        return {
            "name": name,
            "ready": beat is not None and beat.is_ready and not self.facts.problem,
            "late": beat is not None and beat.is_late,
            "nodes": sorted(node for node, holder in self.facts.holders.items() if holder == name),
            "arrived": None if arrived is None else position,
            "lag": 0.0 if oldest is None else round(max(self.loop.clock() - oldest, 0.0), 3),
            "heard": None if self.facts.problem else self.facts.ages.get(name),
            "reason": reason,
        }

    def fleet(self) -> dict[str, Any]:
        """Return what the snapshot of the daemon says of the fleet as a whole."""
        held = self.facts.holders.keys()
        return {
            "redis": self.facts.problem,
            "unserved": None if self.facts.problem else sum(spec.name not in held for spec in self.specs),
            "senders": self.senders(),
        }

    def find(self, wanted: str) -> list[FarNode]:
        """Return the one with that name, or that is written like that; none if there is none."""
        return self._nodes(spec for spec in self.specs if wanted in (spec.name, spec.node))

    def _nodes(self, specs: Iterable[NodeSpec]) -> list[FarNode]:
        counts: dict[int, int] = {}
        paused, owed = frozenset(self.facts.paused), frozenset(self.facts.owed)
        return [self._node(spec, counts, spec.name in paused, spec.name in owed) for spec in specs]

    def _node(self, spec: NodeSpec, counts: dict[int, int], paused: bool, is_owed: bool) -> FarNode:
        record = self.facts.records.get(spec.name)
        cursor = UNKNOWN if record is None or record.cursor is None else record.cursor
        if cursor not in counts:  # most have the same
            counts[cursor] = self.journal.backlog(cursor)[0] if cursor >= self.journal.floor else 1
        description = self._description(spec, cursor, counts[cursor], paused)
        return FarNode(spec.name, cursor, description, paused, is_owed)

    def _description(self, spec: NodeSpec, cursor: int, pending: int, paused: bool) -> dict[str, Any]:
        via = self.facts.holders.get(spec.name)
        said = self.facts.reported.get(spec.name) if via is not None else None
        oldest = self.journal.oldest_since(max(cursor, 0))
        lag = 0.0 if oldest is None else max(self.loop.clock() - oldest, 0.0)
        state, reason = (NodeState.PAUSED, "") if paused else self._state(said, via, lag, pending)
        said = said or ReportedNode(state)
        last_ok = None if said.last_ok is None else round(time.time() - said.last_ok, 3)
        return {
            **_NOTHING,
            "node": without_password(spec.node),
            "name": spec.name,
            "via": via,
            "state": state.value,
            "lag": round(lag, 3),
            "pending": pending,
            "reason": reason,
            "attempts": said.attempts if state is NodeState.RETRYING else 0,
            "percent": said.percent if state is NodeState.FULL else None,
            "paused": paused,
            "last_ok": last_ok,
            "batches": said.batches,
            "fulls": said.fulls,
            "bytes": said.bytes,
        }

    def _state(
        self, said: ReportedNode | None, via: str | None, lag: float, pending: int
    ) -> tuple[NodeState, str]:
        if self.facts.problem:
            return NodeState.LAGGING, "Redis cannot be used: what senders do is not known"
        if via is None:
            is_there = any(beat.is_ready for beat in self.facts.beats.values())
            why = "its lease is free" if is_there else "no sender is ready"
            return NodeState.LAGGING, f"no sender serves it: {why}"
        if said is None:
            return NodeState.STARTING, ""
        good = (NodeState.OK, NodeState.SYNCING)
        if said.state in good and pending:
            return (NodeState.LAGGING if lag > self.max_lag else NodeState.SYNCING), said.reason
        return said.state, said.reason


_NOTHING: dict[str, Any] = {
    "retry_at": None,
    "big_files": None,
    "big_files_percent": None,
    "paused": False,
    "pid": None,
    "rss": None,
    "verified_at": None,
    "differences": None,
    "paths": 0,
    "renamed_bytes": 0,
    "rsyncs": 0,
    "deaths": 0,
    "hooks": 0,
    "hook_failures": 0,
    "failures": {},
    "latency": None,
}
"""What is known at the sender only."""
