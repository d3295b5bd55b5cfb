"""The worker process of one node: take a batch, run rsync, retry, report.

It decides nothing about what is due: it does the one batch that it was given until that is through, and the
master keeps the books. So it can be killed at any time.
"""

from __future__ import annotations

import math
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from inosync import text
from inosync.config.hook import Hook, Place
from inosync.config.timetable import Timetable
from inosync.filters.rules import Excluded, Rules
from inosync.messages import (
    Batch,
    CancelCompare,
    Compare,
    Done,
    Failed,
    Halt,
    HookFinished,
    Part,
    Ping,
    Progress,
    Reachable,
    Relisting,
    Report,
    SlotGranted,
    SlotRequest,
    Started,
    StateChanged,
    Stop,
    Throttled,
    TitleUpdate,
    Unreachable,
    WarmSuspended,
)
from inosync.nodes import backoff
from inosync.rsync import argv, binary, compat, exit_codes, stderr, stdout
from inosync.rsync.argv import TransferSettings
from inosync.rsync.coarse_times import UnnamedReads, outdated_names
from inosync.rsync.exit_codes import ExitKind
from inosync.rsync.options import modify_window
from inosync.rsync.outcome import Outcome, Run, judge
from inosync.rsync.source import SourceState, check_source
from inosync.rsync.target import Transport, transport
from inosync.rsync.transfer import OrphanReaper, Transfer
from inosync.system import fingerprint, process, signals, spool
from inosync.system.channel import Endpoint, QueueError
from inosync.system.loop import Loop
from inosync.system.overlap import overlap
from inosync.worker.batch_run import BatchRun
from inosync.worker.bwlimit import Throttle
from inosync.worker.compare import Comparer
from inosync.worker.deletions import Deletions
from inosync.worker.hooks import Hooks
from inosync.worker.ssh_master import SshMaster
from inosync.worker.title import Title
from inosync.worker.warm_pool import LULL, WarmPool

GRACE = 5.0
"""Seconds that a running transfer has to finish when the worker is told to end."""
LINGER = 1.0
"""Seconds in which what the worker has started, and has killed in the end, is to be gone."""
FIRST_LULL = 0.5
"""Seconds until a worker connects to its node in advance where all may have reason to do so at the same
time, at the start and when the limit of the speed changes; up to twice that: not all at once."""
STALE = 2.0
"""A warm rsync that fails within so many seconds has met a connection that was dead before, and that says
nothing about the node."""
YIELD = 0.25
"""Seconds that a node has to notice that connections which stood in the way of another one are gone."""


@dataclass(frozen=True, slots=True)
class Job:
    """All that a worker has to know, fixed for its life."""

    name: str
    """How the node is called everywhere."""
    node: str
    """As written in ``rnodes``."""
    trees: Mapping[int, TransferSettings]
    rules: Mapping[int, Rules]
    rspeed: Timetable
    excluded: Mapping[int, Excluded]
    """For each tree, what no node is sent; of an entry of its root it is asked whether it counts."""
    timeout: float
    """Seconds without progress after which a transfer is ended."""
    retry: tuple[float, float]
    """First and longest pause after a failure, in seconds."""
    warm: bool
    """Whether to keep an rsync connected for each tree."""
    spool: str
    """The directory for what is too long for a message."""
    places: Mapping[int, Place] = field(default_factory=dict)
    """The trees as the operator knows them, for hooks."""
    on_sync: Hook | None = None
    on_state: Hook | None = None
    hooks_lost: bool = False
    """Whether an earlier worker may have left a hook out."""
    pretend: Callable[[str], None] | None = None
    """Takes the line of each call of rsync, in place of the call."""
    wall: Callable[[], float] = time.time
    """The time since the epoch, in seconds."""


