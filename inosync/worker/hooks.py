"""The hooks of one node (``on_sync``, ``on_state``), run by its worker beside everything else."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from inosync.changes import Part
from inosync.config.hook import Hook
from inosync.nodes.messages import HookFinished, StateChanged
from inosync.system.loop import Loop
from inosync.text import one_line, without_password
from inosync.worker import hook_run
from inosync.worker.hook_run import HookRun
from inosync.worker.job import Job

MAX_NAMES = 100_000
"""Names of one tree that wait for a hook. If there are more, it is told that anything may have changed."""


class Hooks:
    """Runs one hook of each kind at a time. What happens meanwhile is for the next run.

    ``report`` is called when a hook has ended.
    """

    def __init__(self, job: Job, report: Callable[[HookFinished], None], loop: Loop) -> None:
        self._job, self._report, self._loop = job, report, loop
        self._facts = {"node": without_password(job.node), "name": job.name}
        self._waiting: dict[int, dict[bytes, None] | None] = {}
        """The names to be told of each tree; None: anything may have changed."""
        self._sync: HookRun | None = None  # the on_sync that runs
        self._state: HookRun | None = None  # the on_state that runs
        self._file_count = 0  # files written with names
        if job.hooks_lost and job.on_sync is not None:
            self._waiting = dict.fromkeys(job.places)
            self._start_soon()

    @property
    def pids(self) -> list[int]:
        """The hooks that run."""
        return [run.pid for run in (self._sync, self._state) if run is not None]

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
        self._state = self._start("on_state", self._job.on_state, facts)

    def kill_all(self) -> None:
        """End all hooks at once, and start none."""
        if self._waiting:
            self._waiting.clear()
            self._report(HookFinished("on_sync", "was not run: its worker had to end"))
        for run in (self._sync, self._state):
            if run is not None:
                run.kill()

    def _start_soon(self) -> None:
        """Start hooks in a call of the loop: a hook that cannot be started ends by starting the next one."""
        self._loop.call_at(self._loop.clock(), self._start_waiting)

    def _start_waiting(self) -> None:
        while self._waiting and self._sync is None:
            assert self._job.on_sync is not None
            tree = next(iter(self._waiting))
            names, place = self._waiting.pop(tree), self._job.places[tree]
            self._file_count += 1
            path = os.path.join(self._job.spool, f"hook-{os.getpid()}-{self._file_count}")
            facts = {
                **self._facts,
                "event": "sync",
                "wpath": place.wpath,
                "rpath": place.rpath,
                **hook_run.tell_names(names, path),
            }
            self._sync = self._start("on_sync", self._job.on_sync, facts)

    def _start(self, kind: str, hook: Hook, facts: Mapping[str, Any]) -> HookRun | None:
        title = f"inosync: {self._job.name} [{kind}]"
        try:
            return HookRun(hook, facts, title, self._loop, partial(self._ended, kind))
        except OSError as error:
            self._report(HookFinished(kind, f"{error.filename or hook.command[:1]}: {error.strerror}"))
            return None

    def _ended(self, kind: str, failure: str) -> None:
        if kind == "on_sync":
            self._sync = None
        else:
            self._state = None
        self._report(HookFinished(kind, failure))
        self._start_soon()
