"""``inosync --once``: when everything has been mirrored, as far as it can be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from inosync.master.flush import Flushes
from inosync.messages import NodeState
from inosync.nodes.dispatch import Dispatcher
from inosync.nodes.node import Node
from inosync.status.snapshot import SnapshotBuilder
from inosync.status.state import NodeStates
from inosync.watch.watcher import Watcher

TRIES = 3
"""Failed tries in a row after which a node is given up."""


class Once:
    """Looks at the nodes, the master's own by name, until each is level or will not be."""

    def __init__(
        self,
        nodes: Mapping[str, Node],
        watcher: Watcher,
        dispatch: Dispatcher,
        flushes: Flushes,
        states: NodeStates,
        snapshots: SnapshotBuilder,
    ) -> None:
        self._nodes, self._watcher, self._dispatch, self._flushes = nodes, watcher, dispatch, flushes
        self._states, self._snapshots = states, snapshots
        self._asked = False
        self._level: set[str] = set()
        """The names of nodes that have all that was there when it was asked for."""
        self.outcome: dict[str, Any] = {}
        """What is told of the master and the nodes at the end (``SnapshotBuilder``)."""

    def look(self) -> bool:
        """Whether there is nothing to be waited for any more."""
        if not self._asked:
            if self._watcher.incomplete_trees or self._watcher.is_walking:
                return False
            self._asked = True
            for node in self._nodes.values():  # each by itself: one that is never level keeps no other
                self._flushes.begin([node], float("inf"), partial(self._flushed, node))
        if all(self._is_settled(node) for node in self._nodes.values()):
            self.conclude()
            return True
        return False

    def conclude(self) -> None:
        """Keep what is to be told at the end: workers that are ending say nothing of their nodes."""
        if not self.outcome:
            self.outcome = self._snapshots.of_nodes(self._nodes.values())

    def _flushed(self, node: Node, behind: Sequence[Node]) -> None:
        if not behind:
            self._level.add(node.name)

    def _is_settled(self, node: Node) -> bool:
        if node.name in self._level:
            return True
        match self._states.state_of(node):
            case NodeState.RETRYING:
                return max(node.worker.state.attempt, node.worker.state.deaths) >= TRIES
            case NodeState.HALTED | NodeState.PAUSED:
                return True
            case NodeState.DEGRADED:
                # What it was complained of has been tried; what has not may be another tree.
                return not self._watcher.incomplete_trees and self._dispatch.backlog.oldest(node) is None
        return False
