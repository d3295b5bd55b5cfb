"""The life of a worker process as the master sees it: ``step(state, event, now)``, pure.

What the process does (``Phase``) is kept apart from how well its node is mirrored (``node_state``):
a worker may be idle while its node is degraded.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, replace

from inosync.nodes import backoff
from inosync.nodes.messages import (
    Batch,
    Done,
    Failed,
    Progress,
    Reachable,
    SlotGranted,
    SlotRequest,
    Started,
    Stop,
    Unreachable,
)
from inosync.text import NodeState

FIRST_RESPAWN_SECONDS = 0.1
LONGEST_RESPAWN_SECONDS = 60.0
"""Bounds of the pause between the death of a worker and the start of its successor."""
STEADY_SECONDS = 60.0
"""A worker that lived this long was no part of a crash loop."""
LOGGED_DEATHS = 10
"""Deaths in a row that are logged one by one; after that, one in as many is logged."""


class Phase(enum.Enum):
    """What the worker process is doing."""

    DOWN = "down"
    """There is no process; one is started at ``WorkerState.wake_at``."""
    STARTING = "starting"
    """The process is forked and has not reported yet."""
    IDLE = "idle"
    BUSY = "busy"
    """It has a batch, and rsync runs."""
    WAITING = "waiting"
    """Its batch has failed; it tries again at ``WorkerState.wake_at``."""
    AWAY = "away"
    """It has no batch and cannot reach its node; it tries again at ``WorkerState.wake_at``."""
    KILLED = "killed"
    """It was killed because it hung, and is not gone yet: the kernel may hold it for long."""
    STOPPING = "stopping"
    """It was told to end, for good."""
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A worker's life so far. Times are the caller's clock, in seconds."""

    phase: Phase = Phase.DOWN
    wake_at: float = 0.0
    """When the next start or try is due, in DOWN, WAITING and AWAY; infinite while a slot is waited for."""
    forked_at: float = 0.0
    deaths: int = 0
    """Processes in a row that died before they were steady."""
    hangs: int = 0
    """Processes in a row that were killed because they hung."""
    full: bool = False
    """Whether the outstanding batch is a full mirror."""
    percent: int | None = None
    """Progress of the full mirror; None while rsync has not said."""
    count: int = 0
    """Names in the outstanding batch."""
    attempt: int = 0
    """Failed tries of the outstanding batch or, without one, to reach the node."""
    is_hopeless: bool = False
    """Whether the last try failed for something that will hardly get better by itself."""
    reason: str = ""
    """Why the last try or process failed; empty after a success."""


class Action(enum.Enum):
    """What the caller has to do."""

    FORK = "fork"
    """Start a worker."""
    KILL = "kill"
    """Kill the process and all that it started."""
    CLEAN = "clean"
    """The process is dead: kill what it left, close its queue, take its batch back."""
    OFFER = "offer"
    """The worker can take a batch: send the next one, if there is any."""
    CONFIRM = "confirm"
    """The batch is done: move the cursor, keep what has to be retried."""


@dataclass(frozen=True, slots=True)
class TimePassed:
    """``WorkerState.wake_at`` may have come."""


@dataclass(frozen=True, slots=True)
class Hung:
    """The worker does not read its orders."""

    reason: str


@dataclass(frozen=True, slots=True)
class Died:
    """The process has ended. ``rand`` in [0, 1) is the jitter of the pause before the next one."""

    reason: str
    rand: float


WorkOrder = Batch | SlotGranted | Stop
"""Orders that change what the worker does."""

Event = (
    WorkOrder
    # Reports of the worker.
    | Started
    | Progress
    | Failed
    | SlotRequest
    | Unreachable
    | Reachable
    | Done
    # What the master sees by itself.
    | TimePassed
    | Hung
    | Died
)

Step = tuple[WorkerState, tuple[Action, ...]]


