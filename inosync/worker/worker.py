"""The worker process of one node: takes orders, sends batches, keeps rsyncs warm, reports.

It decides nothing about what is due: it does the one batch that it was given until that is through, and the
master keeps the books. So it can be killed at any time.
"""

from __future__ import annotations

import logging
import math
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from inosync.changes import Lane, Part
from inosync.nodes.messages import (
    MAX_REASON_BYTES,
    Batch,
    CancelCompare,
    Compare,
    Compared,
    Done,
    Failed,
    Halt,
    Ping,
    Reachable,
    Relisting,
    Report,
    SlotGranted,
    Started,
    StateChanged,
    Stop,
    Throttled,
    TitleUpdate,
    Unreachable,
    WarmSuspended,
)
from inosync.rsync import stderr
from inosync.rsync.orphans import OrphanReaper
from inosync.rsync.transfer import Transfer
from inosync.system import privileges, process, program, signals
from inosync.system.channel import Endpoint, QueueError
from inosync.system.loop import Loop, Timer
from inosync.text import shortened
from inosync.worker.batch_sender import BatchSender
from inosync.worker.beside import Beside
from inosync.worker.bwlimit import Throttle
from inosync.worker.calls import RsyncCalls
from inosync.worker.compare import Comparisons
from inosync.worker.hooks import Hooks
from inosync.worker.job import Job
from inosync.worker.lanes import Lanes
from inosync.worker.local_targets import LocalTargets, TargetReports
from inosync.worker.outdated import OutdatedFiles
from inosync.worker.refused_options import RefusedOptions
from inosync.worker.remote_targets import RemoteTargets
from inosync.worker.sent_directories import SentDirectories
from inosync.worker.ssh_master import SshMaster
from inosync.worker.title import Title
from inosync.worker.turns import Turns
from inosync.worker.warm_pool import LULL_SECONDS, Limits, WarmPool

log = logging.getLogger(__name__)

GRACE_SECONDS = 5.0
"""The time that a running transfer has to finish after SIGTERM."""
LINGER_SECONDS = 1.0
"""How long a worker that ends waits for the processes that it has killed."""
FIRST_LULL_SECONDS = 0.5
"""Until the first warm rsyncs are started where all workers may start theirs at the same time: at the start,
and when the limit of the speed changes. Up to twice that, so that not all do."""


def run(job: Job, queue: Endpoint, master: int, inherited: list[int]) -> None:
    """The life of a worker, in its own process, forked by ``master`` (a pid). Never returns."""
    signals.reset(ignored=(signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2))
    process.close(inherited)
    privileges.drop_lease()
    os.setsid()  # the group that the master ends if we do not
    program.bind_group()
    process.adopt_orphans()
    # The end of the master is the end of the queue. SIGCONT, so that a stopped worker hears of it, too.
    process.die_with_parent(signal.SIGCONT, master)
    code = 1
    try:
        Worker(job, queue).run()
        code = 0
    except Exception:  # its end is reported, and the master starts another
        log.exception("%s: its worker ends because of an unexpected error", job.name)
    finally:
        process.end_family(LINGER_SECONDS)  # a stopped worker has not heard that it is to end
        process.leave(code)


