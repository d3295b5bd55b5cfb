"""Runs of rsync that print in what a node differs, and change nothing there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from inosync.rsync import argv, compat, exit_codes, itemize, stderr
from inosync.rsync.argv import TransferSettings
from inosync.rsync.exit_codes import ExitKind
from inosync.rsync.itemize import Difference
from inosync.rsync.transfer import Transfer
from inosync.system.loop import Loop

_COMPLETE = (0, 24)
"""Exit codes of an rsync that has compared everything; what vanished meanwhile (24) is a change by itself."""


class DryRun:
    """One such run, and what it has found so far. OSError if its rsync cannot be started.

    With ``is_bounded`` it ends when it has found more than MAX_DIFFERENCES.
    """

    def __init__(
        self,
        command: tuple[str, ...],
        timeout: float,
        loop: Loop,
        idle: bool = False,
        is_bounded: bool = False,
    ) -> None:
        self._is_bounded = is_bounded
        self.count = 0
        """All differences."""
        self.lines: list[bytes] = []
        """The first of them, as rsync prints them (``itemize``)."""
        self.transfer = Transfer(command, timeout, loop, self._on_lines, idle)

    def _on_lines(self, lines: list[bytes]) -> None:
        found = [line for line in lines if itemize.parse(line) is not None]
        self.count += len(found)
        self.lines += found[: itemize.MAX_DIFFERENCES - len(self.lines)]
        if self._is_bounded and self.has_too_many:
            self.transfer.terminate()

    @property
    def has_too_many(self) -> bool:
        """Whether there are more differences than are kept."""
        return self.count > itemize.MAX_DIFFERENCES

    @property
    def reason(self) -> str:
        """Why an ended run has not compared everything; empty if it has."""
        transfer, code = self.transfer, self.transfer.code or 0
        if transfer.abort_reason or code not in _COMPLETE or transfer.names_sent_at is None:
            return transfer.abort_reason or stderr.failure_reason(code, transfer.stderr)
        return ""

    def is_answered(self, code: int) -> bool:
        """Whether a node has said in what it differs, or would not say so in another try, either.

        ``code``: the exit code of an ended run.
        """
        transfer = self.transfer
        if self.has_too_many or compat.refused_by_daemon(transfer.stderr):
            return True
        is_through = exit_codes.exit_kind(code) in (ExitKind.OK, ExitKind.PARTIAL)
        return is_through and transfer.names_sent_at is not None and not transfer.abort_reason

    @property
    def differences(self) -> Iterator[Difference]:
        """The first differences, without times of directories."""
        found = (itemize.parse(line) for line in self.lines)
        return (one for one in found if one is not None and not one.negligible)


def full_mirrors(
    wanted: Sequence[tuple[TransferSettings, float]], at_once: int
) -> Iterator[DryRun | OSError]:
    """Yield, in their order, the dry runs of full mirrors, ended; ``at_once`` run beside each other.

    ``wanted``: settings, and the seconds without progress that end a run. OSError in place of one that cannot
    be started.
    """
    loop, runs = Loop(), list[DryRun | OSError]()
    for number in range(len(wanted)):
        while True:
            free = at_once - sum(not _has_ended(run) for run in runs[number:])
            runs += [_start(*one, loop) for one in wanted[len(runs) : len(runs) + free]]
            if _has_ended(runs[number]):
                break
            loop.turn(None)
        yield runs[number]
        runs[number] = OSError()  # its lines are read, and may be many


def _start(settings: TransferSettings, timeout: float, loop: Loop) -> DryRun | OSError:
    try:
        run = DryRun(argv.dry_run_argv(settings), timeout, loop)
    except OSError as problem:
        return problem
    run.transfer.send_when_connected(argv.names_input(argv.EVERYTHING))
    return run


def _has_ended(run: DryRun | OSError) -> bool:
    return isinstance(run, OSError) or run.transfer.done
