"""Roll-outs in stages: up to which position of the journal each stage may be sent. Pure; times in seconds.

A stage is sent what the stage before it has passed: what its nodes have confirmed, and the check
(``on_stage``) has let go on. A position once passed stays passed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

NOTHING = -1
"""The position of a stage that has passed nothing yet: not even what was there before the first change."""

Stages = tuple["Stage", ...]
"""Of each stage but the last, which nothing follows."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the configuration says of stages."""

    stages: tuple[tuple[str, ...], ...] = ()
    """The names of the nodes of each stage."""
    is_checked: bool = False
    """Whether a check decides; otherwise stages are an order, and no more."""
    settle: float = 0.0
    """How long a stage has to have something before it is checked."""
    patience: float = math.inf
    """How long a stage waits for nodes that come no further than others of it."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a node has come."""

    confirmed: int
    """The position up to which it has everything."""
    paused: bool = False
    """A paused node is not waited for."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A position, and since when something is there."""

    position: int
    at: float


@dataclass(frozen=True, slots=True)
class RefusedCheck:
    """A check that did not let a position pass."""

    position: int
    reason: str


@dataclass(frozen=True, slots=True)
class Stage:
    """What is known of a stage."""

    passed: int = NOTHING
    """The position up to which the next stage may be sent."""
    reached: int = NOTHING
    """The position up to which the stage has everything, as far as it is waited for."""
    due: Arrival | None = None
    """What is checked next, and since when the stage has it."""
    checking: int | None = None
    """The position that a running check is about."""
    refusal: RefusedCheck | None = None
    """The last check that did not pass; None if that is over."""
    behind: Mapping[str, Arrival] = field(default_factory=dict)
    """Nodes that others of the stage have overtaken: how far they are, and since when."""
    given_up: frozenset[str] = frozenset()
    """Those of them that are not waited for any more."""
    last: tuple[str, ...] = ()
    """The nodes that are no further than ``reached``, in the order of the configuration."""
    is_paused: bool = False
    """Whether all of its nodes are paused, so that none can confirm anything."""


@dataclass(frozen=True, slots=True)
class StartCheck:
    """Run the check of a stage: whether what came after ``after``, up to ``position``, may go on."""

    stage: int
    position: int
    after: int
    nodes: tuple[str, ...] = field(default=(), compare=False)
    """The nodes of the stage that have it: a paused one, or one that was given up, may not."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Say that these nodes of a stage are not waited for any more."""

    stage: int
    names: tuple[str, ...]


Action = StartCheck | GiveUp


def first(plan: Plan) -> Stages:
    """Return the stages when nothing is known of them."""
    return tuple(Stage() for _ in plan.stages[1:])


def advance(
    plan: Plan,
    stages: Stages,
    nodes: Mapping[str, Standing],
    needs_check: Callable[[int, int], bool],
    now: float,
) -> tuple[Stages, tuple[Action, ...]]:
    """Return what follows from how far the nodes are at this time.

    ``needs_check(after, upto)``: whether any change between two positions is one that is checked.
    """
    made: list[Stage] = []
    actions: list[Action] = []
    for number, stage in enumerate(stages):
        # After a reload nodes may have more than their stage may be sent: that is no reason to send it on.
        most = made[-1].passed if made else math.inf
        standing = {name: nodes[name] for name in plan.stages[number] if name in nodes}
        stage = _waited(stage, standing, plan.patience, now)
        if names := tuple(sorted(stage.given_up - stages[number].given_up)):
            actions.append(GiveUp(number, names))
        stage = _reached(stage, standing, most)
        stage, check = _check(plan, stage, needs_check, now)
        if check:
            position, after = check
            having = tuple(name for name, one in standing.items() if one.confirmed >= position)
            # None while they are compared in full: but a check without nodes would pass.
            actions.append(StartCheck(number, position, after, having or tuple(standing)))
        made.append(stage)
    return tuple(made), tuple(actions)


def _waited(stage: Stage, standing: Mapping[str, Standing], patience: float, now: float) -> Stage:
    """Note which nodes the others have overtaken, and which of them were waited for long enough."""
    waiting = {name: one.confirmed for name, one in standing.items() if not one.paused}
    best = max(waiting.values(), default=NOTHING)
    behind: dict[str, Arrival] = {}
    for name, position in waiting.items():
        known = stage.behind.get(name)
        # One that lacks what has passed, as during a resync, holds up nothing before there is something new.
        if position < best and (known or best > stage.passed):
            behind[name] = known if known and known.position == position else Arrival(position, now)
    given_up = frozenset(name for name, known in behind.items() if now >= known.at + patience)
    return replace(stage, behind=behind, given_up=given_up)


def _reached(stage: Stage, standing: Mapping[str, Standing], most: float) -> Stage:
    """Note how far the stage is, at most as far as it may be, and which of its nodes keep it there."""
    running = {name: one.confirmed for name, one in standing.items() if not one.paused}
    counted = {name: position for name, position in running.items() if name not in stage.given_up}
    reached = min(counted.values(), default=NOTHING)
    last = tuple(name for name, position in counted.items() if position == reached)
    is_paused = bool(standing) and not running
    return replace(stage, reached=int(min(reached, most)), last=last, is_paused=is_paused)


