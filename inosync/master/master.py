"""The master: one thread, one loop, and nothing in it waits for a node.

What must never wait is emptying the kernel's event queue. Everything else happens between reads.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from inosync.master.commands import Commands
from inosync.master.flush import Flushes
from inosync.master.once import Once
from inosync.master.pacing import Pacing
from inosync.master.reload import Reloader
from inosync.master.staging import Staging
from inosync.master.tree_events import TreeEvents
from inosync.master.worker_pool import WorkerPool
from inosync.status.publisher import StatePublisher
from inosync.system.loop import Loop
from inosync.system.signals import Signals
from inosync.system.systemd import ServiceManager
from inosync.watch.watcher import Watcher
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
    """The loop over all parts of the daemon, which ``wiring`` has made."""

    loop: Loop
    signals: Signals
    watcher: Watcher
    events: TreeEvents
    pacing: Pacing
    pool: WorkerPool
    staging: Staging
    flushes: Flushes
    publisher: StatePublisher
    reloader: Reloader
    commands: Commands
    manager: ServiceManager
    once: Once | None
    """Ends the daemon when everything was mirrored; None: it runs until it is stopped."""
    each_tick: Sequence[Callable[[], object]]
    """What is to be called every second."""
    closing: Sequence[Callable[[], object]]
    """What is to be called at the end."""
    each_turn: Sequence[Callable[[], object]] = ()
    """What is to be called in each turn of the loop."""

    def run(self) -> None:
        """Mirror until SIGTERM or SIGINT."""
        self.loop.on_readable(self.signals, self._take_signals)
        self.loop.on_readable(self.watcher, self._read_events)
        for table in self.watcher.mounts.descriptors():
            # At once, because what is mounted for a moment is in the place of something that has not changed.
            self.loop.on_change(table, self.watcher.mounts.check)
        self.reloader.start(self._walk_ahead)
        self.loop.call_every(TICK_SECONDS, self._tick)
        while not self.pool.has_ended:
            self._turn()
        self.pool.abandon()
        for close in self.closing:
            close()

    def _walk_ahead(self) -> None:
        """Walk before workers are forked, which takes a while: then scouts look at files meanwhile."""
        if self.watcher.is_catching_up:
            self.watcher.work(AHEAD_SECONDS)

    @property
    def outcome(self) -> dict[str, Any]:
        """With ``once``, the status of the nodes at the end."""
        return {} if self.once is None else self.once.outcome

    def _turn(self) -> None:
        timeout = 0.0
        if self.watcher.is_idle:
            due = min(self.watcher.deadline(), self.pacing.due)
            timeout = max(due - self.loop.clock(), 0.0)
        self.loop.turn(timeout)
        if self.loop.clock() >= self.watcher.deadline():
            self.watcher.run_due()
        self.watcher.work(WALK_SECONDS)
        self._read_events()
        self.pacing.release_if_due()
        self.staging.advance()
        self.flushes.end_finished()
        for call in self.each_turn:
            call()
        if self.once is not None and not self.pool.is_stopping and self.once.is_done():
            hook = self.reloader.config.on_sync
            grace = worker.GRACE_SECONDS if hook is None else hook.timeout
            self.commands.stop("everything was mirrored, once", grace)
        if not self.watcher.incomplete_trees:
            self.manager.ready()
        self.manager.set_status(self.publisher.summary)

    def _read_events(self) -> None:
        # Not without an end: events may be made faster than they are read.
        until = self.loop.clock() + READ_SECONDS
        while self.watcher.read() and self.loop.clock() < until:
            pass
        self.events.events_read(self.watcher.caught_up_at)

    def _tick(self) -> None:
        for call in self.each_tick:
            call()

    def _take_signals(self) -> None:
        for number in self.signals.caught():
            match number:
                case signal.SIGHUP:
                    self.reloader.reload()
                case signal.SIGUSR1:
                    self.commands.reopen_log()
                case signal.SIGUSR2:
                    self.events.accept_loss()
                case _:
                    self.commands.stop(signal.Signals(number).name)
