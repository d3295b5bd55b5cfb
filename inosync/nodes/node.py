"""One node as the master sees it: its cursor, what is due to it, its queue, its worker, its state.

Nothing here waits for the worker, and what a node is owed does not depend on its worker being alive.
"""

from __future__ import annotations

import logging
import math
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from multiprocessing.context import ForkProcess
from typing import Protocol, cast

from inosync.config.nodes import NodeSpec
from inosync.journal.subscription import NOTHING, Subscription
from inosync.messages import (
    Batch,
    CancelCompare,
    Change,
    Compare,
    Compared,
    Done,
    Failed,
    Halt,
    HookFinished,
    Kind,
    Order,
    Part,
    Ping,
    Progress,
    Reachable,
    Relisting,
    SlotGranted,
    SlotRequest,
    Started,
    StateChanged,
    Stop,
    Throttled,
    TitleUpdate,
    Unreachable,
    WarmSuspended,
    from_wire,
)
from inosync.nodes import backoff, lifecycle, node_log
from inosync.nodes.counters import Counters
from inosync.nodes.lifecycle import Action, Phase, WorkerState
from inosync.system import process, spool
from inosync.system.channel import Endpoint, QueueError, QueueFull

log = logging.getLogger(__name__)

MAX_DUE = 10_000
"""Names that may be due to a node apart from the journal; more of a tree, and the tree itself is."""

LATE = 10.0
"""Seconds after a batch until all of it is looked at once more, if a try of it was cut off. Whoever received
that goes on with what he has read, or has before him, knows of nothing that has happened since, and writes
and deletes next to the transfer that came through: a second on a busy node, and on one that was suspended
(or whose rsync was stopped) whenever it goes on, which is when it is reached again."""
MAX_TITLE = 900
"""Characters of a title that a worker is sent."""


@dataclass(slots=True)
class Due:
    """Something that rsync complained of, or a tree that was never level. Times by the clock."""

    attempt: int
    """Tries so far."""
    at: float
    """When it is to be tried again."""
    since: float
    """Since when the node lacks it; infinite if it has it, as far as anybody knows."""


class Work(Protocol):
    """What a node asks of the master."""

    def offer_batch(self, node: Node) -> None:
        """The node can take a batch: ``send`` it one if there is any."""

    def fork_worker(self, node: Node) -> tuple[ForkProcess, Endpoint]:
        """Start a worker for it, and listen to the queue and the process."""

    def worker_died(self, node: Node) -> None:
        """The worker is dead: listen to it no longer, neither to its queue nor to its process."""

    def worker_stopped(self, node: Node) -> None:
        """The worker was told to end, and has."""

    def batch_finished(self, node: Node, file: str) -> None:
        """A batch, and its file, is not needed by this node any more."""

    def try_failed(self, node: Node) -> None:
        """The worker waits for its next try."""

    def slot_requested(self, node: Node) -> None:
        """The worker waits for a slot: let the node ``go`` on when there is one."""

    def tree_held(self, node: Node, tree: int) -> None:
        """The worker did not send something of a tree, since its root is not what it has to be."""

    def tree_compared(self, node: Node, report: Compared) -> None:
        """The worker has compared a tree."""

    def at(self, when: float, call: Callable[[], None]) -> None:
        """Call back at that time of the clock."""


