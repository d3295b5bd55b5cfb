"""The process that writes the state: a disk may take seconds, and the master's loop never waits."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable

from inosync.state import store
from inosync.system.child_service import ChildService
from inosync.system.loop import Loop

log = logging.getLogger(__name__)


class StateWriter:
    """Has one state written at a time. ``inherited``: descriptors of the master that the process closes."""

    def __init__(self, path: str, loop: Loop, inherited: Callable[[], list[int]]) -> None:
        self.path = path
        self._loop = loop
        self._service = ChildService(
            f"state {path}", lambda data: _written(path, data).encode(), loop, inherited
        )
        self._logged = ""
        """Why the last state could not be written."""

    @property
    def is_busy(self) -> bool:
        """Whether the process has not answered yet."""
        return self._service.is_busy

    def descriptors(self) -> list[int]:
        return self._service.descriptors()

    def start(self) -> None:
        """Start the process, if there is none. OSError if that is impossible."""
        self._service.start()

    def write(self, data: bytes) -> bool:
        """Have a state written; False if the last one is still being written, or nothing can be."""
        if self.is_busy:
            return False
        try:
            self._service.ask(data, self._take_answer)
        except OSError as error:
            self._note(f"no process for it: {error.strerror}")
            return False
        return True

    def finish(self, data: bytes | None, seconds: float) -> None:
        """Have the last state written, if there is one, and end the process; wait at most that long."""
        until = self._loop.clock() + seconds
        self._service.wait(until)
        if data is not None and self.write(data):
            self._service.wait(until)
        self._service.end(max(until - self._loop.clock(), 0.0))

    def _take_answer(self, problem: bytes | None) -> None:
        self._note("the process that writes it has ended" if problem is None else problem.decode())

    def _note(self, problem: str) -> None:
        if problem and not self._logged:
            log.warning(
                "%s: %s: the state is not kept, and the next start makes full mirrors", self.path, problem
            )
        elif self._logged and not problem:
            log.info("%s: the state is kept again", self.path)
        self._logged = problem


def _written(path: str, data: bytes) -> str:
    """Write a state; why that failed, or ""."""
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(os.path.dirname(path), 0o700)
        store.write(path, data)
    except OSError as error:
        return error.strerror or str(error)
    return ""
