"""Compares a tree with its copy on the node, beside the batches of the worker.

It changes nothing: an rsync that wrote beside another one could put back what that has just replaced. What it
finds goes to the master, and from there the way of all changes.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from inosync.messages import MAX_REASON_BYTES, Compare, Compared
from inosync.rsync import argv, exit_codes, itemize, stderr
from inosync.rsync.source import SourceState, check_source
from inosync.rsync.transfer import Transfer
from inosync.system import spool
from inosync.system.loop import Loop
from inosync.text import shortened
from inosync.worker.calls import RsyncCalls
from inosync.worker.job import Job

CHECKSUM_PATIENCE = 10
"""With checksums the node reads its files and sends nothing meanwhile: rtimeout is multiplied by this."""
_COMPLETE = (0, 24)
"""Exit codes of an rsync that has compared everything; what vanished meanwhile (24) is a change by itself."""


class _Comparison:
    """One comparison, and what it has found so far. OSError if its rsync cannot be started."""

    def __init__(self, order: Compare, words: tuple[str, ...], timeout: float, loop: Loop) -> None:
        self.order = order
        self.count = 0
        self.differences: list[bytes] = []  # the first of them
        self.transfer = Transfer(words, timeout, loop, self._on_lines, idle=True)

    def _on_lines(self, lines: list[bytes]) -> None:
        found = [line for line in lines if itemize.parse(line) is not None]
        self.count += len(found)
        self.differences += found[: itemize.MAX_DIFFERENCES - len(self.differences)]


class Comparisons:
    """Makes one comparison at a time; ``report`` takes what came of it."""

    def __init__(self, job: Job, calls: RsyncCalls, report: Callable[[Compared], None], loop: Loop) -> None:
        self._job, self._calls, self._report, self._loop = job, calls, report, loop
        self._running: _Comparison | None = None
        self._ending: list[Transfer] = []  # rsyncs that were told to end

    @property
    def is_running(self) -> bool:
        """Whether a comparison is on its way."""
        return self._running is not None

    def start(self, order: Compare) -> None:
        """Compare a tree. A comparison that still runs is cancelled."""
        self.cancel()
        settings = self._calls.settings(order.tree, is_direct=True)
        timeout = self._job.timeout * (CHECKSUM_PATIENCE if order.checksum else 1)
        try:
            if not self._may_compare(order, settings.source):
                self._report(Compared(order.id, held=True))
                return
            words = argv.compare_argv(settings, order.checksum)
            running = _Comparison(order, words, timeout, self._loop)
        except OSError as error:  # the tree or rsync is not there, or we are short of processes
            self._report(Compared(order.id, f"{error.filename or settings.rsync}: {error.strerror}"))
            return
        self._running = running
        transfer, names = running.transfer, argv.names_input(argv.EVERYTHING)
        transfer.send_when_connected(names, lambda: self._has_its_source(order, transfer))

    def _has_its_source(self, order: Compare, transfer: Transfer) -> bool:
        os.stat(transfer.directory)  # OSError if rsync has ended, which says nothing about the tree
        return self._may_compare(order, transfer.directory)

    def _may_compare(self, order: Compare, directory: str) -> bool:
        return check_source(directory, order.source, self._job.excluded[order.tree]) is SourceState.OK

    def cancel(self) -> None:
        """End the comparison without a report."""
        if self._running is not None:
            self._running.transfer.terminate()
            self._ending.append(self._running.transfer)
            self._running = None

    def fail(self, reason: str) -> None:
        """End the comparison, and report why."""
        if self._running is not None:
            order = self._running.order
            self.cancel()
            self._report(Compared(order.id, reason))

    def restart(self) -> None:
        """Start the comparison anew: its rsync runs with a limit that holds no more."""
        if self._running is not None:
            self.start(self._running.order)

    @property
    def pids(self) -> list[int]:
        """The rsyncs, those that are ending included."""
        running = [self._running.transfer] if self._running is not None else []
        return [transfer.pid for transfer in (*running, *self._ending)]

    def check(self) -> None:
        """Report a comparison that has ended."""
        self._ending = [transfer for transfer in self._ending if not transfer.done]
        running = self._running
        if running is not None and running.transfer.done:
            self._running = None
            self._report(self._result(running))

    def _result(self, run: _Comparison) -> Compared:
        order, transfer = run.order, run.transfer
        code = transfer.code or 0
        if transfer.cancelled:
            return Compared(order.id, held=True)
        if transfer.abort_reason or code not in _COMPLETE or transfer.names_sent_at is None:
            reason = transfer.abort_reason or stderr.reason(transfer.stderr) or exit_codes.describe(code)
            return Compared(order.id, shortened(reason, MAX_REASON_BYTES))
        path = os.path.join(self._job.spool, f"compared-{os.getpid()}-{order.id}")
        try:
            payload, file = spool.pack(tuple(run.differences), path)
        except OSError as error:
            return Compared(order.id, f"{self._job.spool}: {error.strerror}")
        return Compared(order.id, count=run.count, payload=payload, file=file)