class Node:
    """``cursor``: the journal's position up to which the node has confirmed everything but ``due``."""

    def __init__(
        self,
        spec: NodeSpec,
        cursor: int,
        work: Work,
        clock: Callable[[], float],
        rand: Callable[[], float],
        retry_bounds: tuple[float, float],
    ) -> None:
        self.spec = spec
        self.place = spec.node
        """Where its worker, or its last one, writes to; it may be told to go on elsewhere."""
        self.subscription = NOTHING
        """What is mirrored to it."""
        self.cursor = cursor
        self.due: dict[Change, Due] = {}
        self.flaw = ""
        """What rsync complained of last; empty after a clean batch."""
        self.state = WorkerState()
        self.process: ForkProcess | None = None
        self.killed_at: float | None = None
        """When it was killed, by the clock; it may hang in the kernel, and not be gone yet."""
        self.queue: Endpoint | None = None
        self.batch: Batch | None = None
        """The one outstanding batch ..."""
        self.paused = False
        """Whether the operator wants it to be sent nothing."""
        self.counters = Counters()
        self.untidy = False
        """Whether a worker died with a batch, and rsync may have left temporary files on the node."""
        self.title = ""
        """The last title that the worker was sent; empty while it shows its own."""
        self.last_ok: float | None = None
        """When a batch last came through, by the clock."""
        self.verified_at: float | None = None
        """When it was last compared in full, by the clock ..."""
        self.differences = 0
        """... and how many differences there were."""
        self.hooks_lost = False
        """Whether a worker may have died before it had run all hooks for what it had done."""
        self._telling: StateChanged | None = None
        """What its hook is being told ..."""
        self._to_tell: StateChanged | None = None
        """... and what it is to be told then."""
        self._upto = cursor
        """... the cursor's value once it is confirmed ..."""
        self._since = 0.0
        """... when its oldest change was seen ..."""
        self._trying: dict[Change, Due] = {}
        """... and what of ``due`` was taken into it."""
        self._done: Done | None = None
        self._due_timer: float | None = None
        self._retry_bounds = retry_bounds
        self._work, self._clock, self._chance = work, clock, rand

    @property
    def trees(self) -> tuple[int, ...]:
        """The numbers of the trees that are mirrored to it."""
        return self.subscription.trees

    @property
    def name(self) -> str:
        """How it is called everywhere."""
        return self.spec.name

    # What the master says ----------------------------------------------------------------------------

    def start_worker(self) -> None:
        """Have a worker."""
        self.step(lifecycle.TimePassed())

    def allow_restart(self) -> None:
        """Be ready to ``start`` again, after ``stop``."""
        if self.process is None and self.state.phase is Phase.STOPPED:
            self.state = WorkerState()

    def stop_worker(self, grace: float) -> None:
        """Have no worker any more; a running transfer may take ``grace`` seconds to finish."""
        order = Stop(grace)
        self.step(order)
        self._put(order)

    def _put(self, order: Order) -> None:
        """Tell the worker something; one that does not take it is replaced."""
        try:
            if self.queue is not None and self.state.phase is not Phase.KILLED:
                self.queue.put(order)
        except QueueFull:
            self.replace_worker("worker takes no orders")
        except QueueError:  # it has ended, or will soon
            self.kill_worker()

    def ping_worker(self) -> None:
        """Let the worker show that it takes orders."""
        self._put(Ping())

    def replace_worker(self, reason: str) -> None:
        """Have another worker, as soon as this one is gone."""
        pid = self.process.pid if self.process is not None else None
        log.warning("%s: %s (pid %s): it is killed, and replaced when it is gone", self.name, reason, pid)
        self.step(lifecycle.Hung(reason))

    def kill_worker(self) -> None:
        """End the worker and all it started, at once."""
        if self.process is not None and self.process.pid is not None:
            if self.killed_at is None:
                self.killed_at = self._clock()
            # Who has made a group of his own, as a user's remote shell may, is found as a descendant.
            family = process.family(self.process.pid)
            process.send_group(self.process.pid, signal.SIGKILL)
            process.send(family, signal.SIGKILL)

    def retry(self, change: Change, now: float) -> None:
        """Make a change due to this node alone, as of now."""
        before = self.due.get(change)
        self.due[change] = Due(0, now, min(now, before.since) if before else now)

    def subscribe(self, subscription: Subscription) -> None:
        """Be given this from now on, and owe nothing of other trees."""
        for tree in set(self.trees) - set(subscription.trees):
            self.forget_tree(tree)
        self.subscription = subscription

    def follow_config(
        self, spec: NodeSpec, subscription: Subscription, retry_bounds: tuple[float, float]
    ) -> None:
        """Follow a new configuration; what a worker has to know, only its successor knows."""
        self.spec, self._retry_bounds = spec, retry_bounds
        self.subscribe(subscription)

    def set_paused(self, paused: bool) -> None:
        """Send it nothing from now on, or again what it lacks."""
        self.paused = paused

    def set_verified(self, now: float, differences: int) -> None:
        """Note that it was compared in full, and how many differences there were."""
        self.verified_at, self.differences = now, differences

    def skip_to(self, position: int) -> None:
        """Move the cursor over changes that do not concern the node."""
        self.cursor = position

    def forget_tree(self, tree: int) -> None:
        """Owe nothing of a tree any more."""
        self.due = {change: due for change, due in self.due.items() if change.tree != tree}
        self._trying = {change: due for change, due in self._trying.items() if change.tree != tree}

    def send_batch(self, batch: Batch, upto: int, since: float, trying: Iterable[Change]) -> None:
        """Hand a batch over.

        ``upto``: the cursor after it; ``since``: when its oldest change was seen; ``trying``: what of
        ``due`` it holds. That is not due any more, but whatever becomes due meanwhile is.
        """
        assert self.batch is None
        self.batch, self._upto, self._since = batch, upto, since
        self._trying = {change: self.due.pop(change) for change in trying}
        self._put(batch)
        self.step(batch)

    def announce_state(self, order: StateChanged) -> None:
        """Have the hook told of a change of state; of several, while it is busy, as of one."""
        if self._to_tell is not None:
            order = replace(order, before=self._to_tell.before)
        self._to_tell = None if order.state == order.before else order
        self._tell_next()

    def _tell_next(self) -> None:
        deaf = (Phase.DOWN, Phase.STARTING, Phase.KILLED, Phase.STOPPING, Phase.STOPPED)
        if self._to_tell is not None and self._telling is None and self.state.phase not in deaf:
            self._telling, self._to_tell = self._to_tell, None
            self._put(self._telling)

    def _hooked(self, report: HookFinished) -> None:
        self.counters.hooks += 1
        if report.reason:
            self.counters.hook_failures += 1
            # One that is told to end with its worker may have been cut off.
            self.hooks_lost |= report.kind == "on_sync" and self.state.phase is Phase.STOPPING
            node_log.hook_failed(self.name, report)
        if report.kind == "on_state":
            self._telling = None
            self._tell_next()

    def send_compare(self, order: Compare | CancelCompare) -> None:
        """Have a tree compared with its copy, beside the batches, or stop that."""
        self._put(order)

    def is_full_mirroring(self, tree: int) -> bool:
        """Whether a full mirror is under way that may be of this tree."""
        return self.batch is not None and self.batch.full and tree in self.trees

    def halt_tree(self, tree: int) -> None:
        """Have nothing sent of a tree; what is outstanding of it comes back."""
        if self.batch is not None:
            self._put(Halt(tree))

    def grant_slot(self) -> None:
        """The batch may be tried again: it has its slot."""
        assert self.batch is not None
        granted = SlotGranted(self.batch.id)
        self._put(granted)
        self.step(granted)

    # What the worker says ----------------------------------------------------------------------------

    def read_report(self) -> bool:
        """Read what the worker has reported; whether there was anything."""
        try:
            report = self.queue.get() if self.queue is not None else None
        except QueueError:
            return False  # its end is told by the process itself
        now = self._clock()
        match report:
            case Started():
                self.step(report)
                self.hooks_lost = False
                self._tell_next()
            case Progress():
                self.step(report)
            case Failed():
                self._count(report)
                node_log.tried(self.name, report)
                self.step(report)
                self._work.at(now + report.retry_in, self._wake)
                self._work.try_failed(self)
            case SlotRequest() if self.batch is not None and report.batch == self.batch.id:
                self.step(report)
                self._work.slot_requested(self)
            case Unreachable() if self.batch is None:
                self._count(report)
                node_log.tried(self.name, report)
                self.step(report)
                self._work.try_failed(self)
            case Reachable():
                log.info("%s: answers again", self.name)
                self.step(report)
            case WarmSuspended():
                log.warning("%s: %s: no connection is kept to it", self.name, report.reason)
            case Relisting():
                log.warning("%s: %s: for deletions, whole directories are listed", self.name, report.reason)
            case Throttled():
                limit = f"{report.rspeed} KB/s" if report.rspeed else "0: no limit"
                log.info("%s: rspeed is now %s", self.name, limit)
            case Done() if self.batch is not None and report.batch == self.batch.id:
                self._done = report
                self.step(report)
            case HookFinished():
                self._hooked(report)
            case Compared():
                self._work.tree_compared(self, report)
        return report is not None

    def _count(self, report: Done | Failed | Unreachable) -> None:
        self.counters.rsyncs += report.rsyncs
        if not isinstance(report, Done) or report.code:
            self.counters.failures[str(report.code)] += 1

    @property
    def shows_sent_title(self) -> bool:
        """Whether the worker runs no transfer, and shows the title that it is sent."""
        return self.state.phase in (Phase.IDLE, Phase.WAITING, Phase.AWAY)

    def send_title(self, text: str) -> None:
        """Have the worker show a title until its next transfer."""
        self.title = text
        self._put(TitleUpdate(text[:MAX_TITLE]))

    def collect_worker(self) -> None:
        """The worker's process has ended."""
        assert self.process is not None
        while self.read_report():  # what it could still report counts
            pass
        pid = self.process.pid
        assert pid is not None
        process.send_group(pid, signal.SIGKILL)  # before it is collected, so that the number is still its own
        self.process.join()
        code = self.process.exitcode or 0
        reason = f"worker killed by signal {-code}" if code < 0 else f"worker ended with exit code {code}"
        self._has_died(reason, f" (pid {pid})")

    def _has_died(self, reason: str, which: str) -> None:
        before, now = self.state.phase, self._clock()
        if before is not Phase.STOPPING:
            self.counters.deaths += 1
            self.hooks_lost = True
        self.step(lifecycle.Died(reason, self._chance()))
        deaths, pause = self.state.deaths, self.state.wake_at - now
        if before is Phase.KILLED:
            log.info("%s: its worker is gone%s", self.name, which)
        elif self.state.phase is Phase.DOWN and lifecycle.is_logged(deaths):
            often = f", {deaths} times in a row; the next one starts in {pause:.1f} s" if deaths > 1 else ""
            log.warning("%s: %s%s%s", self.name, reason, which, often)

    def _wake(self) -> None:
        """A time of its own has come."""
        self.step(lifecycle.TimePassed())

    # What follows ------------------------------------------------------------------------------------

    def step(self, event: lifecycle.Event) -> None:
        """Let the state machine decide, and do what it says."""
        self.state, actions = lifecycle.step(self.state, event, self._clock())
        if not self.shows_sent_title:
            self.title = ""
        for action in actions:
            match action:
                case Action.FORK:
                    self._fork()
                case Action.KILL:
                    self.kill_worker()
                case Action.CLEAN:
                    self._clean()
                case Action.CONFIRM:
                    self._confirm()
                case Action.OFFER:
                    self._work.offer_batch(self)
                    self._wait_for_due()

    def _fork(self) -> None:
        self.place, self.killed_at = self.spec.node, None
        try:
            self.process, self.queue = self._work.fork_worker(self)
        except OSError as error:  # no processes or descriptors left: that is a death, too
            self._has_died(f"no worker could be started: {error.strerror}", "")

    def _clean(self) -> None:
        self._work.worker_died(self)
        if self.queue is not None:
            self.queue.close()
        self.process = self.queue = None
        self._to_tell, self._telling = self._to_tell or self._telling, None
        if self.batch is not None:
            self._work.batch_finished(self, self.batch.file)
            self.batch = None
            self.untidy = True
            for change, due in self._trying.items():
                self.due.setdefault(change, due)
            self._trying = {}
        if self.state.phase is Phase.DOWN:
            self._work.at(self.state.wake_at, self._wake)
        else:
            self._work.worker_stopped(self)

    def _confirm(self) -> None:
        batch, done = self.batch, self._done
        assert batch is not None
        assert done is not None
        now = self._clock()
        self.batch = self._done = None
        still, tried, self._trying = self._still_due(done), self._trying, {}
        rand = self._chance()  # the same for all of them: they go together
        for change in still:
            before = tried.get(change) or self.due.get(change)
            attempt = before.attempt + 1 if before else 1
            at = now + backoff.delay(attempt, *self._retry_bounds, rand)
            self.due[change] = Due(attempt, at, min(before.since, self._since) if before else self._since)
        self.cursor = max(self.cursor, self._upto)
        self.flaw, self.untidy = done.reason, False
        if not done.held:
            self.last_ok = now
        held = [tree for tree in done.held if tree in self.trees]
        for tree in held:  # if the master does not see why, it is tried again
            later = Due(1, now + backoff.delay(1, *self._retry_bounds, rand), self._since)
            self.due.setdefault(Change(tree, b"", Kind.TREE), later)
        if done.cut_off:
            self._look_again(batch, now + LATE)
        self._add_up(batch, done, now)
        self._bound_due(now)
        node_log.done(self.name, batch, done)
        if log.isEnabledFor(logging.DEBUG):
            node_log.paths(self.name, self._unpack(batch.payload, batch.file))
        self._work.batch_finished(self, batch.file)
        for tree in held:
            self._work.tree_held(self, tree)

    def _add_up(self, batch: Batch, done: Done, now: float) -> None:
        self._count(done)
        self.counters.bytes += done.bytes
        if done.held:
            return
        self.counters.batches += 1
        self.counters.paths += batch.count
        if batch.full:
            self.counters.fulls += 1
        else:
            self.counters.latency.add(max(now - self._since, 0.0))

    def _look_again(self, batch: Batch, at: float) -> None:
        changes = self._unpack(batch.payload, batch.file)
        # Those were relisted as well by a try that had to tidy up, with whatever they held then.
        changes |= {
            Change(change.tree, change.path.rpartition(b"/")[0], Kind.LIST)
            for change in changes
            if change.path
        }
        if len(changes) > MAX_DUE:
            changes = {Change(change.tree, b"", Kind.TREE) for change in changes}
        for change in changes:
            self.due.setdefault(change, Due(0, at, math.inf))

    def _wait_for_due(self) -> None:
        """If nothing else keeps the worker busy until then, what is due is offered when its time comes."""
        now = self._clock()
        # What could have been sent by now waits for something else than the time.
        when = min((due.at for due in self.due.values() if due.at > now), default=None)
        if when is not None and self.batch is None and when != self._due_timer:
            self._due_timer = when  # one is enough, however many batches come between
            self._work.at(when, self._offer_due)

    def _offer_due(self) -> None:
        self._work.offer_batch(self)
        self._wait_for_due()

    def _still_due(self, done: Done) -> set[Change]:
        still = self._unpack(done.payload, done.file)
        spool.discard(done.file)
        return still

    def _unpack(self, payload: bytes, file: str) -> set[Change]:
        try:
            parts = cast(tuple[Part, ...], spool.unpack(payload, file))
        except OSError as error:
            log.error("%s: what is still due was lost (%s): all is compared again", self.name, error)
            return {Change(tree, b"", Kind.TREE) for tree in self.trees}
        return {change for part in parts if part.tree in self.trees for change in _changes(part)}

    def _bound_due(self, now: float) -> None:
        if len(self.due) > MAX_DUE:
            at = max(now, *(due.at for due in self.due.values()))
            since = min(due.since for due in self.due.values())
            trees = {change.tree for change in self.due}
            attempt = min(1, max(due.attempt for due in self.due.values()))
            self.due = {Change(tree, b"", Kind.TREE): Due(attempt, at, since) for tree in trees}

    def ready_retries(self, now: float) -> list[Change]:
        """What of ``due`` is to be tried by now."""
        return [change for change, due in self.due.items() if due.at <= now]

    @property
    def degraded_reason(self) -> str:
        """Why the node is degraded: names were complained of, or can never be sent. Empty if it is not."""
        waits = any(due.attempt for due in self.due.values())
        return self.flaw or ("some names could not be transferred" if waits else "")

    @property
    def retry_count(self) -> int:
        """How much is due to it apart from the journal."""
        return sum(due.since < math.inf for due in (*self.due.values(), *self._trying.values()))

    def lacks_since(self, since: float) -> bool:
        """Whether it is owed anything, apart from the journal, that was so by then, tried or not."""
        return any(due.since <= since for due in (*self.due.values(), *self._trying.values()))

    def oldest_missing(self, in_journal: float | None) -> float | None:
        """Since when it lags, given the oldest change in the journal after its cursor; None if it does not.

        What has been tried, and was complained of, is no lag: it is ``overdue``.
        """
        owed = (*self.due.values(), *self._trying.values())
        fresh = [due.since for due in owed if not due.attempt and due.since < math.inf]
        return min([*fresh, *([] if in_journal is None else [in_journal])], default=None)


def _changes(part: Part) -> list[Change]:
    if part.full:
        return [Change(part.tree, b"", Kind.TREE)]
    return [from_wire(part.tree, wire, part.ignore_times) for wire in part.names]
