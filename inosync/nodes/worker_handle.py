"""The worker process of a node, as the master holds it."""

from __future__ import annotations

import signal
from multiprocessing.context import ForkProcess
from typing import cast

from inosync.messages import Order, Report
from inosync.nodes import lifecycle
from inosync.nodes.lifecycle import Action, Phase, WorkerState
from inosync.system import process
from inosync.system.channel import Endpoint, QueueError


class WorkerHandle:
    """A process and the queue to it, one after the other, or none at the moment."""

    def __init__(self) -> None:
        self.state = WorkerState()
        self.process: ForkProcess | None = None
        self.queue: Endpoint | None = None
        self.killed_at: float | None = None
        """When the process was killed, by the clock; it may hang in the kernel, and not be gone yet."""

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None else None

    def step(self, event: lifecycle.Event, now: float) -> tuple[Action, ...]:
        self.state, actions = lifecycle.step(self.state, event, now)
        return actions

    def attach(self, child: ForkProcess, queue: Endpoint) -> None:
        self.process, self.queue, self.killed_at = child, queue, None

    def allow_restart(self) -> None:
        """Begin anew after the process was stopped for good."""
        if self.process is None and self.state.phase is Phase.STOPPED:
            self.state = WorkerState()

    def put(self, order: Order) -> None:
        """Send an order, unless the process was killed. QueueError if it is gone, QueueFull if it hangs."""
        if self.queue is not None and self.state.phase is not Phase.KILLED:
            self.queue.put(order)

    def get(self) -> Report | None:
        try:
            return cast(Report | None, self.queue.get()) if self.queue is not None else None
        except QueueError:
            return None  # the process itself tells of its end

    def kill(self, now: float) -> None:
        """Kill the process and all that it started."""
        if self.pid is None:
            return
        if self.killed_at is None:
            self.killed_at = now
        # A process in a group of its own, such as a user's remote shell, is found as a descendant.
        family = process.family(self.pid)
        process.send_group(self.pid, signal.SIGKILL)
        process.send(family, signal.SIGKILL)

    def reap(self) -> str:
        """Collect the process, which has ended, and kill its group; return how it has ended."""
        assert self.process is not None
        assert self.pid is not None
        process.send_group(self.pid, signal.SIGKILL)  # before it is collected, while the number is its own
        self.process.join()
        code = self.process.exitcode or 0
        return f"worker killed by signal {-code}" if code < 0 else f"worker ended with exit code {code}"

    def release(self) -> None:
        if self.queue is not None:
            self.queue.close()
        self.process = self.queue = None
