"""Waiting for a condition, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LONGEST_PAUSE = 0.25


def until(condition: Callable[[], T | None], timeout: float, what: str) -> T:
    """Call ``condition`` repeatedly, and return its first true value.

    After ``timeout`` seconds raise AssertionError with ``what`` and the last value. The condition is called
    at least twice, the last time after the deadline, so that a test does not fail because it had no
    processor for a while. FileNotFoundError and NotADirectoryError in the condition count as not true yet.
    """
    deadline = time.monotonic() + timeout
    pause = 0.005
    while True:
        late = time.monotonic() >= deadline
        last: object
        try:
            value = condition()
        except (FileNotFoundError, NotADirectoryError) as error:
            last = error
        else:
            if value:
                return value
            last = value
        if late:
            raise AssertionError(f"waited {timeout:g} s for {what}; the last value was {last!r}")
        time.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE)
