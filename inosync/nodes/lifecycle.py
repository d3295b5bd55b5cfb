"""A worker's life as the master sees it: ``step(state, event) -> (state, actions)``, pure.

What the worker is doing (``Phase``) is kept apart from what the node's mirror is worth (``verdict``):
a worker may be idle while its node is degraded, or busy while it is merely catching up.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from inosync.messages import NodeState
from inosync.nodes import backoff

CRASH_FIRST = 0.1
CRASH_LONGEST = 60.0
"""Seconds between the death of a worker and the start of its successor, first and longest."""
STEADY = 60.0
"""A worker that lived this long, in seconds, was no part of a crash loop."""
TOLD = 10
"""Deaths in a row that are logged one by one; after that one in as many is."""


class Phase(enum.Enum):
    """What the worker's process is doing."""

    DOWN = "down"
    """There is none; one is started at ``WorkerState.wake``."""
    STARTING = "starting"
    """Forked, has not reported yet."""
    IDLE = "idle"
    BUSY = "busy"
    """It has a batch, and rsync runs."""
    WAITING = "waiting"
    """It has a batch that failed, and tries again at ``WorkerState.wake``."""
    AWAY = "away"
    """It has nothing to do and cannot reach its node; it tries again at ``WorkerState.wake``."""
    KILLED = "killed"
    """Killed since it took no orders, but not gone yet: what hangs in the kernel goes when it wakes."""
    STOPPING = "stopping"
    """Told to end, for good."""
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A worker's life so far. Times are the caller's clock, in seconds."""

    phase: Phase = Phase.DOWN
    wake: float = 0.0
    """When the next thing happens by itself, in DOWN, WAITING and AWAY;
    infinite in WAITING, if that is for a slot."""
    born: float = 0.0
    """When the current process was forked."""
    deaths: int = 0
    """Of this worker's processes in a row, each too young."""
    silences: int = 0
    """Processes in a row that were killed since they took no orders."""
    full: bool = False
    """Whether the outstanding batch holds a FULL ..."""
    percent: int | None = None
    """... and how far that has come, when rsync has said so."""
    count: int = 0
    """Names in the outstanding batch."""
    attempt: int = 0
    """Failed tries of the outstanding batch or, without one, to reach the node."""
    reason: str = ""
    """Of the last failure or death; empty after a success."""


class Action(enum.Enum):
    """What the driver has to do."""

    FORK = "fork"
    """Start a worker."""
    KILL = "kill"
    """Kill the process, and all it started."""
    CLEAN = "clean"
    """The process is dead: kill what it left, throw its queue away, consider its batch unsent."""
    OFFER = "offer"
    """The worker can take a batch: send it one if there is any."""
    CONFIRM = "confirm"
    """The batch is through: move the cursor, keep what it says is still due."""


@dataclass(frozen=True, slots=True)
class Wake:
    """The time ``WorkerState.wake`` has come."""

    now: float


@dataclass(frozen=True, slots=True)
class Readied:
    """The worker has reported for work."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A batch has been handed over."""

    count: int
    full: bool


@dataclass(frozen=True, slots=True)
class Progressed:
    """A FULL has come so far."""

    percent: int


@dataclass(frozen=True, slots=True)
class TryFailed:
    """A transfer failed; the worker tries again at ``retry_at``."""

    attempt: int
    reason: str
    retry_at: float


