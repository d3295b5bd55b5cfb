"""What the operator wants to be run after a batch, or when the state of a node has changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from inosync.config import checks
from inosync.config.checks import list_of, string
from inosync.config.errors import invalid
from inosync.messages import NodeState
from inosync.text import format_value

TIMEOUT = 60.0
"""Seconds that a hook has if nothing else is set."""
EXAMPLE = '["/usr/local/sbin/purge-cache"], a function, or {"command": [...], "timeout": 60}'
BEHIND = frozenset({NodeState.LAGGING, NodeState.RETRYING, NodeState.DEGRADED, NodeState.HALTED})
"""The states of which a hook with ``after`` tells, if no others are named."""
_STATES = tuple(word.value for word in NodeState if word not in (NodeState.STARTING, NodeState.SYNCING))


@dataclass(frozen=True, slots=True)
class Hook:
    """A program or a function. Two functions are the same only if they are one: a reload makes new ones."""

    command: tuple[str, ...] = ()
    """The argument vector of a program ..."""
    call: Callable[[Mapping[str, Any]], object] | None = None
    """... or a function, which is given the facts."""
    timeout: float = TIMEOUT
    """Seconds after which it is ended."""
    after: float = 0.0
    """Seconds that a node has to be in one of ``states``."""
    states: frozenset[NodeState] = frozenset()
    """Those that are told, with the end of them; none: every change is."""


@dataclass(frozen=True, slots=True)
class Place:
    """A tree as the operator knows it."""

    wpath: str
    rpath: str


def on_sync(value: object) -> Hook | None:
    """A check: what is run after a batch."""
    return _hook(value, {})


def on_state(value: object) -> Hook | None:
    """A check: what is run when the state of a node has changed."""
    return _hook(value, {"after": checks.seconds, "states": list_of(_state, '["retrying", "halted"]')})


def _hook(value: object, also: Mapping[str, checks.Check]) -> Hook | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        return Hook(**_what(value))
    known = {"command": _what, "timeout": checks.some_seconds, **also}
    if "command" not in value:
        raise invalid(value, "has no 'command'", f"write {EXAMPLE}")
    items = dict(checks.each(value.items(), lambda item: _item(known, *item)))
    made = Hook(
        **items["command"],
        timeout=items.get("timeout", TIMEOUT),
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


def _what(value: object) -> dict[str, Any]:
    if callable(value):
        return {"call": value}
    if isinstance(value, str):
        raise invalid(value, "is a string, which nothing takes apart", f"write {format_value(value.split())}")
    return {"command": list_of(string, EXAMPLE)(value)}


def _state(value: object) -> NodeState:
    if value not in _STATES:
        raise invalid(value, "is no state that is told", f"write some of {', '.join(_STATES)}")
    return NodeState(value)
