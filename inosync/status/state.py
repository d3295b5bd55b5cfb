"""The state of each node, and the reason for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from inosync.guard.guard import Guard
from inosync.nodes import lifecycle, reasons
from inosync.nodes.dispatch import Dispatcher
from inosync.nodes.node import Node
from inosync.text import NodeState, plural
from inosync.watch.watcher import Watcher

MAX_TROUBLES = 3
"""Nodes without a worker that are named."""


class NodeStates:
    """Answers in which state a node is at this moment, and why.

    ``nodes`` is the master's own, by name; ``max_lag`` is the lag that is normal, in seconds (edelay).
    """

    def __init__(
        self,
        nodes: Mapping[str, Node],
        dispatch: Dispatcher,
        watcher: Watcher,
        guard: Guard,
        max_lag: float,
        clock: Callable[[], float],
    ) -> None:
        self.nodes = nodes
        self.dispatch, self.watcher, self.guard, self._clock = dispatch, watcher, guard, clock
        self._max_lag = max_lag

    def set_max_lag(self, seconds: float) -> None:
        """Set the lag that is normal."""
        self._max_lag = seconds

    def state_of(self, node: Node) -> NodeState:
        missing = self.dispatch.backlog.oldest(node)
        times = [missing, self.watcher.searching_since]
        oldest = min((since for since in times if since is not None), default=None)
        is_walked = self._is_walked(node)
        is_held = missing is not None and bool(self.dispatch.roll_out.hold_before(node.name))
        return lifecycle.node_state(
            node.worker.state,
            lag=0.0 if oldest is None else self._clock() - oldest,
            max_lag=self._max_lag,
            degraded=bool(
                reasons.degraded(node.problem, node.retries) or self.watcher.coverage.unwatched(node.trees)[0]
            ),
            halted=any(tree in self.guard.halted for tree in node.trees),
            was_ok=node.last_ok is not None
            and not (is_walked and node.is_resumed and not node.counters.batches),
            big=node.second is not None,
            walking=is_walked,
            paused=node.paused,
            held=is_held,
        )

    def lag_of(self, node: Node) -> float:
        """Return the age of the oldest change that the node lacks or may lack, in seconds; or 0.

        It may lack what happened in an unwatched directory after the last comparison of it.
        """
        unseen_since = self.watcher.coverage.unseen_since(node.trees)
        unseen = 0.0 if unseen_since is None else self._clock() - unseen_since
        return max(unseen, self.dispatch.backlog.lag(node))

    def reason_for(self, node: Node, state: NodeState) -> str:
        """Return why a node is in that state; empty if there is nothing to say."""
        match state:
            case NodeState.RETRYING:
                return node.worker.state.reason
            case NodeState.SYNCING | NodeState.FULL:
                return reasons.big_files(node.second, node.retries)
            case NodeState.PAUSED:
                return "by the operator"
            case NodeState.HELD:
                return self.dispatch.roll_out.hold_before(node.name)
            case NodeState.HALTED:
                return "; ".join(self.guard.reasons(node.trees))
            case NodeState.LAGGING:
                if self._is_walked(node):
                    return "directories are being walked"
                if self.watcher.searching_since is not None:
                    return "other names of files that have changed are searched for"
                return self.dispatch.waits_for(node) or "waiting for the tree to be quiet"
            case NodeState.STARTING if self.held_until is not None or self.dispatch.roll_out.limits:
                return self.dispatch.waits_for(node)
            case NodeState.DEGRADED:
                return reasons.degraded(node.problem, node.retries) or self._unwatched(node)
        return ""

    @property
    def held_until(self) -> float | None:
        """Until when nothing is sent to any node, by the clock; None if no operator holds it back."""
        return self.dispatch.held_until

    def troubles(self) -> list[str]:
        """Return what is wrong that the title of no worker may say: halted trees, nodes without a worker."""
        found = [(node.name, lifecycle.trouble(node.worker.state)) for node in self.nodes.values()]
        troubles = [f"{name}: {trouble}" for name, trouble in found if trouble]
        if len(troubles) > MAX_TROUBLES:
            troubles[MAX_TROUBLES:] = [f"{len(troubles) - MAX_TROUBLES} more"]
        return [*self.guard.reasons(self.guard.halted), *troubles]

    def _is_walked(self, node: Node) -> bool:
        return not self.watcher.incomplete_trees.isdisjoint(node.trees)

    def _unwatched(self, node: Node) -> str:
        count, why = self.watcher.coverage.unwatched(node.trees)
        return f"{plural(count, 'directory')} not watched: {why}" if count else ""
