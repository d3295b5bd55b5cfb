"""Waiting for something to become true, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LONGEST_PAUSE = 0.25


def until(condition: Callable[[], T | None], timeout: float, what: str) -> T:
    """Return the first truthy value of ``condition()``, which is asked again and again.

    After ``timeout`` seconds an ``AssertionError`` says ``what`` was waited for, and the last value. The
    condition is asked at least twice, the last time after the deadline, so that a test process that was not
    given the processor for a while does not fail for it. What is not there, or is gone while the condition
    looks at it, is not true yet.
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
