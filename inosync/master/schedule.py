"""When nodes are verified: in turn, each once in ``rverify`` seconds, not all of them together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf

from inosync.nodes import backoff

FIRST_PAUSE_SECONDS = 60.0
"""The first pause after a verification that was cut short, until it is retried."""
RETURN_SECONDS = 60.0
"""The longest time until a node that answers again is verified, at least half of it: it catches up first."""
BETWEEN_RETURNS_SECONDS = 3600.0
"""At least, from one verification to another because the node answers again: its line may be bad."""

RESUMED_SECONDS = 3600.0
"""The longest time until a node is verified that was taken over from an earlier process, at least a tenth of
it."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """That of one node; times by the caller's clock, in seconds. ``rand``, below, is in [0, 1)."""

    interval: float
    """0 is never."""
    due: float
    failures: int = 0
    """In a row."""
    requested: bool = False
    """Whether an operator has asked for the next verification; until it is done."""


def first(interval: float, now: float, rand: float) -> Schedule:
    """The schedule of a new node, which is compared in full anyway.

    Due after between a quarter of the interval and all of it, so that nodes which were added together do not
    stay together.
    """
    return Schedule(interval, now + interval * (1 + 3 * rand) / 4 if interval else inf)


def resumed(schedule: Schedule, now: float, rand: float) -> Schedule:
    """The schedule of a node that was taken over from an earlier process, without a full mirror.

    What was restored from a backup meanwhile, or rolled back, has old times, and only a comparison finds it.
    """
    return replace(schedule, due=min(schedule.due, now + RESUMED_SECONDS * (1 + 9 * rand) / 10))


def request(schedule: Schedule, now: float) -> Schedule:
    """The schedule when an operator wants the node verified at once, even if it never is by itself."""
    return replace(schedule, due=now, failures=0, requested=True)


def hasten(schedule: Schedule, last: float | None, now: float, rand: float) -> Schedule:
    """The schedule of a node that was away: its disk may be another one, or have been restored.

    ``last``: when the node was last verified. A node that is never verified by itself stays so.
    """
    if not schedule.interval:
        return schedule
    due = now + RETURN_SECONDS * (1 + rand) / 2
    if last is not None:
        due = max(due, last + BETWEEN_RETURNS_SECONDS)
    return replace(schedule, due=min(schedule.due, due))


def done(interval: float, now: float, rand: float) -> Schedule:
    """The schedule after a verification: the next one after the interval, a tenth less or more."""
    return Schedule(interval, now + interval * (0.9 + rand / 5) if interval else inf)


def failed(schedule: Schedule, now: float, rand: float) -> Schedule:
    """The schedule after one that came to nothing: another try soon, and less and less soon."""
    failures = schedule.failures + 1
    interval = schedule.interval or (FIRST_PAUSE_SECONDS if schedule.requested else 0.0)
    pause = backoff.delay(failures, min(FIRST_PAUSE_SECONDS, interval), interval, rand)
    return replace(schedule, due=now + pause if interval else inf, failures=failures)


def configure(schedule: Schedule, interval: float, last: float | None, now: float, rand: float) -> Schedule:
    """The schedule with another interval; ``last``: when the node was last verified."""
    if interval == schedule.interval:
        return schedule
    if schedule.requested:
        return replace(schedule, interval=interval)
    return first(interval, now, rand) if last is None else done(interval, last, rand)


def due_nodes(schedules: Mapping[str, Schedule], now: float) -> list[str]:
    """The nodes that are due by now, those first that have waited longest."""
    due = [name for name, schedule in schedules.items() if schedule.due <= now]
    return sorted(due, key=lambda name: schedules[name].due)
