"""How the states of the nodes change: a line in the log for each change, and what is told to hooks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from inosync.config.hook import Hook
from inosync.messages import NodeState, StateChanged
from inosync.nodes.node import Node
from inosync.status import alarm
from inosync.status.alarm import Alarm
from inosync.system import log as logs

log = logging.getLogger(__name__)

_PASSING = (NodeState.STARTING, NodeState.SYNCING)
"""What says nothing new of a node: it is worth what it was before, until that is over."""
_LEVELS = {NodeState.OK: logging.INFO, NodeState.FULL: logging.INFO, NodeState.PAUSED: logging.INFO}


@dataclass(slots=True)
class _Known:
    state: NodeState
    since: float
    """Since when it is, by the clock."""
    alarm: Alarm = field(default_factory=Alarm)


class StateLog:
    """Remembers the last state of each node. ``hook`` is what a change is told to, if anybody."""

    def __init__(self, hook: Hook | None, clock: Callable[[], float]) -> None:
        self.hook = hook
        self._clock = clock
        self._known: dict[Node, _Known] = {}

    def keep(self, nodes: Collection[Node]) -> None:
        """Forget all but these."""
        self._known = {node: known for node, known in self._known.items() if node in nodes}

    def use(self, hook: Hook | None) -> None:
        """Tell another hook from now on, of what changes from now on."""
        if hook != self.hook:
            self.hook = hook
            for known in self._known.values():
                known.alarm = Alarm(told=known.state)

    def look(self, node: Node, state: NodeState, reason: str, lag: float) -> None:
        """A node is in a state, for a reason, and so many seconds behind."""
        known, now = self._known.get(node), self._clock()
        worth = _worth(None if known is None else known.state, state)
        if worth is None:
            return
        if known is None:
            known = self._known[node] = _Known(worth, now)
            self._log(node, None, worth, 0.0, reason, lag)
        elif worth is not known.state:
            self._log(node, known.state, worth, now - known.since, reason, lag)
        if self.hook is not None:
            self._tell(node, known, self.hook, worth, reason, lag)
        if worth is not known.state:
            known.state, known.since = worth, now

    @property
    def due(self) -> float:
        """When the nodes are to be looked at though nothing has happened; infinite if never."""
        if self.hook is None or not self.hook.after:
            return float("inf")
        alarms = [known.alarm for known in self._known.values()]
        return min((alarm.due(one, self.hook) for one in alarms), default=float("inf"))

    def _tell(self, node: Node, known: _Known, hook: Hook, state: NodeState, reason: str, lag: float) -> None:
        before, now = known.alarm, self._clock()
        known.alarm, tells = alarm.step(before, hook, state, now)
        if tells:
            told = "" if before.told is None else before.told.value
            began = before.since if before.since is not None else known.alarm.since
            seconds = now - (known.since if began is None else began)
            node.announce_state(StateChanged(state, told, seconds, reason[:500], lag))

    def _log(
        self, node: Node, before: NodeState | None, state: NodeState, seconds: float, reason: str, lag: float
    ) -> None:
        since = f" after {before} for {seconds:.1f} s" if before is not None else ""
        why = f": {reason}" if reason else ""
        facts = logs.about(
            event="state",
            node=node.name,
            state=state.value,
            before=None if before is None else before.value,
            seconds=round(seconds, 3),
            lag=round(lag, 3),
            reason=reason,
        )
        level = _LEVELS.get(state, logging.WARNING)
        log.log(level, "%s: is %s%s%s", node.name, state, since, why, extra=facts)


def _worth(before: NodeState | None, state: NodeState) -> NodeState | None:
    """What a state says of a node that was worth ``before``; None: nothing yet."""
    if state is NodeState.SYNCING and before is NodeState.FULL:
        return NodeState.OK  # which it was for a moment
    # A try to mirror all of it is no better than what made it necessary.
    if state in _PASSING or (state is NodeState.FULL and before is NodeState.RETRYING):
        return before
    return state
