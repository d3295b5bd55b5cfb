"""When changes are released to the nodes: after a quiet moment, or after the longest delay."""

from __future__ import annotations

from dataclasses import dataclass, replace

LULL_FACTOR = 10
"""A pause of this many times ``quiet``, if it is longer than the present wait, ends lasting activity."""


@dataclass(frozen=True, slots=True)
class Debounce:
    """Its state; times and durations in seconds, ``quiet`` <= ``max_delay``.

    A release is due when nothing changed for ``wait``, at the latest ``max_delay`` after the first change.
    Under lasting activity ``wait`` doubles from ``quiet`` up to ``max_delay``; after a lull it starts again.
    So an isolated edit goes at once, and a flood costs at most one release in ``max_delay``.
    """

    quiet: float
    max_delay: float
    wait: float
    first: float | None = None
    """When the oldest change that was not released yet was seen; None if all were."""
    last: float = 0.0
    """When the newest change was seen."""
    released: float = float("-inf")
    """When the last release was."""


def start(quiet: float, max_delay: float) -> Debounce:
    """Return the state before any change."""
    return Debounce(quiet=quiet, max_delay=max_delay, wait=quiet)


def changed(state: Debounce, now: float) -> Debounce:
    """Return the state after a change."""
    if state.first is not None:
        return replace(state, last=now)
    is_lasting = now - max(state.released, state.last) <= max(state.wait, LULL_FACTOR * state.quiet)
    wait = min(state.wait * 2, state.max_delay) if is_lasting else state.quiet
    return replace(state, first=now, last=now, wait=wait)


def due(state: Debounce) -> float | None:
    """When the next release is due; None while there is nothing to release."""
    if state.first is None:
        return None
    return min(state.last + state.wait, state.first + state.max_delay)


def release(state: Debounce, now: float) -> Debounce:
    """Return the state after all changes were released."""
    return replace(state, first=None, released=now)


def reconfigured(state: Debounce, quiet: float, max_delay: float) -> Debounce:
    """Return the same state under other settings."""
    return replace(state, quiet=quiet, max_delay=max_delay, wait=min(max(state.wait, quiet), max_delay))
