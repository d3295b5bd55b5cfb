"""When nodes are compared in full: in turn, each once in ``rverify`` seconds, not all of them together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from inosync.nodes import backoff

FIRST_PAUSE = 60.0
"""Seconds until a comparison that came to nothing is tried again, for the first time."""


@dataclass(frozen=True, slots=True)
class Round:
    """The plan for one node; times by the caller's clock, in seconds. ``rand``, below, is in [0, 1)."""

    every: float
    """0 is never."""
    due: float
    failures: int = 0
    """In a row."""
    asked: bool = False
    """Whether the next one is due since somebody has asked for it; that is so until it is done."""


def first(every: float, now: float, rand: float) -> Round:
    """That of a node which is compared in full anyway when it is met.

    Between a quarter of the time and all of it, so that those which were met together do not stay together.
    """
    return Round(every, now + every * (1 + 3 * rand) / 4 if every else float("inf"))


def now(plan: Round, at: float) -> Round:
    """The plan when somebody wants it compared at once, even if it never is by itself."""
    return replace(plan, due=at, failures=0, asked=True)


def done(plan: Round, now: float, rand: float) -> Round:
    """What comes after a comparison: another one in about ``every`` seconds, a tenth less or more."""
    return Round(plan.every, now + plan.every * (0.9 + rand / 5) if plan.every else float("inf"))


def failed(plan: Round, now: float, rand: float) -> Round:
    """What comes after one that came to nothing: another try soon, and less and less soon."""
    failures = plan.failures + 1
    every = plan.every or (FIRST_PAUSE if plan.asked else 0.0)
    pause = backoff.delay(failures, min(FIRST_PAUSE, every), every, rand)
    return replace(plan, due=now + pause if every else float("inf"), failures=failures)


def retuned(plan: Round, every: float, last: float | None, now: float, rand: float) -> Round:
    """The plan when ``every`` becomes another one; ``last`` is when the node was last compared."""
    if every == plan.every:
        return plan
    if plan.asked:
        return replace(plan, every=every)
    return first(every, now, rand) if last is None else done(Round(every, 0.0), last, rand)


def next_ones(plans: Mapping[str, Round], now: float) -> list[str]:
    """Whose turn it is by now, those first that have waited longest."""
    return sorted((name for name, plan in plans.items() if plan.due <= now), key=lambda name: plans[name].due)
