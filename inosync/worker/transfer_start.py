"""Starts the transfer of the first part of a batch: with a warm rsync, or with one that is called for it."""

from __future__ import annotations

import os
from dataclasses import dataclass

from inosync.changes import Lane, Part, Step
from inosync.rsync import argv
from inosync.rsync.argv import TransferSettings
from inosync.rsync.dry_run import DryRun
from inosync.rsync.exit_codes import ExitKind
from inosync.rsync.source import SourceState, check_source
from inosync.rsync.transfer import Transfer
from inosync.system import process
from inosync.worker import order
from inosync.worker.batch_run import BatchRun
from inosync.worker.beside import Beside
from inosync.worker.job import Job
from inosync.worker.local_targets import overlap_reason
from inosync.worker.rename_runs import RenameRuns


@dataclass(frozen=True, slots=True)
class Start:
    """What has come of it. Without a transfer and without a problem, the part was taken out."""

    transfer: Transfer | None = None
    question: DryRun | None = None  # if the transfer only asks what the node lacks, or would lose
    problem: str = ""  # why none could be started
    kind: ExitKind = ExitKind.RETRY  # of the problem
    is_held: bool = False  # the root of the tree is not what it has to be


class TransferStarter:
    """For the batches of a worker. ``renames`` are followed before the part itself is sent."""

    def __init__(self, job: Job, beside: Beside, renames: RenameRuns) -> None:
        self._job, self._beside, self._renames = job, beside, renames

    def start(self, run: BatchRun) -> Start:
        """Start a transfer, or take out the part if there is nothing to do."""
        settings = self._beside.calls.settings(run.part.tree)
        try:
            return self._start(run, settings)
        except OSError as error:  # the tree or rsync is not there, or we are short of processes
            self._beside.lanes.end(run.batch.lane)
            return Start(problem=f"{error.filename or settings.rsync}: {error.strerror}")

    def _start(self, run: BatchRun, settings: TransferSettings) -> Start:
        tree, lane, lanes = run.part.tree, run.batch.lane, self._beside.lanes
        if not run.check_root(settings, self._job.excluded[tree]):
            run.hold_part()
            return Start(is_held=True)
        is_something = run.prepare_part(
            settings, self._job.rules[tree], self._beside.calls.big_size(tree), lanes.other(lane, tree)
        )
        # What is big may only be renamed, and what is gone is counted first.
        if not (is_something or run.uncounted or run.part.renames or self._renames.has_steps(tree)):
            run.skip_part()
            return Start()
        sources = [each.source for each in self._job.trees.values()]
        if problem := overlap_reason(settings.target, sources):
            return Start(problem=problem, kind=ExitKind.SLOW)
        self._note_target(run.part)
        lanes.begin(lane, run.part, run.names)
        if run.uncounted:
            return self._count_removals(run)
        if not run.part.full and (transfer := self._renames.start(run)):
            return Start(transfer)
        if run.names:
            return self._send_part(run)
        lanes.end(lane)
        run.skip_part()
        return Start()

    def _note_target(self, part: Part) -> None:
        """Note what stands at the target before it is sent to."""
        if part.full:
            self._beside.local_targets.begin_full(part.tree)
            self._beside.remote_targets.begin_full(part.tree)
            # An rsync daemon that keeps a connection writes into the directory that its module was then.
            self._beside.warm.end(part.tree)
        else:
            self._beside.local_targets.check(part.tree)

    def _count_removals(self, run: BatchRun) -> Start:
        question = self._beside.calls.count_removals(run.part.tree)
        transfer = question.transfer
        names = argv.names_input(run.uncounted)
        transfer.send_when_connected(names, lambda: self._has_its_source(run, transfer))
        return Start(transfer, question)

    def _send_part(self, run: BatchRun) -> Start:
        """Send its names, or ask what of them the node lacks."""
        part, lane, calls = run.part, run.batch.lane, self._beside.calls
        question = calls.ask(part) if lane is Lane.FIRST and part.step is Step.UNKNOWN else None
        if question is not None:
            transfer = question.transfer
        else:
            is_usual = not (part.full or part.ignore_times or order.only_removes(part) or run.frozen_source)
            warm = self._beside.warm.take(part.tree) if is_usual and lane is Lane.FIRST else None
            transfer = warm or calls.start(part, run.delete_nothing, lane, run.frozen_source)
        transfer.send_when_connected(
            lambda: argv.names_input(run.names), lambda: self._may_send(run, transfer)
        )
        return Start(transfer, question)

    def _may_send(self, run: BatchRun, transfer: Transfer) -> bool:
        """Whether an rsync that has connected is in its source; what is newer than the batch is left out.

        OSError if that cannot be seen.
        """
        if not self._has_its_source(run, transfer):
            return False
        run.leave_newer(self._job.trees[run.part.tree].source)
        return True

    def _has_its_source(self, run: BatchRun, transfer: Transfer) -> bool:
        """Whether an rsync that has connected stands in the directory that the part is meant for.

        OSError if that cannot be seen.
        """
        tree = run.part.tree
        # A wrapper that runs rsync, instead of becoming it, stays where it was started.
        is_wrapped = os.path.samestat(transfer.directory_status, os.stat(process.START_DIRECTORY))
        # What was copied was in the right directory then.
        is_elsewhere = is_wrapped or run.frozen_source
        place = self._job.trees[tree].source if is_elsewhere else transfer.directory
        found = check_source(place, run.part.source, self._job.excluded[tree])
        return found is SourceState.OK or (found is SourceState.EMPTY and run.delete_nothing)
