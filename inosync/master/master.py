"""The master: one thread, one loop, and nothing in it waits for a node.

What must never wait is emptying the kernel's event queue. Everything else happens between reads.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Any

from inosync.master.groups import Calls, Operator, System, Watching, Workers
from inosync.status.publisher import StatePublisher
from inosync.worker import worker

WALK_SECONDS = 0.01
"""The longest walk between two reads of the kernel's queue."""
AHEAD_SECONDS = 0.05
"""The longest walk before the workers are forked."""
READ_SECONDS = 0.1
"""The longest read of the kernel's queue before anything else gets its turn."""
TICK_SECONDS = 1.0
"""The time between two checks of what no event reports."""


@dataclass(slots=True)
class Master:
    """Turns over all parts of the daemon, which ``wiring`` has made."""

    system: System
    watching: Watching
    workers: Workers
    operator: Operator
    publisher: StatePublisher
    calls: Calls

    def run(self) -> None:
        """Mirror until SIGTERM or SIGINT."""
        self.system.loop.on_readable(self.system.signals, self._take_signals)
        self.system.loop.on_readable(self.watching.watcher, self._read_events)
        for table in self.watching.watcher.mounts.descriptors():
            # At once, because what is mounted for a moment is in the place of something that has not changed.
            self.system.loop.on_change(table, self.watching.watcher.mounts.check)
        self.operator.reloader.start(self._walk_ahead)
        self.system.loop.call_every(TICK_SECONDS, self._tick)
        while not self.workers.pool.has_ended:
            self._turn()
        self.workers.pool.abandon()
        for close in self.calls.at_end:
            close()

    def _walk_ahead(self) -> None:
        """Walk before workers are forked, which takes a while: then scouts look at files meanwhile."""
        if self.watching.watcher.is_catching_up:
            self.watching.watcher.work(AHEAD_SECONDS)

    @property
    def outcome(self) -> dict[str, Any]:
        """With ``once``, the status of the nodes at the end."""
        return {} if self.operator.once is None else self.operator.once.outcome

    def _turn(self) -> None:
        timeout = 0.0
        if self.watching.watcher.is_idle:
            due = min(self.watching.watcher.deadline(), self.watching.pacing.due)
            timeout = max(due - self.system.loop.clock(), 0.0)
        self.system.loop.turn(timeout)
        if self.system.loop.clock() >= self.watching.watcher.deadline():
            self.watching.watcher.run_due()
        self.watching.watcher.work(WALK_SECONDS)
        self._read_events()
        self.watching.pacing.release_if_due()
        self.workers.staging.advance()
        self.operator.flushes.end_finished()
        for call in self.calls.each_turn:
            call()
        if (
            self.operator.once is not None
            and not self.workers.pool.is_stopping
            and self.operator.once.is_done()
        ):
            hook = self.operator.reloader.config.on_sync
            grace = worker.GRACE_SECONDS if hook is None else hook.timeout
            self.operator.commands.stop("everything was mirrored, once", grace)
        if not self.watching.watcher.incomplete_trees:
            self.system.manager.ready()
        self.system.manager.set_status(self.publisher.summary)

    def _read_events(self) -> None:
        # Not without an end: events may be made faster than they are read.
        until = self.system.loop.clock() + READ_SECONDS
        while self.watching.watcher.read() and self.system.loop.clock() < until:
            pass
        self.watching.events.events_read(self.watching.watcher.caught_up_at)

    def _tick(self) -> None:
        for call in self.calls.each_second:
            call()

    def _take_signals(self) -> None:
        for number in self.system.signals.caught():
            match number:
                case signal.SIGHUP:
                    self.operator.reloader.reload()
                case signal.SIGUSR1:
                    self.operator.commands.reopen_log()
                case signal.SIGUSR2:
                    self.watching.events.accept_loss()
                case _:
                    self.operator.commands.stop(signal.Signals(number).name)
