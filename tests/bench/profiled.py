"""inosync with a profiler in each worker: a program in place of ``bin/inosync``, for ``change_cost.py``.

A worker writes what it has spent its processor time on to $INOSYNC_PROFILES/PID when it ends. The full mirror
and the first batches do not count.
"""

from __future__ import annotations

import cProfile
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from inosync import cli
from inosync.nodes.messages import Batch
from inosync.system import process
from inosync.worker.worker import Worker

DIRECTORY = "INOSYNC_PROFILES"
"""The environment variable with the directory."""
BATCHES_BEFORE = 3
"""Batches of a worker until its profile begins."""


class _Profile:
    """The profile of this process; a worker is forked, so each has its own."""

    def __init__(self) -> None:
        self._profiler = cProfile.Profile(time.thread_time)
        self._batches = 0

    def batch_begins(self) -> None:
        """Begin when enough batches were sent."""
        self._batches += 1
        if self._batches == BATCHES_BEFORE + 1:
            self._profiler.enable()

    def write(self) -> None:
        """Write what was found, if anything."""
        self._profiler.disable()
        if self._batches > BATCHES_BEFORE:
            self._profiler.dump_stats(os.path.join(os.environ[DIRECTORY], str(os.getpid())))


def main() -> int:
    """Run inosync."""
    profile, begin, leave = _Profile(), Worker._begin, process.leave

    def begin_profiled(worker: Worker, batch: Batch) -> None:
        profile.batch_begins()
        begin(worker, batch)

    def leave_profiled(code: int) -> None:
        profile.write()
        leave(code)

    Worker._begin = begin_profiled  # type: ignore[method-assign,assignment]
    process.leave = leave_profiled
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