def run(job: Job, queue: Endpoint, master: int, inherited: list[int]) -> None:
    """The life of a worker, in its own process, forked by ``master`` (a pid). Never returns."""
    signals.reset(ignored=(signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2))
    process.close(inherited)
    os.setsid()  # the group that the master ends if we do not
    process.adopt_orphans()
    # The end of the master is the end of the queue. SIGCONT, so that a stopped worker hears of it, too.
    process.die_with_parent(signal.SIGCONT, master)
    code = 1
    try:
        Worker(job, queue).run()
        code = 0
    except Exception:  # noqa: BLE001 - its end is reported, and the master starts another
        sys.excepthook(*sys.exc_info())
    finally:
        process.end_family(LINGER)  # one that is stopped has not heard that it is to end
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
        self._job, self._queue = job, queue
        self._clock, self._chance = clock, rand
        self._loop = Loop(clock)
        self._loop.on_readable(queue, self._orders)
        self._stop = signals.Signals((signal.SIGTERM,))
        self._loop.on_readable(self._stop, self._signalled)
        self._title = Title(job.name)
        self._throttle = Throttle(job.rspeed, clock, job.wall)
        self._deletions = Deletions(clock)
        extra = next((tree.extra for tree in job.trees.values()), ())
        self._line = SshMaster(job.node, extra, job.spool, self._loop, rand)
        rsh = self._line.rsh if job.pretend is None else self._line.rsh_direct
        self._trees = {number: replace(tree, rsh=rsh) for number, tree in job.trees.items()}
        self._stats = True
        """Whether rsync may be asked what it has sent: a node may refuse that."""
        self._told_started = Transfer.started
        """How many rsyncs the master knows of."""
        self._away = False
        """Whether the master was told that the node is out of reach."""
        warm = job.warm and job.pretend is None
        sources = {number: tree.source for number, tree in job.trees.items() if warm}
        self._spares = WarmPool(
            sources, self._start_batch, self, job.retry, job.timeout, self._loop, clock, rand
        )
        self._comparer = Comparer(
            lambda tree: replace(self._settings(tree), rsh=self._line.rsh_direct),
            job.excluded,
            job.timeout,
            job.spool,
            self._report,
            self._loop,
        )
        self._hooks = Hooks(
            text.without_password(job.node),
            job.name,
            job.on_sync,
            job.on_state,
            job.places,
            job.spool,
            self._hooked,
            self._loop,
            clock,
            job.hooks_lost,
        )
        self._orphan_reaper = OrphanReaper(self._loop)
        self._sweep = False
        """Whether something may have been left behind while no transfer ran."""
        self._confines: dict[tuple[object, ...], bool] = {}
        """Whether the rsync, as it is now, understands ``--confine-root``."""
        self._unnamed_reads = {tree: UnnamedReads() for tree in job.trees}
        """When full mirrors and relists have read files."""
        self._task: BatchRun | None = None
        self._transfer: Transfer | None = None
        self._retry_at: float | None = None
        """When the task is tried again."""
        self._end_by: float | None = None
        """When told to end: until when a transfer may finish."""

    def run(self) -> None:
        """Work until told to end, or until the master is gone."""
        self._title.starting()
        self._report(Started(os.getpid()))
        self._spares.rest(FIRST_LULL * (1 + self._chance()))
        try:
            while self._end_by is None or self._transfer is not None or self._hooks.busy:
                self._turn()
        finally:
            self._line.close()

    def _turn(self) -> None:
        deadline = self._deadline()
        self._loop.turn(None if deadline == math.inf else max(deadline - self._clock(), 0))
        now = self._clock()
        if self._end_by is None and self._throttle.changed():
            self._change_limit()
        transfer = self._transfer
        if transfer is not None:
            self._show_progress(transfer)
            if self._end_by is not None and now >= self._end_by:
                transfer.terminate()
            if transfer.done and self._orphan_reaper.reap(self._own_children()):
                self._transfer = None
                self._ended(transfer)
        elif self._retry_at is not None and now >= self._retry_at:
            self._retry_at = None
            self._again()
        self._hooks.tend()
        if self._end_by is None:
            self._tend_others()
        elif now >= self._end_by:
            self._hooks.leave()

    def _tend_others(self) -> None:
        """Look after the rsyncs that are no part of a batch."""
        before = [*self._spares.pids, *self._comparer.pids]
        self._spares.tend()
        self._comparer.tend()
        if not set(before) <= {*self._spares.pids, *self._comparer.pids}:
            self._sweep = True
        if self._sweep and self._transfer is None:
            self._sweep = not self._orphan_reaper.reap(self._own_children())

    def _change_limit(self) -> None:
        """Let no rsync go on with the limit that was in force before; rsync has no way to change it."""
        self._report(Throttled(self._throttle.limit))
        self._spares.renew(FIRST_LULL * (1 + self._chance()))
        self._comparer.renew()
        if self._transfer is not None:
            self._transfer.supersede()

    def _own_children(self) -> list[int]:
        return [*self._spares.pids, *self._comparer.pids, *self._line.pids, *self._hooks.pids]

    def _deadline(self) -> float:
        times = [self._hooks.deadline]
        times += [at for at in (self._retry_at, self._end_by) if at is not None]
        if self._end_by is None:
            times += [self._spares.deadline, self._throttle.deadline]
        return min(times)

    # Orders and reports ------------------------------------------------------------------------------

    def _orders(self) -> None:
        try:
            order = self._queue.get()
        except QueueError:  # the master is gone: nobody is interested in what we might still achieve
            self._loop.drop(self._queue)
            self._end(0.0)
            return
        match order:
            case Batch():
                self._begin(order)
            case TitleUpdate():
                self._title.show(order.text)
            case SlotGranted() if self._task is not None and order.batch == self._task.batch.id:
                self._task.needs_slot = False
                self._next(self._task)
            case Halt():
                self._halt(order.tree)
            case Compare() if self._end_by is None:
                self._comparer.begin(order)
            case CancelCompare():
                self._comparer.leave()
            case StateChanged():
                self._hooks.stated(order)
            case Stop():
                self._end(order.grace)
            case Ping():
                pass

    def _report(self, report: Report) -> None:
        if isinstance(report, Done | Failed | Unreachable):
            report = replace(report, rsyncs=Transfer.started - self._told_started)
            self._told_started = Transfer.started
        try:
            self._queue.put(report)
        except QueueError:
            self._end(0.0)

    def _hooked(self, report: HookFinished) -> None:
        self._sweep = True  # it may have left behind what it had started
        self._report(report)

    def _signalled(self) -> None:
        if self._stop.caught():
            self._end(GRACE)

    def _end(self, grace: float) -> None:
        self._end_by = min(self._end_by or math.inf, self._clock() + grace)
        self._spares.drop()
        self._comparer.leave()
        self._title.stopping()

    # The node, while there is nothing to do ----------------------------------------------------------

    def reached(self) -> None:
        """The node answers."""
        self._line.node_reached()
        self._come_back()

    def unwatched(self) -> None:
        """There is nothing to connect for."""
        self._come_back()

    def unreached(self, attempt: int, code: int, reason: str, pause: float) -> None:
        """The node does not answer."""
        self._line.distrust()
        self._away = True
        self._report(Unreachable(attempt, code, reason[:500], pause))

    def chilled(self, reason: str, pause: float, news: bool) -> None:
        """No connection is kept for a while."""
        self._come_back()
        if news:
            self._report(WarmSuspended(reason[:500], pause))

    def adapts(self, lines: Sequence[bytes]) -> bool:
        """Whether an rsync has failed for what the next one is not asked to do."""
        if self._stats and compat.refuses_stats(lines):
            self._stats = False
            self._spares.renew(0.0)
            return True
        if not self._deletions.refused(lines):
            return False
        self._spares.renew(0.0)
        if self._deletions.news():
            self._report(Relisting(stderr.reason(lines)[:500]))
        return True

    def _come_back(self) -> None:
        if self._away:
            self._away = False
            self._report(Reachable())

    # The batch ---------------------------------------------------------------------------------------

    def _begin(self, batch: Batch) -> None:
        self._spares.work()
        if self._deletions.again():
            self._spares.drop()  # they would pass over names that are gone without a word
        self._away = False
        self._task = BatchRun(batch, self._clock())
        self._next(self._task)

    def _next(self, task: BatchRun) -> None:
        """Start what is to be transferred next; report when nothing is left of the batch."""
        while task.parts and self._transfer is None and self._retry_at is None:
            self._title.transferring(task.part, task.batch.count)
            if not self._start(task):
                task.parts.pop(0)
        if not task.parts:
            self._report_done(task)

    def _again(self) -> None:
        """The pause after a failure is over."""
        assert self._task is not None
        if self._task.needs_slot:
            self._report(SlotRequest(self._task.batch.id))
        else:
            self._next(self._task)

    def _start(self, task: BatchRun) -> bool:
        """Start a transfer; False if there is nothing to do. One that cannot start has failed."""
        tree = task.part.tree
        settings = self._settings(tree)
        try:
            if not task.may_begin(settings, self._job.excluded[tree]):
                task.held[tree] = None
                return False  # the others go on
            if not task.has_something(settings, self._job.rules[tree]):
                return False
            if problem := self._overlap(settings.target):
                self._failed(task, ExitKind.SLOW, 0, problem)
                return True
            if self._job.pretend is not None:
                self._job.pretend(_line(self._confined(settings), task))
                return False
            if task.part.full:
                self._transfer = self._start_rsync(argv.full_argv(settings, task.delete_nothing))
            elif task.part.ignore_times:
                self._transfer = self._start_batch(tree, ignore_times=True)
            else:
                self._transfer = self._spares.take(tree) or self._start_batch(tree)
            transfer = self._transfer
            transfer.send_when_connected(argv.names_input(task.names), lambda: self._is_sure(task, transfer))
        except OSError as error:  # the tree or rsync is not there, or we are short of processes
            self._failed(task, ExitKind.RETRY, 0, f"{error.filename or settings.rsync}: {error.strerror}")
        return True

    def _overlap(self, target: str) -> str:
        """Why nothing may be sent to a local target: a mount or link that is new leads it to a wpath."""
        if transport(target) is Transport.LOCAL:
            for tree in self._trees.values():
                if how := overlap(tree.source, target):
                    return (
                        f"the target {how} the wpath {tree.source}, which would be deleted: nothing is sent"
                    )
        return ""

    def _is_sure(self, task: BatchRun, transfer: Transfer) -> bool:
        """Whether an rsync that has connected stands in the directory that the part is meant for.

        OSError if that cannot be seen.
        """
        # A wrapper that runs rsync, instead of becoming it, stays where it was started.
        wrapped = os.path.samestat(transfer.directory_status, os.stat(process.START_DIRECTORY))
        place = self._trees[task.part.tree].source if wrapped else transfer.directory
        found = check_source(place, task.part.source, self._job.excluded[task.part.tree])
        return found is SourceState.OK or (found is SourceState.EMPTY and task.delete_nothing)

    def _halt(self, tree: int) -> None:
        """Send nothing of a tree any more."""
        task = self._task
        if task is None:
            return
        if self._transfer is not None and task.part.tree == tree:
            task.dropped = True
            self._transfer.terminate()
        task.hold(tree, but=0 if self._transfer is None else 1)
        if not task.parts:
            self._retry_at = None
            self._next(task)

    def _start_batch(self, tree: int, ignore_times: bool = False) -> Transfer:
        return self._start_rsync(argv.batch_argv(self._confined(self._settings(tree)), ignore_times))

    def _settings(self, tree: int) -> TransferSettings:
        limit, listed = self._throttle.limit, self._deletions.listed
        return replace(self._trees[tree], rspeed=limit, list_missing=listed, stats=self._stats)

    def _confined(self, settings: TransferSettings) -> TransferSettings:
        """These for a batch. The rsync is asked here, since it may hang; the master would with it.

        OSError if it gives no answer: then it is not known whether names would lead it out of the tree.
        """
        key = settings.rsync, fingerprint.at(settings.rsync)
        if key not in self._confines:
            self._sweep = True  # a script may leave behind what it has started
            self._confines = {key: binary.supports_option(settings.rsync, f"{argv.CONFINE_ROOT}=/")}
        return replace(settings, root=os.path.realpath(settings.source)) if self._confines[key] else settings

    def _start_rsync(self, words: tuple[str, ...]) -> Transfer:
        return Transfer(words, self._job.timeout, self._loop)

    def _ended(self, transfer: Transfer) -> None:
        task, code = self._task, exit_codes.actual_code(transfer.code or 0, transfer.stderr)
        assert task is not None
        task.bytes += stdout.transferred_bytes(transfer.stdout)
        if self._end_by is not None and code != 0:
            return  # it was we who ended it
        if (
            task.dropped
            or transfer.cancelled
            or (task.delete_nothing and code == exit_codes.DELETIONS_STOPPED)
        ):
            task.drop()
            if self._end_by is None or not task.parts:
                self._next(task)
            return
        if transfer.superseded and code != 0:  # and here, too, but for another one
            task.interrupted(transfer.names_sent_at is not None)
            self._next(task)
            return
        if code != 0 and self.adapts(transfer.stderr):
            self._next(task)
            return
        sent = tuple(task.look.send)
        missing = frozenset(task.look.missing)
        run = Run(task.part, sent, code, transfer.stderr, transfer.stdout, transfer.is_truncated, missing)
        outcome = judge(run, self._trees[task.part.tree])
        if outcome.retry is None and transfer.names_sent_at is None:
            outcome = Outcome(ExitKind.RETRY, outcome.reason or "rsync ended before it was told what to do")
        if outcome.retry is not None:
            task.failed(outcome, code, transfer.names_sent_at is not None)
            if transfer.abort_reason or code in exit_codes.NO_CONNECTION:
                self._line.distrust()
            if not self._tried_again_at_once(task, transfer, outcome):
                self._failed(task, outcome.retry, code, transfer.abort_reason or outcome.reason)
            return
        self._line.node_reached()
        if task.refused_beside_warm:
            self._spares.chill(task.refused_beside_warm)
            task.refused_beside_warm = ""
        self._note_outdated(task, transfer)
        task.came_through(outcome, code)
        if self._end_by is None or not task.parts:
            self._next(task)

    def _note_outdated(self, task: BatchRun, transfer: Transfer) -> None:
        """Note which files may have changed again without another time."""
        part, settings, now = task.part, self._trees[task.part.tree], self._job.wall()
        assert transfer.names_sent_at is not None
        began = now - (self._clock() - transfer.names_sent_at)
        unnamed = self._unnamed_reads[part.tree]
        if part.full or any(name.endswith(b"/") for name in task.names):
            unnamed.add(began, now)
        if not part.full:
            earlier = None if part.ignore_times else unnamed
            window = modify_window(settings.extra)
            names = outdated_names(settings.source, task.names, began, now, window, earlier)
            task.outdated += [Part(part.tree, False, names, ignore_times=True)] if names else []

    def _tried_again_at_once(self, task: BatchRun, transfer: Transfer, outcome: Outcome) -> bool:
        """Whether a failure may be the fault of connections that were kept, and there is a try without."""
        if (
            transfer.was_warm
            and transfer.names_sent_at is not None
            and self._clock() - transfer.names_sent_at < STALE
        ):
            self._next(task)
        elif transfer.code in exit_codes.NO_CONNECTION and self._spares.kept:
            task.refused_beside_warm = outcome.reason
            self._spares.drop()
            self._retry_at = self._clock() + YIELD
        elif transfer.code in exit_codes.NO_CONNECTION and self._comparer.running:
            self._comparer.fail("its connection may have stood in the way of a batch")
            self._retry_at = self._clock() + YIELD
        else:
            task.refused_beside_warm = ""
            return False
        return True

    def _failed(self, task: BatchRun, retry: ExitKind, code: int, reason: str) -> None:
        task.attempt += 1
        first, longest = self._job.retry
        first = longest if retry is ExitKind.SLOW else first
        pause = backoff.delay(task.attempt, first, longest, self._chance())
        self._retry_at = self._clock() + pause
        task.reason, task.needs_slot = reason, task.batch.heavy
        self._title.transfer_ended()
        self._report(Failed(task.batch.id, task.attempt, code, reason[:500], pause))

    def _report_done(self, task: BatchRun) -> None:
        batch, seconds = task.batch, self._clock() - task.started
        payload, file = self._pack(task.due, str(batch.id))
        outdated, outdated_file = b"", ""
        if task.outdated:
            outdated, outdated_file = self._pack(task.outdated, f"{batch.id}-outdated")
        worry, pretended = task.worry[:500], self._job.pretend is not None
        if not pretended:
            self._hooks.synced(task.arrived)
        self._task = None
        self._title.transfer_ended()
        held, cut_off = tuple(task.held), task.cut_off and not pretended
        self._report(
            Done(
                batch.id,
                batch.count,
                seconds,
                task.code,
                worry,
                payload,
                file,
                held,
                pretended,
                cut_off,
                outdated,
                outdated_file,
                task.bytes,
            )
        )
        self._spares.rest(LULL)

    def _pack(self, parts: Sequence[Part], name: str) -> tuple[bytes, str]:
        path = os.path.join(self._job.spool, f"due-{os.getpid()}-{name}")
        try:
            return spool.pack(tuple(parts), path)
        except OSError:  # the trees as such are short enough for the message
            return spool.pack(tuple(Part(tree, True) for tree in {part.tree for part in parts}), path)

    def _show_progress(self, transfer: Transfer) -> None:
        task = self._task
        if task is not None and task.parts and task.part.full and transfer.percent != task.percent:
            task.percent = transfer.percent
            if task.percent is not None:
                self._title.transferring(task.part, task.batch.count, task.percent)
                self._report(Progress(task.batch.id, task.percent))


def _line(settings: TransferSettings, task: BatchRun) -> str:
    part = task.part
    words = (
        argv.full_argv(settings, task.delete_nothing)
        if part.full
        else argv.batch_argv(settings, part.ignore_times)
    )
    return argv.shell_line(words, task.names)
