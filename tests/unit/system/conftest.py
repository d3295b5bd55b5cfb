"""Fixtures for the tests of processes."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import pytest
from support import procs


@pytest.fixture
def started() -> Iterator[list[procs.Process]]:
    """Processes of which nothing may be left after the test."""
    found: list[procs.Process] = []
    yield found
    for each in found:
        procs.send(each, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(each.pid, 0)
