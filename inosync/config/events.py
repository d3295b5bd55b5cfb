"""``emask``: inotify events (inotify(7))."""

from __future__ import annotations

from inosync.config.checks import list_of
from inosync.config.errors import invalid
from inosync.text import did_you_mean

BY_READING = frozenset({"IN_ACCESS", "IN_OPEN", "IN_CLOSE_NOWRITE"})
"""Events that every reader of a file causes, rsync too."""

DEFAULT_EVENTS = (
    "IN_CLOSE_WRITE",
    "IN_CREATE",
    "IN_DELETE",
    "IN_MOVED_FROM",
    "IN_MOVED_TO",
    "IN_ATTRIB",
)

_SINGLE = BY_READING | {*DEFAULT_EVENTS, "IN_MODIFY", "IN_DELETE_SELF", "IN_MOVE_SELF"}
_MEANING = {event: frozenset({event}) for event in _SINGLE} | {
    "IN_ALL_EVENTS": _SINGLE,
    "IN_CLOSE": frozenset({"IN_CLOSE_WRITE", "IN_CLOSE_NOWRITE"}),
    "IN_MOVE": frozenset({"IN_MOVED_FROM", "IN_MOVED_TO"}),
}


def events(value: object) -> frozenset[str]:
    """Check a list of events; return them with names for several events resolved."""
    some = list(value) if isinstance(value, set | frozenset) else value
    found = frozenset[str]().union(*list_of(_event, 'emask = ["IN_CLOSE_WRITE", ...]')(some))
    if found <= BY_READING:
        hint = "write events that change something, such as IN_CLOSE_WRITE"
        raise invalid(value, "has only events that rsync's own reading causes", hint)
    return found


def _event(value: object) -> frozenset[str]:
    name = value if isinstance(value, str) else ""
    if name in _MEANING:
        return _MEANING[name]
    hint = did_you_mean(name.upper(), _MEANING) or f"write one of {' '.join(sorted(_SINGLE))}"
    raise invalid(value, "is not an event", hint)
