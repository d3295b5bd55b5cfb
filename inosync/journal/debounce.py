"""When changes are released to the nodes: after a quiet moment, or after the longest delay."""

from __future__ import annotations

from dataclasses import dataclass, replace

LULL = 10
"""A pause of this many times ``quiet``, if it is longer than the present wait, ends lasting activity."""


@dataclass(frozen=True, slots=True)
class Debounce:
    """The state of the pacing; all times and durations in seconds, ``quiet`` <= ``max_delay``.

    A release is due when nothing changed for ``wait``, at the latest ``max_delay`` after the first change.
    Under lasting activity ``wait`` doubles from ``quiet`` up to ``max_delay``; after a lull it starts again,
    so an isolated edit goes at once and a flood costs at most one release in ``max_delay``.
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
    """A pace that has seen nothing yet."""
    return Debounce(quiet=quiet, max_delay=max_delay, wait=quiet)


def changed(pace: Debounce, now: float) -> Debounce:
    """Something has changed."""
    if pace.first is not None:
        return replace(pace, last=now)
    lasting = now - max(pace.released, pace.last) <= max(pace.wait, LULL * pace.quiet)
    wait = min(pace.wait * 2, pace.max_delay) if lasting else pace.quiet
    return replace(pace, first=now, last=now, wait=wait)


def due(pace: Debounce) -> float | None:
    """When the next release is due; None while there is nothing to release."""
    if pace.first is None:
        return None
    return min(pace.last + pace.wait, pace.first + pace.max_delay)


def release(pace: Debounce, now: float) -> Debounce:
    """All that was seen so far has been released."""
    return replace(pace, first=None, released=now)


def reconfigured(pace: Debounce, quiet: float, max_delay: float) -> Debounce:
    """The same moment under other settings."""
    return replace(pace, quiet=quiet, max_delay=max_delay, wait=min(max(pace.wait, quiet), max_delay))