@dataclass(frozen=True, slots=True)
class Queued:
    """The next try of the outstanding batch waits for a slot."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """It has got one."""


@dataclass(frozen=True, slots=True)
class Missed:
    """Without a batch, the worker did not reach its node; it tries again at ``retry_at``."""

    attempt: int
    reason: str
    retry_at: float


@dataclass(frozen=True, slots=True)
class Found:
    """The worker has reached its node again."""


@dataclass(frozen=True, slots=True)
class Completed:
    """The worker is through with its batch."""


@dataclass(frozen=True, slots=True)
class Silent:
    """The worker takes no orders."""

    reason: str


@dataclass(frozen=True, slots=True)
class Died:
    """The process has ended. ``rand`` in [0, 1) is for the jitter of the respawn."""

    now: float
    reason: str
    rand: float


@dataclass(frozen=True, slots=True)
class StopWanted:
    """The node is not wanted any more."""


Retry = TryFailed | Queued | Resumed
Reach = Missed | Found
Event = Wake | Readied | Sent | Progressed | Retry | Reach | Completed | Silent | Died | StopWanted


def step(state: WorkerState, event: Event) -> tuple[WorkerState, tuple[Action, ...]]:
    """What becomes of a worker. Events that mean nothing in a phase change nothing."""
    match event:
        case Died():
            return _died(state, event)
        case StopWanted():
            if state.phase in (Phase.DOWN, Phase.STOPPED):
                return replace(state, phase=Phase.STOPPED), ()
            return replace(state, phase=Phase.STOPPING), ()
        case Silent():
            return _silent(state, event)
        case _ if state.phase in (Phase.STOPPING, Phase.STOPPED, Phase.KILLED):
            # What was reported before it fell silent, or was told to end, still counts.
            return state, (Action.CONFIRM,) if isinstance(event, Completed) else ()
        case _ if state.phase is Phase.DOWN and not isinstance(event, Wake):
            return state, ()
        case Wake():
            if state.phase is Phase.DOWN and event.now >= state.wake:
                return replace(state, phase=Phase.STARTING, born=event.now), (Action.FORK,)
            if state.phase is Phase.WAITING and event.now >= state.wake:
                return replace(state, phase=Phase.BUSY), ()
        case Readied():
            return replace(state, phase=Phase.IDLE), (Action.OFFER,)
        case Sent():
            count, full = event.count, event.full
            return replace(state, phase=Phase.BUSY, count=count, full=full, percent=None, attempt=0), ()
        case Progressed():
            return replace(state, phase=Phase.BUSY, percent=event.percent), ()
        case TryFailed():
            failed = replace(state, phase=Phase.WAITING, wake=event.retry_at, percent=None)
            return replace(failed, attempt=event.attempt, reason=event.reason), ()
        case Queued():
            return replace(state, phase=Phase.WAITING, wake=float("inf")), ()
        case Resumed() if state.phase is Phase.WAITING:
            return replace(state, phase=Phase.BUSY), ()
        case Missed() if state.phase in (Phase.IDLE, Phase.AWAY):
            away = replace(state, phase=Phase.AWAY, wake=event.retry_at)
            return replace(away, attempt=event.attempt, reason=event.reason), ()
        case Found() if state.phase is Phase.AWAY:
            return replace(state, phase=Phase.IDLE, attempt=0, reason=""), (Action.OFFER,)
        case Completed():
            return WorkerState(Phase.IDLE, state.wake, state.born), (Action.CONFIRM, Action.OFFER)
    return state, ()


def _died(state: WorkerState, event: Died) -> tuple[WorkerState, tuple[Action, ...]]:
    if state.phase in (Phase.STOPPING, Phase.STOPPED):
        return replace(state, phase=Phase.STOPPED), (Action.CLEAN,)
    deaths = 1 if event.now - state.born >= STEADY else state.deaths + 1
    pause = backoff.delay(deaths, CRASH_FIRST, CRASH_LONGEST, event.rand)
    silent = state.phase is Phase.KILLED
    reason, silences = (state.reason, state.silences) if silent else (event.reason, 0)
    down = WorkerState(wake=event.now + pause, deaths=deaths, silences=silences, reason=reason)
    return down, (Action.CLEAN,)


def _silent(state: WorkerState, event: Silent) -> tuple[WorkerState, tuple[Action, ...]]:
    if state.phase in (Phase.DOWN, Phase.STOPPED, Phase.KILLED):
        return state, ()
    if state.phase is Phase.STOPPING:
        return state, (Action.KILL,)
    silences = state.silences + 1
    return replace(state, phase=Phase.KILLED, silences=silences, reason=event.reason), (Action.KILL,)


def is_told(deaths: int) -> bool:
    """Whether that many deaths in a row are a line in the log: a loop of them must not fill it."""
    return deaths <= TOLD or deaths % TOLD == 0


def trouble(state: WorkerState) -> str:
    """Why there is no worker, or one that has not come through with anything yet; empty if all is well.

    There may be no worker whose title could tell it.
    """
    if state.phase is Phase.KILLED:
        return f"{state.reason}, and is not gone yet"
    if not state.deaths or state.attempt or state.phase not in (Phase.DOWN, Phase.STARTING, Phase.BUSY):
        return ""
    return state.reason + (f", {state.deaths} times in a row" if state.deaths > 1 else "")


def verdict(
    state: WorkerState,
    lag: float,
    patience: float,
    *,
    overdue: bool,
    halted: bool,
    level: bool,
    known: bool = True,
    paused: bool = False,
) -> NodeState:
    """The one word for a node.

    ``lag``: seconds since its oldest unconfirmed change; ``patience``: how many of them are normal
    (edelay); ``overdue``: names that rsync complained of are still due, or something under the trees is
    not watched; ``halted``: a tree of it has lost its root; ``level``: it was level once; ``known``: all of
    its trees are, and none is being walked as a whole; ``paused``: the operator wants it to be sent nothing.
    """
    if paused:
        return NodeState.PAUSED
    if halted:
        return NodeState.HALTED
    failing = (Phase.WAITING, Phase.AWAY, Phase.KILLED)
    if state.phase in failing or (state.phase is Phase.DOWN and state.deaths):
        return NodeState.RETRYING
    if state.phase is Phase.BUSY:
        return NodeState.FULL if state.full else NodeState.SYNCING
    if state.phase is not Phase.IDLE or not level:
        return NodeState.STARTING
    if lag > patience or not known:
        return NodeState.LAGGING
    return NodeState.DEGRADED if overdue else NodeState.OK
