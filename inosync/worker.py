"""The worker process of one node: take a batch, run rsync, retry, report.

It decides nothing about what is due: it does the one batch that it was given until that is through, and the
master keeps the books. So it can be killed at any time.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

from inosync.messages import Batch, Done, Failed, Note, Part, Progress, Ready, Report, Stop
from inosync.names import Look, look
from inosync.policy import backoff, command, titles
from inosync.policy.command import Settings
from inosync.policy.command import Verdict as Ending
from inosync.policy.filters import Rules
from inosync.policy.lifecycle import Verdict
from inosync.policy.outcome import Run, judge
from inosync.system import process, signals, spool
from inosync.system.loop import Loop
from inosync.system.queue import End, QueueError
from inosync.transfer import KILL_AFTER, Transfer

GRACE = 5.0
"""Seconds that a running transfer has to finish when the worker is told to end."""


@dataclass(frozen=True, slots=True)
class Job:
    """All that a worker has to know, fixed for its life."""

    node: str
    """The name to show."""
    trees: Mapping[int, Settings]
    rules: Mapping[int, Rules]
    timeout: float
    """Seconds without progress after which a transfer is ended."""
    retry: tuple[float, float]
    """First and longest pause after a failure, in seconds."""
    spool: str
    """The directory for what is too long for a message."""
    pretend: Callable[[str], None] | None = None
    """Takes the line of each call of rsync, in place of the call."""


def run(job: Job, queue: End, master: int, inherited: list[int]) -> None:
    """The life of a worker, in its own process, forked by ``master`` (a pid). Never returns."""
    signals.reset(ignored=(signal.SIGHUP, signal.SIGINT, signal.SIGUSR1))
    process.close(inherited)
    os.setsid()  # the group that the master ends if we do not
    process.adopt_orphans()
    # The end of the master is the end of the queue. SIGCONT, so that a stopped worker hears of it, too.
    process.die_with_parent(signal.SIGCONT, master)
    process.set_title(titles.starting(job.node))
    code = 1
    try:
        Worker(job, queue).run()
        code = 0
    except Exception:  # noqa: BLE001 - its end is reported, and the master starts another
        sys.excepthook(*sys.exc_info())
    finally:
        process.leave(code)


class Worker:
    """The loop of a worker. ``clock`` is monotonic; ``wall`` is for the times that people read."""

    def __init__(
        self,
        job: Job,
        queue: End,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._job, self._queue = job, queue
        self._clock, self._wall, self._chance = clock, wall, chance
        self._loop = Loop()
        self._loop.on_readable(queue, self._orders)
        self._stop = signals.Signals((signal.SIGTERM,))
        self._loop.on_readable(self._stop, self._signalled)
        self._kill_at: float | None = None
        """When what a transfer has left behind is killed."""
        self._end_by: float | None = None
        """When told to end: until when a transfer may finish."""
        self._forget()

    def _forget(self) -> None:
        self._batch: Batch | None = None
        self._parts: list[Part] = []
        """Of the batch, what has not come through yet; the first is at work."""
        self._due: list[Part] = []
        """What rsync complained of, to be reported with the batch's end."""
        self._transfer: Transfer | None = None
        self._look = Look()
        self._untidy = False
        """Whether rsync may have left temporary files on the node."""
        self._attempt = 0
        self._retry_at: float | None = None
        self._code, self._worry = 0, ""
        """The exit code that left something undone, and what that is; nothing yet."""
        self._reason = ""
        """Why the last try failed."""
        self._percent: int | None = None
        self._started = 0.0

    def run(self) -> None:
        """Work until told to end, or until the master is gone."""
        self._report(Ready(os.getpid()))
        while self._end_by is None or self._transfer is not None:
            self._turn()

    def _turn(self) -> None:
        deadline = self._deadline()
        timeout = None if deadline is None else max(deadline - self._clock(), 0)
        self._loop.turn(timeout)
        now = self._clock()
        transfer = self._transfer
        if transfer is not None:
            transfer.tend()
            self._show_progress(transfer)
            if self._end_by is not None and now >= self._end_by:
                transfer.terminate()
            if transfer.done and not self._left_behind(now):
                self._transfer = None
                self._ended(transfer)
        elif self._retry_at is not None and now >= self._retry_at:
            self._retry_at = None
            self._next()

    def _left_behind(self, now: float) -> bool:
        """Whether the transfer has left processes, which are ended. A receiver removes its temporary file."""
        orphans = process.orphans()
        if not orphans:
            self._kill_at = None
        elif self._kill_at is None:
            process.send(orphans, signal.SIGTERM)
            self._kill_at = now + KILL_AFTER
        elif now >= self._kill_at:
            process.send(orphans, signal.SIGKILL)
        return bool(orphans)

    def _deadline(self) -> float | None:
        times = [self._retry_at, self._end_by, self._transfer.deadline if self._transfer else None]
        if self._kill_at is not None:  # nothing tells when an orphan ends
            times.append(self._clock() + 0.02)
        return min((t for t in times if t is not None), default=None)

    # Orders ------------------------------------------------------------------------------------------

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
            case Note():
                self._noted(order)
            case Stop():
                self._end(order.grace)

    def _report(self, report: Report) -> None:
        try:
            self._queue.put(report)
        except QueueError:
            self._end(0.0)

    def _signalled(self) -> None:
        if self._stop.caught():
            self._end(GRACE)

    def _end(self, grace: float) -> None:
        self._end_by = min(self._end_by or float("inf"), self._clock() + grace)
        self._title(titles.stopping(self._job.node))

    # The batch ---------------------------------------------------------------------------------------

    def _begin(self, batch: Batch) -> None:
        self._forget()
        self._batch, self._untidy = batch, batch.tidy
        self._started = self._clock()
        self._parts = list(cast(tuple[Part, ...], spool.unpack(batch.payload, batch.file)))
        self._next()

    def _next(self) -> None:
        """Start what is to be transferred next; report when nothing is left of the batch."""
        batch = self._batch
        assert batch is not None
        while self._parts and self._transfer is None and self._retry_at is None:
            self._title(self._busy_title(batch))
            if not self._start(self._parts[0]):
                self._parts.pop(0)
        if not self._parts:
            self._report_done(batch)

    def _busy_title(self, batch: Batch) -> str:
        if self._parts[0].full:
            return titles.full(self._job.node, None)
        return titles.syncing(self._job.node, batch.count)

    def _start(self, part: Part) -> bool:
        """Start a transfer; False if there is nothing to do. One that cannot start has failed."""
        settings = self._job.trees[part.tree]
        try:
            if part.full:
                self._look = Look()
                argv, data = command.full_argv(settings), b""
            else:
                excluded = self._job.rules[part.tree].excluded
                self._look = look(settings.source, part.names, excluded, self._untidy)
                self._name_hopeless()
                if not self._look.send:
                    return False
                argv, data = command.batch_argv(settings), command.names_input(self._look.send)
            if self._job.pretend is not None:
                self._job.pretend(command.shell_line(argv, None if part.full else self._look.send))
                return False
            self._transfer = Transfer(argv, data, self._job.timeout, self._loop, self._clock)
        except OSError as error:  # the tree or rsync is not there, or we are short of processes
            self._failed(Ending.RETRY, 0, f"{error.filename or settings.rsync}: {error.strerror}")
        return True

    def _name_hopeless(self) -> None:
        if self._look.hopeless:
            name = os.fsdecode(self._look.hopeless[0])
            count = len(self._look.hopeless)
            self._worry = f"{count} name{'s' * (count > 1)} too long for rsync, such as {name[:60]}..."

    def _ended(self, transfer: Transfer) -> None:
        part, code = self._parts[0], transfer.code or 0
        if self._end_by is not None and code != 0:
            return  # it was we who ended it
        run = Run(part, tuple(self._look.send), code, transfer.lines, transfer.said, transfer.cut)
        outcome = judge(run, self._job.trees[part.tree])
        if outcome.retry is not None:
            self._untidy = self._untidy or outcome.untidy
            self._failed(outcome.retry, code, transfer.hung or outcome.reason)
            return
        if outcome.due or outcome.reason:
            self._code, self._worry = code, outcome.reason
        self._due += outcome.due
        self._parts[:1] = outcome.instead
        self._attempt = 0
        if self._end_by is None or not self._parts:
            self._next()

    def _failed(self, retry: Ending, code: int, reason: str) -> None:
        batch = self._batch
        assert batch is not None
        self._attempt += 1
        first, longest = self._job.retry
        pause = backoff.delay(
            self._attempt, longest if retry is Ending.SLOW else first, longest, self._chance()
        )
        self._retry_at = self._clock() + pause
        self._reason = reason
        self._show_retry(max(batch.count, 1))
        self._report(Failed(batch.id, self._attempt, code, reason[:500], pause))

    def _report_done(self, batch: Batch) -> None:
        path = os.path.join(self._job.spool, f"due-{os.getpid()}-{batch.id}")
        try:
            payload, file = spool.pack(tuple(self._due), path)
        except OSError:  # the trees as such are short enough for the message
            trees = {part.tree for part in self._due}
            payload, file = spool.pack(tuple(Part(tree, True) for tree in trees), path)
        seconds = self._clock() - self._started
        pretended = self._job.pretend is not None
        worry = self._worry[:500]
        done = Done(batch.id, batch.count, seconds, self._code, worry, payload, file, pretended)
        worry = worry or batch.overdue
        if self._end_by is not None:
            self._title(titles.stopping(self._job.node))
        elif worry:
            self._title(titles.degraded(self._job.node, worry))
        else:
            self._title(titles.ok(self._job.node, self._time(0)))
        self._forget()
        self._report(done)

    # What is seen ------------------------------------------------------------------------------------

    def _title(self, text: str) -> None:
        process.set_title(text)

    def _time(self, ahead: float) -> str:
        return time.strftime("%H:%M:%S", time.localtime(self._wall() + ahead))

    def _show_retry(self, behind: int) -> None:
        if self._retry_at is not None and self._end_by is None:
            at = self._time(self._retry_at - self._clock())
            self._title(titles.retrying(self._job.node, self._attempt, at, self._reason, behind))

    def _noted(self, note: Note) -> None:
        if self._retry_at is not None:
            self._show_retry(note.behind)
        elif self._batch is None and self._end_by is None:
            self._title(self._idle_title(note))

    def _idle_title(self, note: Note) -> str:
        match note.verdict:
            case Verdict.OK:
                return titles.ok(self._job.node, note.at)
            case Verdict.STARTING:
                return titles.starting(self._job.node)
            case Verdict.DEGRADED:
                return titles.degraded(self._job.node, note.reason)
        return titles.waiting(self._job.node, note.verdict, note.reason, note.behind)

    def _show_progress(self, transfer: Transfer) -> None:
        batch = self._batch
        if batch is not None and transfer.percent != self._percent and self._end_by is None:
            self._percent = transfer.percent
            if transfer.percent is not None and self._parts and self._parts[0].full:
                self._title(titles.full(self._job.node, transfer.percent))
                self._report(Progress(batch.id, transfer.percent))
