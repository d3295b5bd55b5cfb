"""``inosync --once``: when everything has been mirrored, as far as it can be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from inosync.master.flush import Flushes
from inosync.master.mirror import Mirror
from inosync.nodes.node import Node
from inosync.status.snapshot import SnapshotBuilder
from inosync.status.state import NodeStates
from inosync.text import NodeState
from inosync.watch.watcher import Watcher

MAX_TRIES = 3
"""Failed tries in a row after which a node is given up."""


@dataclass(slots=True)
class Once:
    """Decides when the daemon can end."""

    mirror: Mirror
    watcher: Watcher
    flushes: Flushes
    states: NodeStates
    snapshots: SnapshotBuilder
    outcome: dict[str, Any] = field(default_factory=dict)
    """The snapshot of all nodes at the end; empty until then."""
    _is_flushing: bool = False
    _level: dict[str, bool] = field(default_factory=dict)
    """Whether the nodes have everything that was there when the flush began, if it has ended, by name."""

    def is_done(self) -> bool:
        """Whether each node is level, or will not be. To be called in each turn of the loop."""
        if not self._is_flushing:
            if self.watcher.incomplete_trees or self.watcher.is_walking:
                return False
            self._is_flushing = True
            for node in self.mirror.nodes.values():  # each by itself, so that none waits for another
                self.flushes.begin([node], math.inf, partial(self._flushed, node))
        return all(map(self._is_settled, self.mirror.nodes.values()))

    def conclude(self) -> None:
        """Keep the outcome, while the workers can still tell it: those that are ending say nothing."""
        if not self.outcome:
            self.outcome = self.snapshots.of_nodes(self.mirror.nodes.values())

    def _flushed(self, node: Node, behind: Sequence[Node]) -> None:
        self._level[node.name] = not behind

    def _is_settled(self, node: Node) -> bool:
        if node.name in self._level:
            return True
        match self.states.state_of(node):
            case NodeState.RETRYING:
                state = node.worker.state
                return state.is_hopeless or max(state.attempt, state.deaths) >= MAX_TRIES
            case NodeState.HALTED | NodeState.PAUSED:
                return True
            case NodeState.DEGRADED:
                # What rsync complained of was tried; what was not tried may be another tree.
                return not self.watcher.incomplete_trees and self.mirror.dispatch.backlog.oldest(node) is None
        return self._waits_in_vain(node)

    def _waits_in_vain(self, node: Node) -> bool:
        """Whether nodes of a stage before it do not come to confirm what the node waits for."""
        patience = self.mirror.dispatch.roll_out.plan.patience
        for names in self.mirror.dispatch.roll_out.stages_before(node.name):
            others = [self.mirror.nodes[name] for name in names if name in self.mirror.nodes]
            waited_for = [other for other in others if not (other.paused or self._level.get(other.name))]
            has_level = any(self._level.get(other.name) for other in others)
            if any(map(self._is_settled, waited_for)) and (patience == math.inf or not has_level):
                return True
        return False
