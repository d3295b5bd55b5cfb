"""How long changes gather before they are released to the nodes. Pure; times in seconds, by one clock."""

from __future__ import annotations

from dataclasses import dataclass, replace

GATHER_FACTOR = 20
"""Changes without a quiet moment are released after this many times ``quiet``: they may go on for ever."""


@dataclass(frozen=True, slots=True)
class Debounce:
    """Its state; ``quiet`` <= ``max_delay``.

    A release is due when nothing changed for ``quiet``, but no later than ``max_gather`` after the first
    change. Nothing is kept of what was released before, so that no activity makes the next change wait.
    """

    quiet: float
    max_delay: float
    first: float | None = None
    """When the oldest change that was not released yet was seen; None if all were."""
    last: float = 0.0
    """When the newest change was seen."""

    @property
    def max_gather(self) -> float:
        return min(GATHER_FACTOR * self.quiet, self.max_delay)


def changed(state: Debounce, now: float) -> Debounce:
    return replace(state, first=now if state.first is None else state.first, last=now)


def due(state: Debounce) -> float | None:
    """When the next release is due; None while there is nothing to release."""
    if state.first is None:
        return None
    return min(state.last + state.quiet, state.first + state.max_gather)


def release(state: Debounce) -> Debounce:
    return replace(state, first=None)


def reconfigured(state: Debounce, quiet: float, max_delay: float) -> Debounce:
    return replace(state, quiet=quiet, max_delay=max_delay)
