"""One run of a hook: a child that is ended when it takes too long, and with all that it has started."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection, Mapping
from typing import Any

from inosync.config.hook import Hook
from inosync.system import child, privileges, process, spool
from inosync.system.loop import Loop, Timer

KILL_AFTER_SECONDS = 2.0
"""The time between SIGTERM and SIGKILL."""


def tell_names(names: Collection[bytes] | None, path: str) -> Mapping[str, object]:
    """Return what a hook is told of these names, in a file at ``path``; None: anything may have changed.

    The file is gone when the hook has ended, or could not be started.
    """
    if names is not None:
        try:
            with open(path, "xb") as file:
                file.write(b"".join(name + b"\0" for name in names))
        except OSError:  # no room: the hook is told that anything may have changed
            spool.discard(path)
        else:
            return {"names": path, "count": len(names), "full": 0}
    return {"names": "", "count": 0, "full": 1}


class HookRun:
    """A hook that runs. ``done`` gets why it was no success; empty if it was one.

    ``facts``: what it is told; ``title``: what ps shows of a function. OSError if it cannot be started.
    """

    def __init__(
        self, hook: Hook, facts: Mapping[str, Any], title: str, loop: Loop, done: Callable[[str], None]
    ) -> None:
        self._hook, self._loop, self._done = hook, loop, done
        self._file = str(facts.get("names", ""))
        self._is_overdue = False
        """Whether it was ended because it took too long."""
        try:
            self._child = _started(hook, facts, title)
        except OSError:
            spool.discard(self._file)
            raise
        loop.on_readable(self._child.output, self._listen)
        loop.on_exit(self._child.exited, self._on_exit)
        self._end_timer: Timer
        """Ends it."""
        self._end_in(hook.timeout)

    @property
    def pid(self) -> int:
        return self._child.pid

    def descriptors(self) -> list[int]:
        """What a forked child has to close."""
        return [self._child.output, self._child.exited]

    def kill(self) -> None:
        """End it at once, because what started it ends."""
        self._child.signal(signal.SIGKILL)
        spool.discard(self._file)

    def _end_in(self, seconds: float) -> None:
        self._end_timer = self._loop.call_at(self._loop.clock() + seconds, self._end)

    def _end(self) -> None:
        self._child.signal(signal.SIGKILL if self._is_overdue else signal.SIGTERM)
        self._is_overdue = True
        self._end_in(KILL_AFTER_SECONDS)

    def _listen(self) -> None:
        if not self._child.read_output():
            self._loop.drop(self._child.output)

    def _on_exit(self) -> None:
        self._end_timer.cancel()
        self._loop.drop(self._child.output)
        self._loop.drop(self._child.exited)
        self._child.signal(signal.SIGKILL)  # what it has left running in its group
        self._child.reap()
        spool.discard(self._file)
        self._done(self._failure())

    def _failure(self) -> str:
        code, tail = self._child.code or 0, self._child.output_tail
        if self._is_overdue:
            why = f"was ended after {self._hook.timeout:g} s"
        elif code == 0:
            return ""
        else:
            why = f"ended with exit code {code}" if code > 0 else f"was killed by signal {-code}"
        return f"{why}: {tail}" if tail else why


def _started(hook: Hook, facts: Mapping[str, Any], title: str) -> child.Child:
    def prepare(parent: int = os.getpid()) -> None:
        privileges.drop_all()
        process.die_with_parent(signal.SIGKILL, parent)

    def call() -> None:
        process.set_title(title)
        assert hook.call is not None
        hook.call(facts)

    if hook.call is not None:
        return child.function(call, prepare)
    env = {f"INOSYNC_{fact.upper()}": _for_environment(value) for fact, value in facts.items()}
    return child.program(hook.command, env, prepare)


def _for_environment(value: object) -> str:
    return str(value).replace("\0", "")