def _check(
    plan: Plan, stage: Stage, needs_check: Callable[[int, int], bool], now: float
) -> tuple[Stage, tuple[int, int] | None]:
    """Return the stage, and what to check now: the position, and the one after which that begins."""
    if stage.reached > stage.passed and not (plan.is_checked and needs_check(stage.passed, stage.reached)):
        return _passed(stage, stage.reached), None
    asked = stage.refusal.position if stage.refusal else NOTHING
    if stage.checking is not None:
        asked = max(asked, stage.checking)
    if stage.due is None and stage.reached > max(stage.passed, asked):
        stage = replace(stage, due=Arrival(stage.reached, now))
    due = stage.due
    if due is None or stage.checking is not None or now < due.at + plan.settle:
        return stage, None
    following = Arrival(stage.reached, now) if stage.reached > due.position else None
    return replace(stage, due=following, checking=due.position), (due.position, stage.passed)


def _passed(stage: Stage, position: int) -> Stage:
    """Return the stage when a position has passed, and with it all before."""
    due, refusal = stage.due, stage.refusal
    return replace(
        stage,
        passed=max(stage.passed, position),
        due=due if due and due.position > position else None,
        refusal=refusal if refusal and refusal.position > position else None,
    )


# What happens beside the nodes -------------------------------------------------------------------------


def checked(stages: Stages, number: int, reason: str) -> Stages:
    """A check has ended. ``reason``: why it lets nothing go on; empty if it does."""
    stage = stages[number]
    position, stage = stage.checking, replace(stage, checking=None)
    if position is not None and not reason:
        stage = _passed(stage, position)
    elif position is not None and position > stage.passed:  # it may have been accepted meanwhile
        stage = replace(stage, refusal=RefusedCheck(position, reason))
    return (*stages[:number], stage, *stages[number + 1 :])


def accepted(stages: Stages) -> Stages:
    """Let go on what checks have refused, with all that these stages have got since."""
    return tuple(
        _passed(stage, max(stage.reached, stage.refusal.position)) if stage.refusal else stage
        for stage in stages
    )


def retried(stages: Stages) -> Stages:
    """Have what was refused checked again, at once, with all that these stages have got since."""
    return tuple(
        replace(stage, refusal=None, due=Arrival(max(stage.reached, stage.refusal.position), -math.inf))
        if stage.refusal
        else stage
        for stage in stages
    )


# What it means for the nodes ---------------------------------------------------------------------------


def limits(plan: Plan, stages: Stages) -> dict[str, int]:
    """Return the position up to which each node may be sent; one of the first stage has no limit."""
    return {
        name: stage.passed for stage, names in zip(stages, plan.stages[1:], strict=True) for name in names
    }


def hold_before(plan: Plan, stages: Stages, name: str) -> str:
    """Return why a node is held, with the stage that lets nothing go on; empty if there is none."""
    for number, stage in _before(plan, stages, name):
        if stage.refusal is not None:
            return f"stage {number + 1} was not let pass: {stage.refusal.reason}"
        if stage.is_paused:
            return f"all nodes of stage {number + 1} are paused"
    return ""


def is_stuck(plan: Plan, stages: Stages, name: str, position: int) -> bool:
    """Return whether a node does not get all up to a position unless an operator or a later change helps."""
    for _, stage in _before(plan, stages, name):
        if stage.passed >= position:
            continue
        if stage.refusal is None or stage.reached < position:
            return stage.is_paused
        return stage.due is None and stage.checking is None
    return False


def waits_for(plan: Plan, stages: Stages, name: str, head: int, now: float) -> str:
    """Return what a node that is not held waits for, of the stages before it.

    ``head``: the newest position.
    """
    wanted = head
    for number, stage in _before(plan, stages, name):
        what = f"stage {number + 1}"
        if stage.checking is not None:
            return f"{what} is being checked"
        if stage.due is not None:
            return f"{what} is checked in {max(stage.due.at + plan.settle - now, 0):.0f} s"
        if stage.last and stage.reached < wanted:
            more = f" and {len(stage.last) - 1} more" if stage.last[1:] else ""
            return f"waiting for {what}: {stage.last[0]}{more}"
        wanted = stage.passed
    return "waiting for the stage before it"


def wake_at(plan: Plan, stages: Stages) -> float:
    """Return when time alone changes something; infinite if it does not."""
    times = [
        known.at + plan.patience
        for stage in stages
        for name, known in stage.behind.items()
        if name not in stage.given_up
    ]
    times += [stage.due.at + plan.settle for stage in stages if stage.due and stage.checking is None]
    return min(times, default=math.inf)


def _before(plan: Plan, stages: Stages, name: str) -> Iterator[tuple[int, Stage]]:
    """The stages before that of a node, the first one first."""
    for number, stage in enumerate(stages):
        if name in plan.stages[number]:
            return
        yield number, stage
