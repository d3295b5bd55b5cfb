"""Publishes the states of nodes as they change: titles, the log, and the ``on_state`` hook."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence

from inosync.nodes.lifecycle import Phase
from inosync.nodes.node import Node
from inosync.status import titles
from inosync.status.far_node import FarNode
from inosync.status.state import NodeStates
from inosync.status.traffic import Traffic
from inosync.status.transitions import StateLog
from inosync.system import process
from inosync.system.loop import Loop, Timer
from inosync.text import NodeState

log = logging.getLogger(__name__)

MIN_PAUSE_SECONDS = 0.05
"""The shortest time between two rounds through all nodes, once all have started."""
COST_FACTOR = 20
"""A round may take a twentieth of the time: it is expensive where many changes are counted."""


class StatePublisher:
    """Publishes the states of the nodes, in titles and to hooks. ``config`` is named in the title."""

    def __init__(
        self,
        config: str,
        states: NodeStates,
        state_log: StateLog,
        loop: Loop,
        elsewhere: Callable[[], Sequence[FarNode]] = tuple,
    ) -> None:
        self._elsewhere = elsewhere
        """Returns the nodes that other machines serve."""
        self._config, self._states, self._state_log = config, states, state_log
        self._backlog, self._coverage = states.dispatch.backlog, states.watcher.coverage
        self._loop = loop
        self._timer: Timer | None = None
        """For the next round; None if nothing has changed."""
        self._next_round_at = 0.0
        """The earliest time for it, by the clock."""
        self._title = ""
        """Of this process."""
        self._traffic = Traffic()
        self._line_timer: Timer | None = None
        """For the next line about what has been mirrored; None if there is nothing to tell."""
        self.summary = ""
        """``3 nodes: 2 ok, 1 retrying``, as of the last round."""

    def publish_soon(self) -> None:
        """Publish the states of all nodes; changes of many nodes at once make one round."""
        if self._timer is None:
            self._timer = self._loop.call_at(self._next_round_at, self._publish_all)

    def publish_node(self, node: Node) -> NodeState:
        """Publish the state of a node at once, because it may last for a moment only, and return it."""
        state = self._states.state_of(node)
        self._state_log.record(node, state, self._states.reason_for(node, state), self._states.lag_of(node))
        if node.worker.shows_sent_title:
            title = self._node_title(node, state)
            if titles.is_stale(node.worker.title, title):
                node.worker.send_title(title)
        return state

    def _log_traffic(self) -> None:
        now, self._line_timer = self._loop.clock(), None
        if line := self._traffic.line(self._states.nodes.values(), now):
            log.info("%s", line)

    def _publish_all(self) -> None:
        self._timer, now = None, self._loop.clock()
        if self._line_timer is None:
            self._line_timer = self._loop.call_at(max(now, self._traffic.next_line_at), self._log_traffic)
        counts: Counter[str] = Counter(map(self.publish_node, self._states.nodes.values()))
        counts.update(str(node.description["state"]) for node in self._elsewhere())
        ordered = dict(sorted(counts.items(), key=lambda item: (item[0] != NodeState.OK, item[0])))
        self.summary = titles.summary(ordered)
        unwatched, _ = self._coverage.unwatched()
        troubles = "; ".join(self._states.troubles())
        title = titles.master(self._config, ordered, self._coverage.directories, unwatched, troubles)
        if title != self._title:
            self._title = title
            process.set_title(title)
        took = self._loop.clock() - now
        pause = 0.0 if NodeState.STARTING in counts else MIN_PAUSE_SECONDS
        self._next_round_at = now + max(pause, COST_FACTOR * took)

    def _node_title(self, node: Node, state: NodeState) -> str:
        """Return the title for a worker that runs no transfer."""
        worker = node.worker.state
        if worker.phase is not Phase.IDLE:
            behind = self._backlog.pending(node)
            if worker.wake_at == math.inf:
                return titles.queued(node.name, worker.attempt, worker.reason, behind)
            at = self._time(worker.wake_at)
            return titles.retrying(node.name, worker.attempt, at, worker.reason, behind)
        match state:
            case NodeState.OK:
                verified = ""
                if node.verified_at is not None:
                    verified = titles.verified(self._time(node.verified_at), node.differences)
                return titles.ok(node.name, self._time(node.last_ok or 0.0), verified)
            case NodeState.STARTING:
                return titles.starting(node.name)
        reason = self._states.reason_for(node, state)
        if state is NodeState.DEGRADED:
            return titles.degraded(node.name, reason)
        return titles.waiting(node.name, state, reason, self._backlog.pending(node))

    def _time(self, at: float) -> str:
        return time.strftime("%H:%M:%S", time.localtime(time.time() - (self._loop.clock() - at)))