def step(state: WorkerState, event: Event, now: float) -> Step:
    """Return the next state and what to do. An event that means nothing in a phase changes nothing."""
    match state.phase, event:
        case _, Died():
            return _after_death(state, event, now)
        case Phase.DOWN | Phase.STOPPED, Stop():
            return replace(state, phase=Phase.STOPPED), ()
        case _, Stop():
            return replace(state, phase=Phase.STOPPING), ()
        case Phase.DOWN, TimePassed() if now >= state.wake_at:
            return replace(state, phase=Phase.STARTING, forked_at=now), (Action.FORK,)
        case (Phase.DOWN, _) | (Phase.STOPPED | Phase.KILLED, Hung()):
            return state, ()
        case Phase.STOPPING, Hung():
            return state, (Action.KILL,)
        case _, Hung(reason):
            return replace(state, phase=Phase.KILLED, hangs=state.hangs + 1, reason=reason), (Action.KILL,)
        case Phase.STOPPING | Phase.STOPPED | Phase.KILLED, _:
            # What it has reported before it hung, or while it stops, still counts.
            return state, (Action.CONFIRM,) if isinstance(event, Done) else ()
        case _, Started():
            return replace(state, phase=Phase.IDLE), (Action.OFFER,)
        case _, Batch(count=count, full=full):
            return replace(
                state, phase=Phase.BUSY, count=count, full=full, percent=None, attempt=0, is_hopeless=False
            ), ()
        case _, Progress(percent=percent):
            return replace(state, phase=Phase.BUSY, percent=percent), ()
        case _, Failed(attempt=attempt, reason=reason, retry_in=pause, is_hopeless=is_hopeless):
            failed = replace(state, phase=Phase.WAITING, wake_at=now + pause, percent=None)
            return replace(failed, attempt=attempt, reason=reason, is_hopeless=is_hopeless), ()
        case _, SlotRequest():
            return replace(state, phase=Phase.WAITING, wake_at=math.inf), ()
        case Phase.WAITING, SlotGranted():
            return replace(state, phase=Phase.BUSY), ()
        case Phase.WAITING, TimePassed() if now >= state.wake_at:
            return replace(state, phase=Phase.BUSY), ()
        case Phase.IDLE | Phase.AWAY, Unreachable(attempt=attempt, reason=reason, retry_in=pause):
            away = replace(state, phase=Phase.AWAY, wake_at=now + pause)
            return replace(away, attempt=attempt, reason=reason), ()
        case Phase.AWAY, Reachable():
            return replace(state, phase=Phase.IDLE, attempt=0, reason=""), (Action.OFFER,)
        case _, Done():
            done = WorkerState(Phase.IDLE, state.wake_at, state.forked_at)
            return done, (Action.CONFIRM, Action.OFFER)
    return state, ()


def _after_death(state: WorkerState, event: Died, now: float) -> Step:
    if state.phase in (Phase.STOPPING, Phase.STOPPED):
        return replace(state, phase=Phase.STOPPED), (Action.CLEAN,)
    deaths = 1 if now - state.forked_at >= STEADY_SECONDS else state.deaths + 1
    pause = backoff.delay(deaths, FIRST_RESPAWN_SECONDS, LONGEST_RESPAWN_SECONDS, event.rand)
    hung = state.phase is Phase.KILLED
    reason, hangs = (state.reason, state.hangs) if hung else (event.reason, 0)
    return WorkerState(wake_at=now + pause, deaths=deaths, hangs=hangs, reason=reason), (Action.CLEAN,)


def is_logged(deaths: int) -> bool:
    """Return whether this death in a row is logged: a crash loop must not fill the log."""
    return deaths <= LOGGED_DEATHS or deaths % LOGGED_DEATHS == 0


def trouble(state: WorkerState) -> str:
    """Return why there is no working worker whose own title could say so; empty if there is one."""
    if state.phase is Phase.KILLED:
        return f"{state.reason}, and is not gone yet"
    if not state.deaths or state.attempt or state.phase not in (Phase.DOWN, Phase.STARTING, Phase.BUSY):
        return ""
    return state.reason + (f", {state.deaths} times in a row" if state.deaths > 1 else "")


def node_state(
    worker: WorkerState,
    *,
    lag: float,
    max_lag: float,
    degraded: bool = False,
    halted: bool = False,
    was_ok: bool = True,
    big: bool = False,
    walking: bool = False,
    paused: bool = False,
    held: bool = False,
) -> NodeState:
    """Return the one word for a node.

    ``lag``: seconds; ``max_lag``: the lag that is normal (edelay); ``degraded``: names are to be retried, or
    directories are not watched; ``halted``: the guard has halted a tree; ``was_ok``: a batch has been done;
    ``big``: a batch is in the second lane; ``walking``: a tree is being walked; ``paused``: by the operator;
    ``held``: it lacks what a stage before it does not let pass.
    """
    if paused:
        return NodeState.PAUSED
    if halted:
        return NodeState.HALTED
    failing = (Phase.WAITING, Phase.AWAY, Phase.KILLED)
    if worker.phase in failing or (worker.phase is Phase.DOWN and worker.deaths):
        return NodeState.RETRYING
    if worker.phase is Phase.BUSY:
        return NodeState.FULL if worker.full else NodeState.SYNCING
    if held and worker.phase is Phase.IDLE:
        return NodeState.HELD
    if worker.phase is not Phase.IDLE or not was_ok:
        return NodeState.STARTING
    if big:
        return NodeState.SYNCING
    if lag > max_lag or walking:
        return NodeState.LAGGING
    return NodeState.DEGRADED if degraded else NodeState.OK
