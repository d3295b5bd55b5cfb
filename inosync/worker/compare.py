"""Compares a tree with its copy on the node, beside the batches of the worker.

It changes nothing: an rsync that wrote beside another one could put back what that has just replaced. What it
finds goes to the master, and from there the way of all changes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from inosync.changes import Source
from inosync.nodes.messages import MAX_REASON_BYTES, Compare, Compared
from inosync.rsync import argv
from inosync.rsync.dry_run import DryRun
from inosync.rsync.source import SourceState, check_source
from inosync.rsync.transfer import Transfer
from inosync.system import spool
from inosync.system.loop import Loop
from inosync.text import shortened
from inosync.worker.calls import RsyncCalls
from inosync.worker.job import Job

CHECKSUM_PATIENCE = 10
"""With checksums the node reads its files and sends nothing meanwhile: rtimeout is multiplied by this."""


@dataclass(frozen=True, slots=True)
class Found:
    """What came of a comparison."""

    reason: str = ""
    """Why it failed; empty if it did not."""
    held: bool = False
    """Whether nothing was compared, because the root of the tree was not what it had to be."""
    count: int = 0
    lines: tuple[bytes, ...] = ()
    """Of all differences, and the first of them."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A comparison that is to be made."""

    tree: int
    source: Source | None
    call: Callable[[], tuple[str, ...]]
    """Makes the argument vector, with the limits that are in force then."""
    names: bytes
    timeout: float
    done: Callable[[Found], None]


@dataclass(frozen=True, slots=True)
class _Comparison:
    """A comparison that runs."""

    wanted: _Wanted
    run: DryRun


class Comparisons:
    """Makes one comparison at a time; ``report`` takes what came of those that the master orders."""

    def __init__(self, job: Job, calls: RsyncCalls, report: Callable[[Compared], None], loop: Loop) -> None:
        self._job, self._calls, self._report, self._loop = job, calls, report, loop
        self._running: _Comparison | None = None
        self._ending: list[Transfer] = []  # rsyncs that were told to end
        self._is_over = False  # no other comparison is begun

    @property
    def is_running(self) -> bool:
        return self._running is not None

    def start(self, order: Compare) -> None:
        """Compare a tree. A comparison that still runs is cancelled."""
        timeout = self._job.timeout * (CHECKSUM_PATIENCE if order.checksum else 1)

        def call() -> tuple[str, ...]:
            # It must not take a session of the shared connection.
            return argv.compare_argv(self._calls.settings(order.tree, is_direct=True), order.checksum)

        def done(found: Found) -> None:
            self._report(self._compared(order.id, found))

        self._begin(_Wanted(order.tree, order.source, call, argv.names_input(argv.EVERYTHING), timeout, done))

    def compare_names(
        self, tree: int, source: Source | None, names: Iterable[bytes], done: Callable[[Found], None]
    ) -> None:
        """Compare these names (``Change.wire``) only. A comparison that still runs is cancelled."""

        def call() -> tuple[str, ...]:
            return argv.compare_names_argv(self._calls.settings(tree))

        self._begin(_Wanted(tree, source, call, argv.names_input(names), self._job.timeout, done))

    def _begin(self, wanted: _Wanted) -> None:
        self.cancel()
        if self._is_over:
            return
        directory = self._job.trees[wanted.tree].source
        try:
            if not self._may_compare(wanted, directory):
                wanted.done(Found(held=True))
                return
            run = DryRun(wanted.call(), wanted.timeout, self._loop, idle=True)
        except OSError as error:  # the tree or rsync is not there, or we are short of processes
            wanted.done(Found(f"{error.filename or self._job.trees[wanted.tree].rsync}: {error.strerror}"))
            return
        self._running = _Comparison(wanted, run)
        transfer = run.transfer
        transfer.send_when_connected(wanted.names, lambda: self._has_its_source(wanted, transfer))

    def _has_its_source(self, wanted: _Wanted, transfer: Transfer) -> bool:
        os.stat(transfer.directory)  # OSError if rsync has ended, which says nothing about the tree
        return self._may_compare(wanted, transfer.directory)

    def _may_compare(self, wanted: _Wanted, directory: str) -> bool:
        return check_source(directory, wanted.source, self._job.excluded[wanted.tree]) is SourceState.OK

    def cancel(self) -> None:
        """End the comparison without a report."""
        if self._running is not None:
            self._running.run.transfer.terminate()
            self._ending.append(self._running.run.transfer)
            self._running = None

    def finish(self) -> None:
        """Begin no other comparison: the worker is ending."""
        self._is_over = True
        self.cancel()

    def fail(self, reason: str) -> None:
        """End the comparison, and say why."""
        if self._running is not None:
            wanted = self._running.wanted
            self.cancel()
            wanted.done(Found(reason))

    def restart(self) -> None:
        """Start the comparison anew: its rsync runs with a limit that is out of date."""
        if self._running is not None:
            self._begin(self._running.wanted)

    @property
    def pids(self) -> list[int]:
        """The rsyncs, those that are ending included."""
        running = [self._running.run.transfer] if self._running is not None else []
        return [transfer.pid for transfer in (*running, *self._ending)]

    def check(self) -> None:
        """Pass on what came of a comparison that has ended."""
        self._ending = [transfer for transfer in self._ending if not transfer.done]
        running = self._running
        if running is not None and running.run.transfer.done:
            self._running = None
            running.wanted.done(_found(running.run))

    def _compared(self, number: int, found: Found) -> Compared:
        if found.reason or found.held:
            return Compared(number, found.reason, found.held)
        path = os.path.join(self._job.spool, f"compared-{os.getpid()}-{number}")
        try:
            payload, file = spool.pack(found.lines, path)
        except OSError as error:
            return Compared(number, f"{self._job.spool}: {error.strerror}")
        return Compared(number, count=found.count, payload=payload, file=file)


def _found(run: DryRun) -> Found:
    if run.transfer.cancelled:
        return Found(held=True)
    if run.reason:
        return Found(shortened(run.reason, MAX_REASON_BYTES))
    return Found(count=run.count, lines=tuple(run.lines))
