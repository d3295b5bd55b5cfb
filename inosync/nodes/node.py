"""One node as the master keeps its books: what it has confirmed, what is on its way, and what it is owed.

Nothing here waits for the worker, and what a node is owed does not depend on its worker being alive. The
process of the worker is the matter of ``worker_handle``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from multiprocessing.context import ForkProcess
from typing import Protocol

from inosync.changes import Change, Kind, Lane
from inosync.config.nodes import NodeSpec
from inosync.journal.subscription import NOTHING, Subscription
from inosync.nodes import node_log
from inosync.nodes.counters import Counters
from inosync.nodes.messages import (
    Batch,
    Compared,
    Done,
    Failed,
    Halt,
    HookFinished,
    Progress,
    Reachable,
    Relisting,
    SlotGranted,
    SlotRequest,
    Started,
    TargetReplaced,
    Throttled,
    Through,
    TooManyRemovals,
    Unreachable,
    WarmSuspended,
)
from inosync.nodes.outstanding import Outstanding
from inosync.nodes.pace import Cost
from inosync.nodes.retries import Retry, RetrySet
from inosync.nodes.settlement import settle
from inosync.nodes.worker_handle import WorkerHandle
from inosync.rsync import exit_codes
from inosync.system.channel import Endpoint
from inosync.system.loop import Loop, Timer

UNREACHABLE_CODES = {*exit_codes.NO_CONNECTION, exit_codes.TIMEOUT}
"""Exit codes of rsync after which the node may have been replaced meanwhile."""


class Work(Protocol):
    """What a node asks of the master."""

    def offer_batch(self, node: Node) -> None:
        """Send the node its next batch, if there is any."""

    def fork_worker(self, node: Node) -> tuple[ForkProcess, Endpoint]:
        """Start a worker for the node, and read what it reports. OSError if that is not possible."""

    def worker_died(self, node: Node) -> None:
        """Read nothing of the worker any more."""

    def worker_stopped(self, node: Node) -> None:
        """The worker was told to end, and has ended."""

    def batch_finished(self, node: Node, batch: Batch, cost: Cost | None = None) -> None:
        """The node has finished with a batch, which has cost so much."""

    def try_failed(self, node: Node) -> None:
        """The worker waits for its next try."""

    def big_file_advanced(self) -> None:
        """More of a big file has arrived."""

    def slot_requested(self, node: Node) -> None:
        """The worker waits for a slot: ``grant_slot`` when there is one."""

    def node_returned(self, node: Node) -> None:
        """The node answers again after it could not be reached: it may not be what it was."""

    def tree_held(self, node: Node, tree: int) -> None:
        """The worker did not send something of a tree, because its root is not what it has to be."""

    def removals_counted(self, report: TooManyRemovals) -> None:
        """A worker did not send something of a tree, because the node would lose too much."""

    def tree_compared(self, node: Node, report: Compared) -> None:
        """The worker has compared a tree."""


class Node:
    """All that is known of a node. ``retry_bounds``: first and longest pause after a failure, in seconds."""

    def __init__(
        self,
        spec: NodeSpec,
        cursor: int,
        work: Work,
        loop: Loop,
        rand: Callable[[], float],
        retry_bounds: tuple[float, float],
    ) -> None:
        self._work, self._loop, self._rand = work, loop, rand
        self.spec = spec
        self.subscription = NOTHING
        self.cursor = cursor
        """The journal's position up to which the node has confirmed everything but ``retries``."""
        self.retries = RetrySet(retry_bounds)
        self.outstanding: Outstanding | None = None
        self.second: Outstanding | None = None
        """The batch in the second lane. The state of the worker knows nothing of it."""
        self.cost: Cost | None = None
        """What the last batch has cost; None if it was a full mirror, of which slots bound the number."""
        self.counters = Counters()
        self.worker = WorkerHandle(self, loop, rand)
        self.problem = ""
        """What rsync complained of last; empty after a clean batch."""
        self.paused = False
        """Whether the operator wants the node to be sent nothing."""
        self.untidy_since: float | None = None
        """Since when a batch was under way with which a worker died: rsync may have left temporary files on
        the node, and have sent what was not reported. By the clock; None: there was none."""
        self.last_ok: float | None = None
        """When a batch was last done, by the clock."""
        self.verified_at: float | None = None
        """When the node was last compared in full, by the clock."""
        self.differences = 0
        """What the last full comparison found."""
        self._was_away = False
        """Whether the node could not be reached, and no batch has been done since."""
        self.is_resumed = False
        """Whether the node has what an earlier process has sent, and was not mirrored in full by this one."""
        self._retry_timer: Timer | None = None

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def trees(self) -> tuple[int, ...]:
        return self.subscription.trees

    @property
    def arrived(self) -> int:
        """The position up to which it has everything but ``retries``, as far as is known."""
        sent = self.outstanding
        return self.cursor if sent is None or not sent.is_through else max(self.cursor, sent.upto)

    # What it is sent ---------------------------------------------------------------------------------

    def follow_config(
        self, spec: NodeSpec, subscription: Subscription, retry_bounds: tuple[float, float]
    ) -> None:
        """Follow a new configuration; a worker that runs knows nothing of it."""
        self.spec, self.retries.bounds = spec, retry_bounds
        self.subscribe(subscription)

    def subscribe(self, subscription: Subscription) -> None:
        """Send it this from now on, and nothing of other trees."""
        for tree in set(self.trees) - set(subscription.trees):
            self.retries.forget_tree(tree)
        self.subscription = subscription

    def retry(self, change: Change, now: float) -> None:
        """Send this node alone a change that was seen ``now``."""
        self.retries.add(change, now)

    def set_paused(self, paused: bool) -> None:
        self.paused = paused

    def take_over(
        self, retries: Mapping[Change, Retry], problem: str, untidy_since: float | None, hooks_lost: bool
    ) -> None:
        """Go on where an earlier process has ended, before the first worker starts."""
        self.retries.take_over(retries)
        self.problem, self.untidy_since = problem, untidy_since
        self.worker.take_over(hooks_lost)
        self.is_resumed = True

    def take_over_times(self, last_ok: float | None, verified_at: float | None, differences: int) -> None:
        """Take over the times that an earlier process knew, by the clock of this one."""
        self.last_ok, self.verified_at, self.differences = last_ok, verified_at, differences

    def set_verified(self, now: float, differences: int) -> None:
        self.verified_at, self.differences = now, differences

    def skip_to(self, position: int) -> None:
        """Move the cursor over changes that do not concern the node."""
        self.cursor = position

    def send_batch(self, batch: Batch, upto: int, since: float, retries: Iterable[Change]) -> None:
        """Hand a batch over to the worker.

        ``upto``: the cursor once it is done; ``since``: when its oldest change was seen; ``retries``: those
        that it carries.
        """
        self.retries.carry(retries, batch.lane)
        sent = Outstanding(batch, upto, since, self._loop.clock())
        if batch.lane is Lane.SECOND:
            assert self.second is None
            self.second = sent
            self.worker.put(batch)
        else:
            assert self.outstanding is None
            self.outstanding = sent
            self.worker.send(batch)

    def is_full_mirroring(self, tree: int) -> bool:
        """Return whether a full mirror is under way that may be of this tree."""
        return self.outstanding is not None and self.outstanding.batch.full and tree in self.trees

    def halt_tree(self, tree: int) -> None:
        """Send nothing of a tree; what is on its way comes back."""
        if self.outstanding is not None or self.second is not None:
            self.worker.put(Halt(tree))

    def grant_slot(self) -> None:
        """Let the worker try its batch again."""
        assert self.outstanding is not None
        self.worker.send(SlotGranted(self.outstanding.batch.id))

    # What the worker reports --------------------------------------------------------------------------

    def read_report(self) -> bool:
        """Act on the next report of the worker; return whether there was any."""
        report = self.worker.get()
        match report:
            case Progress() | Done() if self.second is not None and self.second.is_meant_by(report):
                self._note_second(report, self.second)
            case Progress() | Failed() | SlotRequest() | Done() if not self._is_outstanding(report):
                pass  # of a batch that was given up
            case Started():
                self.worker.note_start(report)
            case Progress():
                self.worker.step(report)
            case Through() if (sent := self.outstanding) is not None and sent.is_meant_by(report):
                self.outstanding = replace(sent, is_through=True)
            case Done():
                self._note_return()
                self.worker.step(report)
            case Failed():
                self._note_failure(report)
            case SlotRequest():
                self.worker.step(report)
                self._work.slot_requested(self)
            case Unreachable() if self.outstanding is None:
                self._note_failure(report)
            case Reachable():
                node_log.note_news(self.name, report)
                self._note_return()
                self.worker.step(report)
            case TargetReplaced() if report.tree in self.trees:
                node_log.note_news(self.name, report)
                self.retry(Change(report.tree, b"", Kind.TREE), self._loop.clock())
                self._work.offer_batch(self)
            case TooManyRemovals():
                self._work.removals_counted(report)
            case HookFinished():
                self._note_hook(report)
            case Compared():
                self._work.tree_compared(self, report)
            case WarmSuspended() | Relisting() | Throttled():
                node_log.note_news(self.name, report)
        return report is not None

    def _is_outstanding(self, report: Progress | Failed | SlotRequest | Done) -> bool:
        return self.outstanding is not None and self.outstanding.is_meant_by(report)

    def _note_second(self, report: Progress | Done, second: Outstanding) -> None:
        if isinstance(report, Progress):
            self.second = replace(second, percent=report.percent)
            self._work.big_file_advanced()
            return
        self.second = None
        if report.code in UNREACHABLE_CODES:
            self._was_away = True
        elif not report.code:
            self._note_return()
        self._confirm(report, second)
        self.offer_batch()

    def _note_failure(self, report: Failed | Unreachable) -> None:
        self.counters.count_failure(report)
        node_log.note_failure(self.name, report)
        self._was_away |= isinstance(report, Unreachable) or report.code in UNREACHABLE_CODES
        self.worker.note_failure(report)
        self._work.try_failed(self)

    def _note_return(self) -> None:
        if self._was_away:
            self._was_away = False
            self._work.node_returned(self)

    def _note_hook(self, report: HookFinished) -> None:
        self.counters.count_hook(report)
        if report.reason:
            node_log.note_hook_failure(self.name, report)
        self.worker.note_hook(report)

    def collect_worker(self) -> None:
        """Act on the end of the worker's process."""
        while self.read_report():  # what it could still report counts
            pass
        self.worker.collect()

    # What the life of the worker asks for -------------------------------------------------------------

    def fork_worker(self) -> tuple[ForkProcess, Endpoint]:
        return self._work.fork_worker(self)

    def worker_stopped(self) -> None:
        self._work.worker_stopped(self)

    def worker_died(self) -> None:
        """Take back what the worker had."""
        self._work.worker_died(self)
        lost = [sent for sent in (self.outstanding, self.second) if sent is not None]
        if not lost:
            return
        for sent in lost:
            self._work.batch_finished(self, sent.batch)
        since = [sent.sent_at for sent in lost]
        self.untidy_since = min(since if self.untidy_since is None else [*since, self.untidy_since])
        self.retries.put_back()
        if self.second is not None:  # the next batch of the first lane tidies only its own directories
            self.retries.add_second_look(self.second.listings(self.trees), self._loop.clock())
        self.outstanding = self.second = None

    def confirm_batch(self, done: Done) -> None:
        sent, self.outstanding = self.outstanding, None
        assert sent is not None
        self._confirm(done, sent)

    def offer_batch(self) -> None:
        """Have the next batch sent, now and whenever a retry is due."""
        self._work.offer_batch(self)
        self._offer_retries_later()

    def _confirm(self, done: Done, sent: Outstanding) -> None:
        """Move the cursor, and keep what has to be retried."""
        now, lane = self._loop.clock(), sent.batch.lane
        held = settle(self.retries, done, sent, self.trees, now, self._rand())
        self.cursor = max(self.cursor, sent.upto)
        self.problem = done.reason or (self.problem if self.retries.has_failed else "")
        cost = None if sent.batch.full else Cost(done.cpu, sent.sent_at, now)
        if lane is Lane.FIRST:
            self.untidy_since, self.cost = None, cost
        if not (done.held or (done.code and lane is Lane.SECOND)):
            self.last_ok = now
        self.counters.count_done(sent.batch, done, now - sent.since)
        node_log.note_done(self.name, sent.batch, done)
        node_log.list_paths(self.name, sent, self.trees)
        self._work.batch_finished(self, sent.batch, cost)
        for tree in held:  # if the master does not see why, it is retried
            self._work.tree_held(self, tree)

    def _offer_retries_later(self) -> None:
        """Set the timer for the next retry."""
        when = self.retries.next_at(self._loop.clock())
        timer = self._retry_timer
        if when is None:
            return
        if timer is not None:
            if timer.is_pending and timer.when == when:
                return
            timer.cancel()
        self._retry_timer = self._loop.call_at(when, self.offer_batch)
