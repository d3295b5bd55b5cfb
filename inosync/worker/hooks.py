"""The hooks of one node, run by its worker beside everything else (``on_sync``, ``on_state``)."""

from __future__ import annotations

import contextlib
import math
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inosync.config.hook import Hook, Place
from inosync.messages import HookFinished, Part, StateChanged
from inosync.system import child, process, spool
from inosync.system.child import Child
from inosync.system.loop import Loop
from inosync.text import one_line

MOST = 100_000
"""Names that wait to be told to a hook, of one tree; more, and it is told that anything may have changed."""
KILL_AFTER = 2.0
"""Seconds that a hook has between SIGTERM and SIGKILL."""


class Hooks:
    """Runs one at a time of each kind; what happens meanwhile is one run after it.

    ``report`` takes how each has ended; ``places`` are by the number of the tree; names go to the hook in a
    file in ``directory``. ``all_is_new``: an earlier worker may not have told of all that it did.
    """

    def __init__(
        self,
        node: str,
        name: str,
        on_sync: Hook | None,
        on_state: Hook | None,
        places: Mapping[int, Place],
        directory: str,
        report: Callable[[HookFinished], None],
        loop: Loop,
        clock: Callable[[], float],
        all_is_new: bool = False,
    ) -> None:
        self._facts = {"node": node, "name": name}
        self._on_sync, self._on_state = on_sync, on_state
        self._places, self._directory, self._report = places, directory, report
        self._loop, self._clock = loop, clock
        self._waiting: dict[int, dict[bytes, None] | None] = {}
        """What is to be told of each tree; None: anything may have changed."""
        if all_is_new and on_sync is not None:
            self._waiting = dict.fromkeys(places)
        self._sync: _HookRun | None = None
        self._state: _HookRun | None = None
        self._number = 0

    @property
    def pids(self) -> list[int]:
        """The processes of ours that run."""
        return [run.errand.pid for run in (self._sync, self._state) if run is not None]

    @property
    def busy(self) -> bool:
        """Whether any runs, or is to run."""
        return bool(self.pids or self._waiting)

    @property
    def deadline(self) -> float:
        """When ``tend`` is to be called if nothing else happens."""
        if self._waiting and self._sync is None:
            return self._clock()
        return min((run.deadline for run in (self._sync, self._state) if run is not None), default=math.inf)

    def synced(self, parts: Sequence[Part]) -> None:
        """This has arrived on the node."""
        if self._on_sync is None:
            return
        for part in parts:
            known = self._waiting.setdefault(part.tree, {})
            if part.full or known is None:
                self._waiting[part.tree] = None
            else:
                known.update(dict.fromkeys(part.names))
                if len(known) > MOST:
                    self._waiting[part.tree] = None
        self._next()

    def stated(self, order: StateChanged) -> None:
        """The state of the node has changed."""
        if self._on_state is None:  # the master does not know yet that there is none any more
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
        self._state = self._begin("on_state", self._on_state, facts, "")

    def tend(self) -> None:
        """End what takes too long, and see to what has ended."""
        now = self._clock()
        for run in (self._sync, self._state):
            if run is not None and now >= run.deadline:
                run.end(now)
        self._next()

    def leave(self) -> None:
        """End all of them at once."""
        if self._waiting:
            self._waiting.clear()
            self._report(HookFinished("on_sync", "was not run: its worker had to end"))
        for run in (self._sync, self._state):
            if run is not None:
                run.errand.signal(signal.SIGKILL)

    def _next(self) -> None:
        while self._waiting and self._sync is None:
            assert self._on_sync is not None
            tree = next(iter(self._waiting))
            names, place = self._waiting.pop(tree), self._places[tree]
            file = "" if names is None else self._written(names)
            facts = {
                **self._facts,
                "event": "sync",
                "wpath": place.wpath,
                "rpath": place.rpath,
                "names": file,
                "count": 0 if names is None or not file else len(names),
                "full": 0 if file else 1,
            }
            self._sync = self._begin("on_sync", self._on_sync, facts, file)

    def _written(self, names: Mapping[bytes, None]) -> str:
        """A file with the names, each with a null byte after it; none if that cannot be written."""
        self._number += 1
        path = os.path.join(self._directory, f"hook-{os.getpid()}-{self._number}")
        try:
            with open(path, "xb") as file:
                file.write(b"".join(name + b"\0" for name in names))
        except OSError:  # no room: the hook is told that anything may have changed
            _discard(path)
            return ""
        return path

    def _begin(self, kind: str, hook: Hook, facts: Mapping[str, Any], file: str) -> _HookRun | None:
        parent, name = os.getpid(), self._facts["name"]

        def die_with_us() -> None:
            process.die_with_parent(signal.SIGKILL, parent)

        def call() -> None:
            process.set_title(f"inosync: {name} [{kind}]")
            assert hook.call is not None
            hook.call(facts)

        try:
            if hook.call is not None:
                started = child.function(call, die_with_us)
            else:
                env = {f"INOSYNC_{fact.upper()}": _for_environment(value) for fact, value in facts.items()}
                started = child.program(hook.command, env, die_with_us)
        except OSError as error:
            _discard(file)
            self._report(HookFinished(kind, f"{error.filename or hook.command[:1]}: {error.strerror}"))
            return None
        run = _HookRun(kind, started, self._clock() + hook.timeout, hook.timeout, file)
        self._loop.on_readable(started.output, lambda: self._listen(run))
        self._loop.on_readable(started.exited, lambda: self._ended(run))
        return run

    def _listen(self, run: _HookRun) -> None:
        if not run.errand.read_output():
            self._loop.drop(run.errand.output)

    def _ended(self, run: _HookRun) -> None:
        self._loop.drop(run.errand.output)
        self._loop.drop(run.errand.exited)
        # What it has left running in its group would have nobody to end it.
        run.errand.signal(signal.SIGKILL)
        run.errand.reap()
        _discard(run.file)
        if run is self._sync:
            self._sync = None
        else:
            self._state = None
        self._report(HookFinished(run.kind, run.verdict()))
        # The next one is begun by ``tend``, not deeper and deeper in here.


@dataclass(slots=True, eq=False)
class _HookRun:
    """One that runs."""

    kind: str
    errand: Child
    deadline: float
    """When it is ended, by the clock."""
    timeout: float
    file: str
    terminated: bool = False

    def end(self, now: float) -> None:
        """It has taken too long."""
        self.errand.signal(signal.SIGKILL if self.terminated else signal.SIGTERM)
        self.deadline, self.terminated = now + KILL_AFTER, True

    def verdict(self) -> str:
        """Why it was no success; empty if it was."""
        code = self.errand.code or 0
        if self.terminated:
            why = f"was ended after {self.timeout:g} s"
        elif code == 0:
            return ""
        else:
            why = f"ended with exit code {code}" if code > 0 else f"was killed by signal {-code}"
        return f"{why}: {self.errand.output_tail}" if self.errand.output_tail else why


def _for_environment(value: object) -> str:
    return str(value).replace("\0", "")


def _discard(path: str) -> None:
    with contextlib.suppress(OSError):
        spool.discard(path)
