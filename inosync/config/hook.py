"""Hooks: what is run after a batch, when the state of a node has changed, or when a stage has all it may."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from inosync.config import checks
from inosync.config.checks import list_of, string
from inosync.config.errors import invalid
from inosync.filters.rule import Rule
from inosync.text import NodeState, format_value

DEFAULT_TIMEOUT_SECONDS = 60.0
_EXAMPLE = '["/usr/local/sbin/purge-cache"], a function, or {"command": [...], "timeout": 60}'
BEHIND = frozenset(
    {NodeState.LAGGING, NodeState.RETRYING, NodeState.DEGRADED, NodeState.HALTED, NodeState.HELD}
)
"""The states that a hook with ``after`` is run for, unless it names others."""
_STATES = tuple(word.value for word in NodeState if word not in (NodeState.STARTING, NodeState.SYNCING))


@dataclass(frozen=True, slots=True)
class Hook:
    """A program or a function. A reload makes a new function, which equals none of before."""

    command: tuple[str, ...] = ()
    """The argument vector of a program; empty for a function."""
    call: Callable[[Mapping[str, Any]], object] | None = None
    """A function that takes the facts; None for a program."""
    timeout: float = DEFAULT_TIMEOUT_SECONDS
    """Seconds after which the run is ended."""
    after: float = 0.0
    """Seconds that a node has to be in one of ``states`` first."""
    states: frozenset[NodeState] = frozenset()
    """The states that it is run for, and for their end; empty: for every change."""


@dataclass(frozen=True, slots=True)
class OnStage:
    """``on_stage``: what decides whether a stage passes on what it has. Times in seconds."""

    hook: Hook | None = None
    """None: stages are an order, and no more."""
    settle: float = 0.0
    """How long a stage has to have everything before it is checked."""
    patience: float = math.inf
    """How long nodes are waited for that come no further than others of their stage."""
    only: tuple[Rule, ...] = ()
    """What is checked; empty: everything."""


@dataclass(frozen=True, slots=True)
class Place:
    """A tree as the configuration has it."""

    wpath: str
    rpath: str


def on_sync(value: object) -> Hook | None:
    """Check what is run after a batch."""
    return _hook(value, {})


def on_state(value: object) -> Hook | None:
    """Check what is run when the state of a node has changed."""
    return _hook(value, {"after": checks.seconds, "states": list_of(_state, '["retrying", "halted"]')})


def on_stage(value: object) -> OnStage | None:
    """Check what is run when a stage has confirmed everything."""
    if not isinstance(value, dict):
        hook = _hook(value, {})
        return None if hook is None else OnStage(hook)
    times = {"settle": checks.seconds, "patience": checks.seconds, "only": _only}
    known = {"command": _target, "timeout": checks.some_seconds, **times}
    items = dict(checks.each(value.items(), lambda item: _item(known, *item)))
    if "timeout" in items and "command" not in items:
        raise invalid(value, "has a 'timeout', but no 'command'", f"write {_EXAMPLE}")
    hook = None
    if "command" in items:
        hook = Hook(**items["command"], timeout=items.get("timeout", DEFAULT_TIMEOUT_SECONDS))
    elif items.get("only") or "settle" in items:
        raise invalid(value, "has no 'command' that could decide", f"write {_EXAMPLE}")
    patience = items.get("patience", math.inf)
    return OnStage(hook, items.get("settle", 0.0), patience, items.get("only", ()))


def _only(value: object) -> tuple[Rule, ...]:
    return tuple(rule for rule in checks.patterns(_no_file(value)) if isinstance(rule, Rule))


def _no_file(value: object) -> object:
    if isinstance(value, dict) or (
        isinstance(value, list | tuple) and any(isinstance(one, dict) for one in value)
    ):
        raise invalid(
            value, "has a file of patterns in it", 'write the patterns, such as ["*.html", "/current"]'
        )
    return value


def _hook(value: object, also: Mapping[str, checks.Check]) -> Hook | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        return Hook(**_target(value))
    known = {"command": _target, "timeout": checks.some_seconds, **also}
    if "command" not in value:
        raise invalid(value, "has no 'command'", f"write {_EXAMPLE}")
    items = dict(checks.each(value.items(), lambda item: _item(known, *item)))
    made = Hook(
        **items["command"],
        timeout=items.get("timeout", DEFAULT_TIMEOUT_SECONDS),
        after=items.get("after", 0.0),
        states=frozenset(items.get("states", ())),
    )
    if made.after and not made.states:
        return replace(made, states=BEHIND)
    return made


def _item(known: Mapping[str, checks.Check], key: object, value: object) -> tuple[str, Any]:
    if not isinstance(key, str) or key not in known:
        raise invalid(key, "is not known", f"write one of {', '.join(known)}")
    return key, checks.inside(key, known[key], value)


def _target(value: object) -> dict[str, Any]:
    if callable(value):
        return {"call": value}
    if isinstance(value, str):
        raise invalid(value, "is a string, which nothing takes apart", f"write {format_value(value.split())}")
    return {"command": list_of(string, _EXAMPLE)(value)}


def _state(value: object) -> NodeState:
    if value not in _STATES:
        raise invalid(value, "is no state that hooks are run for", f"write some of {', '.join(_STATES)}")
    return NodeState(value)
