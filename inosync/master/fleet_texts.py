"""What a sender has the origin say of its nodes, as texts for Redis."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from inosync.fleet import node_reports
from inosync.nodes.node import Node
from inosync.status.events import NodeEvents
from inosync.status.snapshot import SnapshotBuilder


@dataclass(frozen=True, slots=True)
class StatusTexts:
    snapshots: SnapshotBuilder
    events: NodeEvents
    names: tuple[str, ...]
    """All nodes of the fleet."""

    def of_nodes(self, nodes: Iterable[Node]) -> bytes:
        """Return how these nodes are."""
        return node_reports.encode_nodes(self.snapshots.described(nodes), time.time())

    def of_events(self) -> bytes:
        """Return what happened to the nodes."""
        found = ((name, self.events.brief(name)) for name in self.names)
        return node_reports.encode_events({name: some for name, some in found if some})
