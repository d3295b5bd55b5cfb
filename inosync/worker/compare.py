"""Compares a tree with its copy on the node, beside the batches of the worker.

It only looks: an rsync that wrote beside another one could put back what that has just replaced. What is
found goes to the master, and from there the way of all changes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from inosync.filters.rules import Excluded
from inosync.messages import Compare, Compared
from inosync.rsync import argv as rsync_argv
from inosync.rsync import exit_codes, itemize, stderr
from inosync.rsync.argv import EVERYTHING, TransferSettings
from inosync.rsync.source import SourceState, check_source
from inosync.rsync.transfer import Transfer
from inosync.system import spool
from inosync.system.loop import Loop

CHECKSUM_PATIENCE = 10
"""With checksums the node reads its files, and nothing is heard of it meanwhile: so many times rtimeout."""
_COMPLETE = (0, 24)
"""Exit codes of an rsync that has compared everything; what vanished meanwhile (24) is a change by itself."""


class _Comparison:
    """One comparison. OSError if its rsync cannot be started."""

    def __init__(self, order: Compare, argv: tuple[str, ...], timeout: float, loop: Loop) -> None:
        self.order = order
        self.count = 0
        self.lines: list[bytes] = []
        self.transfer = Transfer(argv, timeout, loop, self._heard, idle=True)

    def _heard(self, lines: list[bytes]) -> None:
        told = [line for line in lines if itemize.parse(line) is not None]
        self.count += len(told)
        self.lines += told[: itemize.MAX_DIFFERENCES - len(self.lines)]


@dataclass(slots=True)
class Comparer:
    """Makes one comparison at a time. ``settings`` are those of a tree at the moment."""

    settings: Callable[[int], TransferSettings]
    excluded: Mapping[int, Excluded]
    timeout: float
    """Seconds without progress after which it is ended."""
    spool: str
    """The directory for what is too long for a message."""
    report: Callable[[Compared], None]
    loop: Loop
    _run: _Comparison | None = None
    _ending: list[Transfer] = field(default_factory=list)

    def begin(self, order: Compare) -> None:
        """Compare this, and nothing else any more."""
        self.leave()
        settings = self.settings(order.tree)
        patience = self.timeout * CHECKSUM_PATIENCE if order.checksum else self.timeout
        try:
            if check_source(settings.source, order.source, self.excluded[order.tree]) is not SourceState.OK:
                self.report(Compared(order.id, held=True))
                return
            argv = rsync_argv.compare_argv(settings, order.checksum)
            run = _Comparison(order, argv, patience, self.loop)
        except OSError as error:  # the tree or rsync is not there, or we are short of processes
            self.report(Compared(order.id, f"{error.filename or settings.rsync}: {error.strerror}"))
            return
        self._run = run
        run.transfer.send_when_connected(rsync_argv.names_input(EVERYTHING), lambda: self._is_sure(run))

    def _is_sure(self, run: _Comparison) -> bool:
        order = run.order
        try:
            found = check_source(run.transfer.directory, order.source, self.excluded[order.tree])
        except OSError:
            return False
        return found is SourceState.OK

    @property
    def running(self) -> bool:
        """Whether a comparison is on its way."""
        return self._run is not None

    def leave(self) -> None:
        """End what runs; nobody wants to know any more."""
        if self._run is not None:
            self._run.transfer.terminate()
            self._ending.append(self._run.transfer)
            self._run = None

    def fail(self, reason: str) -> None:
        """End what runs, and say why."""
        if self._run is not None:
            order = self._run.order
            self.leave()
            self.report(Compared(order.id, reason))

    def renew(self) -> None:
        """Begin what runs anew: its rsync was started with what holds no more."""
        if self._run is not None:
            self.begin(self._run.order)

    @property
    def pids(self) -> list[int]:
        """The rsyncs."""
        running = [self._run.transfer] if self._run is not None else []
        return [transfer.pid for transfer in (*running, *self._ending)]

    def tend(self) -> None:
        """Look after what runs, and tell what came of it."""
        self._ending = [transfer for transfer in self._ending if not transfer.done]
        run = self._run
        if run is not None and run.transfer.done:
            self._run = None
            self.report(self._result(run))

    def _result(self, run: _Comparison) -> Compared:
        transfer, number = run.transfer, run.order.id
        code = transfer.code or 0
        if transfer.cancelled:
            return Compared(number, held=True)
        if transfer.abort_reason or code not in _COMPLETE or transfer.names_sent_at is None:
            reason = transfer.abort_reason or stderr.reason(transfer.stderr) or exit_codes.describe(code)
            return Compared(number, reason[:500])
        path = os.path.join(self.spool, f"compared-{os.getpid()}-{number}")
        try:
            payload, file = spool.pack(tuple(run.lines), path)
        except OSError as error:
            return Compared(number, f"{self.spool}: {error.strerror}")
        return Compared(number, count=run.count, payload=payload, file=file)
