"""Changes of node states: a line in the log for each, and a call of the ``on_state`` hook."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

from inosync.config.hook import Hook
from inosync.nodes.messages import MAX_REASON_BYTES, StateChanged
from inosync.nodes.node import Node
from inosync.system import log as logs
from inosync.text import NodeState, shortened

log = logging.getLogger(__name__)

_PASSING = (NodeState.STARTING, NodeState.SYNCING)
"""States that do not end the one before."""
_LEVELS = {NodeState.OK: logging.INFO, NodeState.FULL: logging.INFO, NodeState.PAUSED: logging.INFO}


@dataclass(frozen=True, slots=True)
class Alarm:
    """What a hook knows of a node. Times are the caller's clock, in seconds."""

    state: NodeState | None = None
    """The state it was called for last, or would have been if it had asked for that state."""
    since: float | None = None
    """When the node entered the states that the hook asks for; None if it is in none of them."""
    notified: bool = False
    """Whether the hook was called for that."""


def next_alarm(alarm: Alarm, hook: Hook, state: NodeState, now: float) -> tuple[Alarm, bool]:
    """Given the state of a node, return what the hook knows from now on, and whether to call it."""
    if not hook.states:
        return replace(alarm, state=state), state is not alarm.state
    if state not in hook.states:
        return Alarm(state), alarm.notified
    since = now if alarm.since is None else alarm.since
    if alarm.notified or now - since < hook.after:
        return replace(alarm, since=since), False
    return Alarm(state, since, True), True


def lasting_state(before: NodeState | None, state: NodeState) -> NodeState | None:
    """Return the state to report for a node in ``state`` that was reported as ``before``; None if unknown."""
    if state is NodeState.SYNCING and before is NodeState.FULL:
        return NodeState.OK  # between the full mirror and this batch
    # A full mirror after a failure is another try: the node is as bad as before until it succeeds.
    if state in _PASSING or (state is NodeState.FULL and before is NodeState.RETRYING):
        return before
    return state


@dataclass(slots=True)
class _Known:
    state: NodeState
    since: float
    """When the node entered it, by the clock."""
    alarm: Alarm = field(default_factory=Alarm)


class StateLog:
    """Remembers the last state of each node. ``hook`` is called when it changes, if there is one."""

    def __init__(self, hook: Hook | None, clock: Callable[[], float]) -> None:
        self._hook, self._clock = hook, clock
        self._known: dict[Node, _Known] = {}

    def forget_all_but(self, nodes: Collection[Node]) -> None:
        self._known = {node: known for node, known in self._known.items() if node in nodes}

    def set_hook(self, hook: Hook | None) -> None:
        if hook != self._hook:
            self._hook = hook
            for known in self._known.values():
                known.alarm = Alarm(known.state)

    def record(self, node: Node, state: NodeState, reason: str, lag: float) -> None:
        """Note the state of a node, its reason, and the lag in seconds."""
        known, now = self._known.get(node), self._clock()
        lasting = lasting_state(known.state if known else None, state)
        if lasting is None:
            return
        before, since = (known.state, known.since) if known else (None, now)
        if lasting is not before:
            _log_change(node.name, before, lasting, now - since, reason, lag)
        if known is None:
            known = self._known[node] = _Known(lasting, now)
        if self._hook is not None:
            self._call_hook(node, known, self._hook, lasting, reason, lag)
        if lasting is not known.state:
            known.state, known.since = lasting, now

    def _call_hook(
        self, node: Node, known: _Known, hook: Hook, state: NodeState, reason: str, lag: float
    ) -> None:
        before, now = known.alarm, self._clock()
        known.alarm, is_due = next_alarm(before, hook, state, now)
        if is_due:
            began = before.since if before.since is not None else known.alarm.since
            seconds = now - (known.since if began is None else began)
            node.worker.announce_state(
                StateChanged(state, before.state or "", seconds, shortened(reason, MAX_REASON_BYTES), lag)
            )


def _log_change(
    name: str, before: NodeState | None, state: NodeState, seconds: float, reason: str, lag: float
) -> None:
    what = "full mirror started" if state is NodeState.FULL else f"is {state}"
    after = f" after {before} for {seconds:.1f} s" if before is not None else ""
    facts = logs.about(
        event="state",
        node=name,
        state=state.value,
        before=None if before is None else before.value,
        seconds=round(seconds, 3),
        lag=round(lag, 3),
        reason=reason,
    )
    level = _LEVELS.get(state, logging.WARNING)
    log.log(level, "%s: %s%s%s", name, what, after, f": {reason}" if reason else "", extra=facts)