class Worker:
    """The loop of a worker. ``clock`` is monotonic, in seconds; ``rand`` in [0, 1) is for jitter."""

    def __init__(
        self,
        job: Job,
        queue: Endpoint,
        clock: Callable[[], float] = time.monotonic,
        rand: Callable[[], float] = random.random,
    ) -> None:
        self._queue, self._clock, self._rand = queue, clock, rand
        self._loop = loop = Loop(clock)
        self._signals = signals.Signals((signal.SIGTERM,))
        self._title = Title(job.name)
        self._orphans = OrphanReaper(loop)
        self._throttle = Throttle(job.rspeed, clock, job.wall)
        self._refused = RefusedOptions(clock)
        targets = {number: tree.target for number, tree in job.trees.items()}
        extra = next((tree.extra for tree in job.trees.values()), ())
        self._ssh_master = SshMaster(job.node, extra, job.spool, loop, rand)
        lanes = Lanes()
        lanes.adjust(self._throttle.limit)
        self._calls = RsyncCalls(job, self._ssh_master, self._throttle, self._refused, lanes, loop)
        limits = Limits(job.warm, job.retry, job.timeout)
        sources = {number: tree.source for number, tree in job.trees.items()}
        self._warm = WarmPool(sources, limits, self, loop, rand)
        self._comparisons = Comparisons(job, self._calls, self._report, loop)
        self._hooks = Hooks(job, self._report, loop)
        replaced = TargetReports(self._report, clock).add
        beside = Beside(
            self._calls,
            self._refused,
            LocalTargets(targets, replaced),
            RemoteTargets(job, self._comparisons, replaced, self._connect_anew, loop, rand),
            self._warm,
            self._comparisons,
            self._ssh_master,
            self._hooks,
            self._title,
            lanes,
            OutdatedFiles(job, clock),
            SentDirectories(clock()),
        )
        self._lanes, self._turns = lanes, Turns()
        reports = {Lane.FIRST: self._report, Lane.SECOND: self._put}
        self._senders = {
            lane: BatchSender(job, beside, self.adapt, report, loop, rand) for lane, report in reports.items()
        }
        self._rsyncs_reported = Transfer.started  # rsyncs that the master knows of
        self._cpu_at_begin = 0.0  # processor time that was taken before the batch
        self._exits = 0  # of children, as far as they were looked at
        self._must_reap = False  # one of them may have left orphans
        self._is_away = False  # the master was told that the node is out of reach
        self._end: Timer | None = None  # once told to end: when everything is killed
        self._is_over = False  # that time has come
        loop.on_readable(queue, self._on_order)
        loop.on_readable(self._signals, self._on_signal)

    def run(self) -> None:
        """Work until told to end, or until the master is gone."""
        self._title.starting()
        self._report(Started(os.getpid()))
        self._warm.idle(self._first_lull())
        try:
            while self._end is None or self._transfers() or self._hooks.is_busy:
                self._turn()
        finally:
            self._ssh_master.close()

    def _first_lull(self) -> float:
        return FIRST_LULL_SECONDS * (1 + self._rand())

    def _turn(self) -> None:
        # All other times are timers of the loop.
        deadline = math.inf if self._end else min(self._warm.deadline, self._throttle.deadline)
        deadline = min(deadline, self._turns.deadline)
        self._loop.turn(None if deadline == math.inf else max(deadline - self._clock(), 0))
        is_due, has_exit = deadline <= self._clock(), self._exits < self._loop.exits
        self._exits = self._loop.exits
        if self._end is None and self._throttle.changed():  # at any time: the clock may have been set
            self._change_limit()
        for sender in self._senders.values():
            if sender.transfer is not None:
                sender.report_progress()
                sender.report_through()
                if self._is_over:
                    sender.transfer.terminate()
        self._must_reap = self._must_reap or has_exit
        if self._must_reap:
            self._note_ends()
        self._take_turns()
        if self._end is not None:
            if self._is_over:
                self._hooks.kill_all()
        elif is_due or has_exit:
            self._warm.check()
            self._comparisons.check()

    def _transfers(self) -> list[Transfer]:
        """Return those of both lanes that run, or have ended and were not yet dealt with."""
        return [sender.transfer for sender in self._senders.values() if sender.transfer is not None]

    def _note_ends(self) -> None:
        """Deal with the transfers that have ended, once nothing that they had started is left."""
        transfers = self._transfers()
        ended = [transfer for transfer in transfers if transfer.done]
        running = [transfer.pid for transfer in transfers if not transfer.done]
        # What a running transfer has started is no orphan. One that came through leaves nothing behind.
        is_failure = any(transfer.code for transfer in ended)
        if is_failure or not running:
            self._must_reap = not self._orphans.reap([*self._own_children(), *running])
            if self._must_reap:
                return
        if not ended:
            return
        for sender in self._senders.values():
            if sender.transfer is not None and sender.transfer.done:
                sender.transfer_ended()
        for sender in self._senders.values():
            sender.go_on()

    def _take_turns(self) -> None:
        """Have one lane wait while both send something, and share a limit."""
        if not (self._throttle.limit or self._turns.both):
            return
        running = [t for t in self._transfers() if not t.done and t.names_sent_at is not None]
        self._turns = self._turns.look(len(running) > 1 and self._throttle.limit > 0, self._clock())
        for lane, sender in self._senders.items():
            if sender.transfer is not None:
                sender.transfer.set_stopped(lane is self._turns.stopped)

    def _own_children(self) -> list[int]:
        return [*self._warm.pids, *self._comparisons.pids, *self._ssh_master.pids, *self._hooks.pids]

    def _change_limit(self) -> None:
        """Let no rsync go on with the limit that was in force before; rsync cannot change it."""
        self._report(Throttled(self._throttle.limit))
        self._lanes.adjust(self._throttle.limit)
        self._warm.renew(self._first_lull())
        self._comparisons.restart()
        for sender in self._senders.values():
            sender.restart_transfer()

    # Orders and reports ------------------------------------------------------------------------------

    def _on_order(self) -> None:
        try:
            order = self._queue.get()
        except QueueError:  # the master is gone, and so is the reason to finish anything
            self._loop.drop(self._queue)
            self._end_within(0.0)
            return
        match order:
            case Batch():
                self._begin(order)
            case TitleUpdate():
                self._title.show(order.text)
            case SlotGranted():
                self._senders[Lane.FIRST].slot_granted(order.batch)
            case Halt():
                for sender in self._senders.values():
                    sender.halt(order.tree)
            case Compare():
                self._comparisons.start(order)
            case CancelCompare():
                self._comparisons.cancel()
            case StateChanged():
                self._hooks.state_changed(order)
            case Stop():
                self._end_within(order.grace)
            case Ping():
                pass

    def _begin(self, batch: Batch) -> None:
        if batch.lane is Lane.SECOND:
            self._senders[batch.lane].begin(batch)
            return
        self._cpu_at_begin = _cpu_seconds()
        self._warm.busy()
        if self._refused.retry_is_due():
            self._warm.end_all()  # they would pass over names that are gone without a word
        self._is_away = False
        self._senders[batch.lane].begin(batch)

    def _put(self, report: Report, cpu: float = 0.0) -> None:
        if isinstance(report, Done | Failed | Unreachable):
            rsyncs, self._rsyncs_reported = Transfer.started - self._rsyncs_reported, Transfer.started
            report = (
                replace(report, rsyncs=rsyncs, cpu=cpu)
                if isinstance(report, Done)
                else replace(report, rsyncs=rsyncs)
            )
        try:
            self._queue.put(report)
        except QueueError:
            self._end_within(0.0)

    def _report(self, report: Report) -> None:
        self._put(report, _cpu_seconds() - self._cpu_at_begin if isinstance(report, Done) else 0.0)
        if isinstance(report, Done):
            self._warm.idle(LULL_SECONDS)
        if isinstance(report, Compared) and report.count:
            # Perhaps a module of an rsync daemon is another directory than when they have connected.
            self._connect_anew()

    def _connect_anew(self) -> None:
        self._warm.renew(LULL_SECONDS)

    def _on_signal(self) -> None:
        if self._signals.caught():
            self._end_within(GRACE_SECONDS)

    def _end_within(self, grace: float) -> None:
        at = self._clock() + grace
        if self._end is None or at < self._end.when:
            if self._end is not None:
                self._end.cancel()
            self._end = self._loop.call_at(at, self._end_now)
        for sender in self._senders.values():
            sender.finish()
        self._warm.end_all()
        self._comparisons.finish()
        self._title.stopping()

    def _end_now(self) -> None:
        self._is_over = True

    # The node, while there is nothing to send --------------------------------------------------------

    def start_warm(self, tree: int) -> Transfer:
        return self._calls.start(Part(tree, False))

    def node_reached(self) -> None:
        self._ssh_master.node_reached()
        self._report_reachable()

    def node_unchecked(self) -> None:
        self._report_reachable()

    def node_unreachable(self, attempt: int, code: int, reason: str, pause: float) -> None:
        self._ssh_master.distrust()
        for sender in self._senders.values():
            sender.node_was_away()
        self._is_away = True
        self._report(Unreachable(attempt, code, shortened(reason, MAX_REASON_BYTES), pause))

    def warm_suspended(self, reason: str, pause: float, is_new: bool) -> None:
        self._report_reachable()
        if is_new:
            self._report(WarmSuspended(shortened(reason, MAX_REASON_BYTES), pause))

    def adapt(self, lines: Sequence[bytes]) -> bool:
        if not self._refused.explain(lines):
            return False
        if self._refused.learn(lines):
            self._report(Relisting(shortened(stderr.reason(lines), MAX_REASON_BYTES)))
        self._warm.renew(0.0)
        return True

    def _report_reachable(self) -> None:
        if self._is_away:
            self._is_away = False
            self._report(Reachable())


def _cpu_seconds() -> float:
    """The processor time that this worker and its transfers have taken so far."""
    return process.cpu_seconds() + Transfer.cpu_seconds
