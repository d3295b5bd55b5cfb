"""Reads a configuration again in a process of its own: the file is a program, and may take its time."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkProcess
from typing import cast

from inosync.config.errors import ConfigError, ConfigProblem
from inosync.config.load import Config
from inosync.system import process, signals
from inosync.system.loop import Loop

log = logging.getLogger(__name__)

DEADLINE_SECONDS = 60.0
"""A file that runs for longer is refused."""
_CHUNK_BYTES = 1 << 16

Outcome = Config | ConfigError


@dataclass(frozen=True, slots=True)
class ConfigReader:
    """``load`` raises ConfigError; ``inherited`` are the master's descriptors, which the process closes."""

    load: Callable[[str], Config]
    inherited: Callable[[], list[int]]
    loop: Loop

    def read(self, path: str, done: Callable[[Outcome], None]) -> None:
        """Read a file. ``done`` is called later, with what came of it."""
        pipe: tuple[int, ...] = ()
        try:
            reader, writer = pipe = os.pipe()
            os.set_blocking(reader, False)
            master, inherited = os.getpid(), [*self.inherited(), reader]
            child = process.fork(lambda: _run(self.load, path, writer, master, inherited), "reload")
        except OSError as error:
            process.close(pipe)
            problem = ConfigProblem(path, f"cannot be read now: {error.strerror}")
            self.loop.call_at(self.loop.clock(), lambda: done(ConfigError(problem)))
            return
        os.close(writer)
        _Reading(self, path, child, reader, done)

    def read_here(self, path: str) -> Outcome:
        try:
            return self.load(path)
        except ConfigError as error:
            return error


class _Reading:
    """A process that reads a file, and what it has sent so far."""

    def __init__(
        self,
        owner: ConfigReader,
        path: str,
        child: ForkProcess,
        reader: int,
        done: Callable[[Outcome], None],
    ) -> None:
        self._owner, self._path, self._child, self._reader, self._done = owner, path, child, reader, done
        self._data = bytearray()
        self._is_overdue = False
        loop = owner.loop
        loop.on_readable(reader, self._collect)
        loop.on_readable(child.sentinel, self._finish)
        self._deadline = loop.call_at(loop.clock() + DEADLINE_SECONDS, self._end)

    def _collect(self) -> bool:
        """Read what is there; return whether there may be more."""
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._reader, _CHUNK_BYTES)
            self._data += data
            if not data:
                self._owner.loop.drop(self._reader)
            return bool(data)
        return False

    def _end(self) -> None:
        self._is_overdue = True
        process.send(process.family(self._child.pid or 0), signal.SIGKILL)

    def _finish(self) -> None:
        while self._collect():
            pass
        self._deadline.cancel()
        self._owner.loop.drop(self._child.sentinel)
        self._owner.loop.drop(self._reader)
        os.close(self._reader)
        self._child.join()  # returns at once, because it is dead
        self._done(self._outcome())

    def _outcome(self) -> Outcome:
        if self._is_overdue:
            return ConfigError(ConfigProblem(self._path, f"is not done after {DEADLINE_SECONDS:g} s"))
        if self._data:
            return cast(Outcome, pickle.loads(bytes(self._data)))
        return self._owner.read_here(self._path)  # it has functions in it, which cannot be sent


def _run(load: Callable[[str], Config], path: str, writer: int, master: int, inherited: list[int]) -> None:
    """The life of that process, forked by ``master`` (a pid). Never returns."""
    signals.reset(ignored=(signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2))
    process.close(inherited)
    process.die_with_parent(signal.SIGKILL, master)
    process.set_title(f"inosync: reading {path}")
    try:
        found: Outcome
        try:
            found = load(path)
        except ConfigError as error:
            found = error
        with contextlib.suppress(pickle.PicklingError, AttributeError, TypeError):
            data = pickle.dumps(found, pickle.HIGHEST_PROTOCOL)
            with open(writer, "wb") as stream:
                stream.write(data)
    except Exception:
        log.exception("%s cannot be read because of an unexpected error", path)
    finally:
        process.leave(0)
