"""The hooks of one node (``on_sync``, ``on_state``), run by its worker beside everything else."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from inosync.config.hook import Hook
from inosync.messages import HookFinished, Part, StateChanged
from inosync.system import child, privileges, process, spool
from inosync.system.child import Child
from inosync.system.loop import Loop, Timer
from inosync.text import one_line, without_password
from inosync.worker.job import Job

MAX_NAMES = 100_000
"""Names of one tree that wait for a hook; of more it is told that anything may have changed."""
KILL_AFTER_SECONDS = 2.0
"""The time between SIGTERM and SIGKILL."""


class Hooks:
    """Runs one hook of each kind at a time; all that happens meanwhile is told to the next one.

    ``report`` takes how each has ended.
    """

    def __init__(self, job: Job, report: Callable[[HookFinished], None], loop: Loop) -> None:
        self._job, self._report, self._loop = job, report, loop
        self._facts = {"node": without_password(job.node), "name": job.name}
        self._waiting: dict[int, dict[bytes, None] | None] = {}
        """The names to be told of each tree; None: anything may have changed."""
        self._sync: _HookRun | None = None  # the on_sync that runs
        self._state: _HookRun | None = None  # the on_state that runs
        self._file_count = 0  # files written with names
        if job.hooks_lost and job.on_sync is not None:
            self._waiting = dict.fromkeys(job.places)
            self._start_soon()

    @property
    def pids(self) -> list[int]:
        """The hooks that run."""
        return [run.child.pid for run in (self._sync, self._state) if run is not None]

    @property
    def is_busy(self) -> bool:
        """Whether a hook runs, or is to run."""
        return bool(self.pids or self._waiting)

    def synced(self, parts: Sequence[Part]) -> None:
        """Tell on_sync of what has arrived on the node."""
        if self._job.on_sync is None:
            return
        for part in parts:
            known = self._waiting.setdefault(part.tree, {})
            if part.full or known is None:
                self._waiting[part.tree] = None
            else:
                known.update(dict.fromkeys(part.names))
                if len(known) > MAX_NAMES:
                    self._waiting[part.tree] = None
        self._start_waiting()

    def state_changed(self, order: StateChanged) -> None:
        """Tell on_state of the node's new state."""
        if self._job.on_state is None:  # it was removed from the configuration just now
            self._report(HookFinished("on_state"))
            return
        facts = {
            **self._facts,
            "event": "state",
            "state": order.state,
            "before": order.before,
            "reason": one_line(order.reason),
            "lag": round(order.lag, 3),
            "seconds": round(order.seconds, 3),
        }
        self._state = self._start("on_state", self._job.on_state, facts, "")

    def kill_all(self) -> None:
        """End all hooks at once, and start none."""
        if self._waiting:
            self._waiting.clear()
            self._report(HookFinished("on_sync", "was not run: its worker had to end"))
        for run in (self._sync, self._state):
            if run is not None:
                run.child.signal(signal.SIGKILL)

    def _start_soon(self) -> None:
        """In a call of its own: one that cannot be started would be followed by the next, ever deeper."""
        self._loop.call_at(self._loop.clock(), self._start_waiting)

    def _start_waiting(self) -> None:
        while self._waiting and self._sync is None:
            assert self._job.on_sync is not None
            tree = next(iter(self._waiting))
            names, place = self._waiting.pop(tree), self._job.places[tree]
            file = "" if names is None else self._write(names)
            facts = {
                **self._facts,
                "event": "sync",
                "wpath": place.wpath,
                "rpath": place.rpath,
                "names": file,
                "count": 0 if names is None or not file else len(names),
                "full": 0 if file else 1,
            }
            self._sync = self._start("on_sync", self._job.on_sync, facts, file)

    def _write(self, names: Mapping[bytes, None]) -> str:
        """The path of a file with these names, a null byte after each; empty if it cannot be written."""
        self._file_count += 1
        path = os.path.join(self._job.spool, f"hook-{os.getpid()}-{self._file_count}")
        try:
            with open(path, "xb") as file:
                file.write(b"".join(name + b"\0" for name in names))
        except OSError:  # no room: the hook is told that anything may have changed
            _discard(path)
            return ""
        return path

    def _start(self, kind: str, hook: Hook, facts: Mapping[str, Any], file: str) -> _HookRun | None:
        def prepare(parent: int = os.getpid()) -> None:
            privileges.drop_all()
            process.die_with_parent(signal.SIGKILL, parent)

        def call() -> None:
            process.set_title(f"inosync: {self._job.name} [{kind}]")
            assert hook.call is not None
            hook.call(facts)

        try:
            if hook.call is not None:
                started = child.function(call, prepare)
            else:
                env = {f"INOSYNC_{fact.upper()}": _for_environment(value) for fact, value in facts.items()}
                started = child.program(hook.command, env, prepare)
        except OSError as error:
            _discard(file)
            self._report(HookFinished(kind, f"{error.filename or hook.command[:1]}: {error.strerror}"))
            return None
        run = _HookRun(kind, started, hook.timeout, file)
        self._loop.on_readable(started.output, partial(self._listen, run))
        self._loop.on_exit(started.exited, partial(self._on_exit, run))
        self._end_in(run, hook.timeout)
        return run

    def _end_in(self, run: _HookRun, seconds: float) -> None:
        run.end = self._loop.call_at(self._loop.clock() + seconds, partial(self._end, run))

    def _end(self, run: _HookRun) -> None:
        run.child.signal(signal.SIGKILL if run.is_overdue else signal.SIGTERM)
        run.is_overdue = True
        self._end_in(run, KILL_AFTER_SECONDS)

    def _listen(self, run: _HookRun) -> None:
        if not run.child.read_output():
            self._loop.drop(run.child.output)

    def _on_exit(self, run: _HookRun) -> None:
        if run.end is not None:
            run.end.cancel()
        self._loop.drop(run.child.output)
        self._loop.drop(run.child.exited)
        run.child.signal(signal.SIGKILL)  # what it has left running in its group
        run.child.reap()
        _discard(run.file)
        if run is self._sync:
            self._sync = None
        else:
            self._state = None
        self._report(HookFinished(run.kind, run.failure))
        self._start_soon()


@dataclass(slots=True, eq=False)
class _HookRun:
    kind: str
    child: Child
    timeout: float
    file: str  # with the names
    end: Timer | None = None  # when it is ended
    is_overdue: bool = False  # it was ended because it took too long

    @property
    def failure(self) -> str:
        """Why it was no success; empty if it was."""
        code = self.child.code or 0
        if self.is_overdue:
            why = f"was ended after {self.timeout:g} s"
        elif code == 0:
            return ""
        else:
            why = f"ended with exit code {code}" if code > 0 else f"was killed by signal {-code}"
        return f"{why}: {self.child.output_tail}" if self.child.output_tail else why


def _for_environment(value: object) -> str:
    return str(value).replace("\0", "")


def _discard(path: str) -> None:
    with contextlib.suppress(OSError):
        spool.discard(path)
