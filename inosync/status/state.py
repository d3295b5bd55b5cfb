"""What the nodes are worth at this moment, and the titles that tell it."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping

from inosync.guard.guard import Guard
from inosync.messages import NodeState
from inosync.nodes import lifecycle
from inosync.nodes.dispatch import Dispatcher
from inosync.nodes.lifecycle import Phase
from inosync.nodes.node import Node
from inosync.status import titles
from inosync.status.transitions import StateLog
from inosync.system import process
from inosync.system.loop import Loop, Timer
from inosync.text import plural
from inosync.watch.watcher import Watcher

SHOW = 0.05
"""Seconds between two looks at what the titles should say, at least."""


TROUBLES = 3
"""Nodes without a worker that the master's title names."""
_COST = 20
"""That look, which takes long where many changes are counted, may take a twentieth of the time."""


class Overview:
    """Knows the truth about each node, and lets the titles of the master and of idle workers tell it.

    ``nodes`` is the master's own, by name; ``patience``: for how many seconds a change may wait (edelay).
    """

    def __init__(
        self,
        path: str,
        nodes: Mapping[str, Node],
        dispatch: Dispatcher,
        watcher: Watcher,
        guard: Guard,
        state_log: StateLog,
        patience: float,
        loop: Loop,
    ) -> None:
        self.patience = patience
        self._timer: Timer | None = None
        """For the next look at what the titles should say; None if nothing has changed."""
        self._name = os.path.basename(path)
        self._nodes, self._dispatch, self._watcher, self._guard = nodes, dispatch, watcher, guard
        self._state_log, self._loop, self._clock = state_log, loop, loop.clock
        self._next = 0.0
        self._title = ""
        self.summary = ""
        """How many nodes are worth what."""

    def refresh(self) -> None:
        """Have the titles told anew, soon: a hundred nodes that change together are one look at them."""
        if self._timer is None:
            self._timer = self._loop.call_at(self._next, self._show)

    def _show(self) -> None:
        """Let the titles tell the truth."""
        self._timer, now = None, self._clock()
        verdicts: Counter[str] = Counter()
        for node in self._nodes.values():
            verdicts[self.look(node)] += 1
        ordered = dict(sorted(verdicts.items(), key=lambda item: (item[0] != NodeState.OK, item[0])))
        self.summary = titles.summary(ordered)
        worries = [*self._guard.reasons(self._guard.halted), *self._troubles()]
        unwatched, _ = self._watcher.unwatched()
        title = titles.master(self._name, ordered, len(self._watcher), unwatched, "; ".join(worries))
        if title != self._title:
            self._title = title
            process.set_title(title)
        took = self._clock() - now
        self._next = now + max(SHOW, _COST * took)

    def look(self, node: Node) -> NodeState:
        """Tell the state of a node, which may last for a moment only, to ``told`` and in its title."""
        verdict = self.verdict(node)
        self._state_log.look(node, verdict, self.reason(node, verdict), self._dispatch.backlog.lag(node))
        if node.shows_sent_title:
            title = self._node_title(node, verdict)
            if titles.is_stale(node.title, title):
                node.send_title(title)
        return verdict

    def verdict(self, node: Node) -> NodeState:
        """The one word for a node, as of now."""
        times = [self._dispatch.backlog.oldest(node), self._watcher.searching_since]
        oldest = min((since for since in times if since is not None), default=None)
        return lifecycle.node_state(
            node.state,
            lag=0.0 if oldest is None else self._clock() - oldest,
            max_lag=self.patience,
            degraded=bool(node.degraded_reason or self._watcher.unwatched(node.trees)[0]),
            halted=any(tree in self._guard.halted for tree in node.trees),
            was_ok=node.last_ok is not None,
            walking=not self._watcher.incomplete_trees.isdisjoint(node.trees),
            paused=node.paused,
        )

    def _troubles(self) -> list[str]:
        """What there may be no worker's title for."""
        found = [(node.name, lifecycle.trouble(node.state)) for node in self._nodes.values()]
        told = [f"{name}: {trouble}" for name, trouble in found if trouble]
        return told if len(told) <= TROUBLES else [*told[:TROUBLES], f"{len(told) - TROUBLES} more"]

    def _node_title(self, node: Node, verdict: NodeState) -> str:
        """The title of a worker that runs no transfer."""
        state = node.state
        if state.phase is not Phase.IDLE:
            behind = self._dispatch.backlog.pending(node)
            if state.wake_at == float("inf"):
                return titles.queued(node.name, state.attempt, state.reason, behind)
            return titles.retrying(node.name, state.attempt, self._time(state.wake_at), state.reason, behind)
        match verdict:
            case NodeState.OK:
                verified = ""
                if node.verified_at is not None:
                    verified = titles.verified(self._time(node.verified_at), node.differences)
                return titles.ok(node.name, self._time(node.last_ok or 0.0), verified)
            case NodeState.STARTING:
                return titles.starting(node.name)
            case NodeState.DEGRADED:
                return titles.degraded(node.name, self.why(node, verdict))
        behind = self._dispatch.backlog.pending(node)
        return titles.waiting(node.name, verdict, self.why(node, verdict), behind)

    def _time(self, at: float) -> str:
        return time.strftime("%H:%M:%S", time.localtime(time.time() - (self._clock() - at)))

    def why(self, node: Node, verdict: NodeState) -> str:
        """Why a node is worth that, as far as the master knows it better than its worker; else empty."""
        match verdict:
            case NodeState.PAUSED:
                return "by the operator"
            case NodeState.HALTED:
                return "; ".join(self._guard.reasons(node.trees))
            case NodeState.LAGGING:
                if not self._watcher.incomplete_trees.isdisjoint(node.trees):
                    return "directories are being walked"
                if self._watcher.searching_since is not None:
                    return "other names of files that have changed are searched for"
                return self._dispatch.waits_for(node) or "waiting for the tree to be quiet"
            case NodeState.DEGRADED:
                return node.degraded_reason or self.unwatched(node)
        return ""

    def reason(self, node: Node, verdict: NodeState) -> str:
        """Why a node is worth that, as far as anybody knows; empty if there is nothing to say."""
        return self.why(node, verdict) or _of_its_own(node, verdict)

    def unwatched(self, node: Node) -> str:
        """What of a node's trees is not watched, and why; empty if all is."""
        count, why = self._watcher.unwatched(node.trees)
        return f"{plural(count, 'directory')} not watched: {why}" if count else ""


def _of_its_own(node: Node, verdict: NodeState) -> str:
    """Why a node is worth that, as its worker has reported, or as that has ended."""
    return node.state.reason if verdict is NodeState.RETRYING else ""
