"""The worker process of a node, as the master holds it: started, ordered about, killed, and replaced.

``lifecycle.step`` decides, and this class does it. What the node has and lacks stands in ``node``.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from multiprocessing.context import ForkProcess
from typing import Protocol, cast

from inosync.config.nodes import NodeSpec
from inosync.nodes import lifecycle, node_log
from inosync.nodes.counters import Counters
from inosync.nodes.lifecycle import Action, Phase, WorkerState
from inosync.nodes.messages import (
    Done,
    Failed,
    HookFinished,
    Order,
    Ping,
    Report,
    Started,
    StateChanged,
    Stop,
    TitleUpdate,
    Unreachable,
)
from inosync.nodes.state_hook import StateHookQueue
from inosync.system import process
from inosync.system.channel import Endpoint, QueueError, QueueFull
from inosync.system.loop import Loop

MAX_TITLE = 900
"""Characters of a title that a worker is sent."""


class WorkerOwner(Protocol):
    """What a worker's life asks of its node."""

    spec: NodeSpec
    counters: Counters

    def fork_worker(self) -> tuple[ForkProcess, Endpoint]:
        """Start a worker, and read what it reports. OSError if that is not possible."""

    def offer_batch(self) -> None:
        """The worker can take a batch."""

    def confirm_batch(self, done: Done) -> None:
        """The outstanding batch is done."""

    def worker_died(self) -> None:
        """The process is dead: read nothing of it any more, and take back what it had."""

    def worker_stopped(self) -> None:
        """The worker was told to end, and has ended."""


class WorkerHandle:
    """A process and the queue to it, one after the other, or none at the moment."""

    def __init__(self, owner: WorkerOwner, loop: Loop, rand: Callable[[], float]) -> None:
        self._owner, self._loop, self._rand = owner, loop, rand
        self.state = WorkerState()
        self.process: ForkProcess | None = None
        self.queue: Endpoint | None = None
        self.address = owner.spec.node
        """Where the last process writes to; a reload may give the next one another address."""
        self.killed_at: float | None = None
        """When the process was killed, by the clock; it may hang in the kernel, and not be gone yet."""
        self.title = ""
        """The title that the process was sent last; empty while it shows its own."""
        self.hooks_lost = False
        """Whether a process may have died before it had run all hooks for what it had done."""
        self._state_hook = StateHookQueue()

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None else None

    def take_over(self, hooks_lost: bool) -> None:
        """Go on where the worker of an earlier master has ended, before the first start."""
        self.hooks_lost = hooks_lost

    # Orders ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start a process, if it is time for that."""
        self.step(lifecycle.TimePassed())

    def allow_restart(self) -> None:
        """Begin anew after the process was stopped for good."""
        if self.process is None and self.state.phase is Phase.STOPPED:
            self.state = WorkerState()

    def stop(self, grace: float) -> None:
        """End the worker for good; a running transfer may take ``grace`` seconds to finish."""
        self.send(Stop(grace))

    def ping(self) -> None:
        """Send an order that means nothing: a worker that hangs leaves it unread."""
        self.put(Ping())

    def replace(self, reason: str) -> None:
        """Kill a process that hangs; another one is started as soon as it is gone."""
        node_log.note_hang(self._owner.spec.name, reason, self.pid)
        self.step(lifecycle.Hung(reason))

    def kill(self) -> None:
        """Kill the process and all that it started."""
        if self.pid is None:
            return
        if self.killed_at is None:
            self.killed_at = self._loop.clock()
        # A process in a group of its own, such as a user's remote shell, is found as a descendant.
        family = process.family(self.pid)
        process.send_group(self.pid, signal.SIGKILL)
        process.send(family, signal.SIGKILL)

    def send(self, order: lifecycle.WorkOrder) -> None:
        """Send an order that changes what the worker does."""
        self.step(order)
        self.put(order)

    def put(self, order: Order) -> None:
        """Send an order, unless the process was killed. A process that does not read its queue is killed."""
        if self.queue is None or self.state.phase is Phase.KILLED:
            return
        try:
            self.queue.put(order)
        except QueueFull:
            self.replace("worker takes no orders")
        except QueueError:  # it has ended, or will soon
            self.kill()

    @property
    def shows_sent_title(self) -> bool:
        """Return whether the worker runs no transfer, and shows the title that it is sent."""
        return self.state.phase in (Phase.IDLE, Phase.WAITING, Phase.AWAY)

    def send_title(self, text: str) -> None:
        """Have the worker show a title until its next transfer."""
        self.title = text
        self.put(TitleUpdate(text[:MAX_TITLE]))

    def announce_state(self, change: StateChanged) -> None:
        """Have the worker run the on_state hook for a change of the node's state."""
        self._state_hook.add(change)
        self._run_state_hook()

    def _run_state_hook(self) -> None:
        deaf = (Phase.DOWN, Phase.STARTING, Phase.KILLED, Phase.STOPPING, Phase.STOPPED)
        if self.state.phase not in deaf and (change := self._state_hook.next()):
            self.put(change)

    # Reports -----------------------------------------------------------------------------------------

    def get(self) -> Report | None:
        """Return the next report, if there is one."""
        try:
            return cast(Report | None, self.queue.get()) if self.queue is not None else None
        except QueueError:
            return None  # the process itself tells of its end

    def note_start(self, report: Started) -> None:
        self.step(report)
        self.hooks_lost = False
        self._run_state_hook()

    def note_failure(self, report: Failed | Unreachable) -> None:
        """Note that a try has failed; the worker makes the next one by itself, in time."""
        self.step(report)
        if isinstance(report, Failed):
            self._loop.call_at(self.state.wake_at, self.start)

    def note_hook(self, report: HookFinished) -> None:
        # A hook that ends together with its worker may have been cut off.
        is_cut_off = bool(report.reason) and self.state.phase is Phase.STOPPING
        self.hooks_lost |= report.kind == "on_sync" and is_cut_off
        if report.kind == "on_state":
            self._state_hook.finish()
            self._run_state_hook()

    def collect(self) -> None:
        """Act on the end of the process, of which all reports have been read."""
        pid = self.pid
        self._die(self._reap(), f" (pid {pid})")

    def _reap(self) -> str:
        """Collect the process, and kill its group; return how it has ended."""
        assert self.process is not None
        assert self.pid is not None
        process.send_group(self.pid, signal.SIGKILL)  # before it is collected, while the number is its own
        self.process.join()
        code = self.process.exitcode or 0
        return f"worker killed by signal {-code}" if code < 0 else f"worker ended with exit code {code}"

    def _die(self, reason: str, which: str) -> None:
        before = self.state.phase
        if before is not Phase.STOPPING:
            self._owner.counters.count_death()
            self.hooks_lost = True
        self.step(lifecycle.Died(reason, self._rand()))
        node_log.note_death(self._owner.spec.name, before, self.state, which, self._loop.clock())

    # Decisions ---------------------------------------------------------------------------------------

    def step(self, event: lifecycle.Event) -> None:
        """Let the state machine decide, and do what it says."""
        self.state, actions = lifecycle.step(self.state, event, self._loop.clock())
        if not self.shows_sent_title:
            self.title = ""
        for action in actions:
            match action:
                case Action.FORK:
                    self._fork()
                case Action.KILL:
                    self.kill()
                case Action.CLEAN:
                    self._clean()
                case Action.CONFIRM:
                    assert isinstance(event, Done)
                    self._owner.confirm_batch(event)
                case Action.OFFER:
                    self._owner.offer_batch()

    def _fork(self) -> None:
        self.address = self._owner.spec.node
        try:
            self.process, self.queue = self._owner.fork_worker()
        except OSError as error:  # no processes or descriptors left: that is a death, too
            self._die(f"no worker could be started: {error.strerror}", "")
        else:
            self.killed_at = None

    def _clean(self) -> None:
        self._owner.worker_died()
        if self.queue is not None:
            self.queue.close()
        self.process = self.queue = None
        self._state_hook.restart()
        if self.state.phase is Phase.DOWN:
            self._loop.call_at(self.state.wake_at, self.start)
        else:
            self._owner.worker_stopped()
