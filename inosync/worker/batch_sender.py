"""Sends batches, one transfer after another. What fails is tried again, and the result is reported."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from inosync.changes import Lane, Step
from inosync.nodes import backoff
from inosync.nodes.messages import (
    MAX_REASON_BYTES,
    Batch,
    Done,
    Failed,
    Progress,
    Report,
    SlotRequest,
    Through,
    TooManyRemovals,
)
from inosync.rsync import argv, compat, exit_codes, stdout
from inosync.rsync.dry_run import DryRun
from inosync.rsync.exit_codes import ExitKind
from inosync.rsync.outcome import Outcome, Run, judge
from inosync.rsync.source import SourceState, check_source
from inosync.rsync.transfer import Transfer
from inosync.system import process
from inosync.system.loop import Loop, Timer
from inosync.text import shortened
from inosync.worker import order, removals, renamed, transfer_end
from inosync.worker.batch_run import BatchRun
from inosync.worker.beside import Beside
from inosync.worker.job import Job
from inosync.worker.lanes import ALONE_SECONDS
from inosync.worker.leftovers import packed, without_excess
from inosync.worker.local_targets import overlap_reason
from inosync.worker.rename_runs import RenameRuns
from inosync.worker.transfer_end import FAILURES, Then, TransferEnd
from inosync.worker.warm_pool import LULL_SECONDS

YIELD_SECONDS = 0.25
"""The time that a node gets to notice that our other connections are closed."""
MAX_PROBLEM_BYTES = 200
"""How much is said about a rename that was not followed."""


@dataclass(slots=True)
class _Tries:
    """What was learnt by trying the first part of a batch."""

    failures: int = 0  # in a row
    needs_slot: bool = False  # for the next try
    refused_beside_warm: str = ""  # why a connection was refused while warm ones were kept
    is_through: bool = False  # it was looked at whether the node has all of the batch before its rsync ends
    is_halted: bool = False  # the transfer that runs was ended because its tree is halted
    first_lane_transfers: int = 0  # how many there had been in the first lane when this one was started


class BatchSender:
    """Sends the batches of one lane, one at a time. In the second lane nothing is tried again after a pause.

    ``adapt`` is given what an rsync said, and leaves out from then on what the node refuses.
    """

    def __init__(
        self,
        job: Job,
        beside: Beside,
        adapt: Callable[[Sequence[bytes]], bool],
        report: Callable[[Report], None],
        loop: Loop,
        rand: Callable[[], float],
    ) -> None:
        self._job, self._beside, self._loop = job, beside, loop
        self._adapt, self._report, self._rand = adapt, report, rand
        self._run: BatchRun | None = None  # the batch
        self._tries = _Tries()
        self._transfer: Transfer | None = None  # of its first part
        self._question: DryRun | None = None  # if the transfer only asks what the node lacks
        self._retry: Timer | None = None  # when the first part is tried again
        self._percent: int | None = None  # as reported last
        self._renames = RenameRuns(job, beside.calls, beside.refused, beside.sent)
        self._is_ending = False

    def node_was_away(self) -> None:
        """The node was out of reach: that is why a connection beside the warm ones has failed."""
        self._tries.refused_beside_warm = ""

    @property
    def transfer(self) -> Transfer | None:
        """The one that runs, or has ended and was not yet given to ``transfer_ended``."""
        return self._transfer

    def begin(self, batch: Batch) -> None:
        """Send a batch; the one before is through."""
        copies = os.path.join(self._job.spool, f"copies-{os.getpid()}-{batch.id}")
        self._run, self._percent = BatchRun(batch, self._loop.clock(), copies), None
        self._tries = _Tries()
        self._renames.begin_batch(batch.tidy_since is not None)
        if batch.tidy_since is not None:
            self._beside.outdated.note_reads(batch.tidy_since)
        self._send_next(self._run)

    def slot_granted(self, batch: int) -> None:
        """The batch may be tried again now."""
        if self._run is not None and batch == self._run.batch.id:
            self._tries.needs_slot = False
            self._send_next(self._run)

    def halt(self, tree: int) -> None:
        """Send nothing of a tree any more, until the next batch."""
        run, transfer = self._run, self._transfer
        if run is None:
            return
        if transfer is not None and run.part.tree == tree:
            self._tries.is_halted = True
            transfer.terminate()
        run.hold_tree(tree, transfer is not None)
        if not run.parts:
            self._set_retry(None)
            self._send_next(run)

    def restart_transfer(self) -> None:
        """Send the part that is on its way once more: its rsync runs with a limit that is out of date."""
        if self._transfer is not None:
            self._transfer.supersede()

    def go_on(self) -> None:
        """Start what has waited for the end of the other lane's transfer."""
        if self._run is not None and not (self._tries.needs_slot or self._is_ending):
            self._send_next(self._run)

    def finish(self) -> None:
        """Start no other transfer: the worker is ending."""
        self._is_ending = True

    # The parts ---------------------------------------------------------------------------------------

    def _send_next(self, run: BatchRun) -> None:
        """Start the next transfer, or report the batch when nothing of it is left."""
        while run.parts and self._transfer is None and self._retry is None:
            if self._beside.lanes.must_wait(run.batch.lane, self._loop.clock()):
                return
            if run.batch.lane is Lane.FIRST:
                self._beside.title.transferring(run.part, run.batch.count)
            self._start(run)
        if not run.parts:
            self._report_done(run)

    def _start(self, run: BatchRun) -> None:
        """Start a transfer, or take out the part if there is nothing to do.

        One that cannot start has failed.
        """
        part, calls, lane, lanes = run.part, self._beside.calls, run.batch.lane, self._beside.lanes
        settings = calls.settings(part.tree)
        try:
            if not run.may_begin(settings, self._job.excluded[part.tree]):
                run.hold_part()
                self._tries.failures = 0
                return  # the other trees go on
            big_size, other = calls.big_size(part.tree), lanes.other(lane, part.tree)
            is_something = run.has_something(settings, self._job.rules[part.tree], big_size, other)
            # What is big may only be renamed, and what is gone is counted first.
            if not (is_something or run.uncounted or run.part.renames or self._renames.has_steps(part.tree)):
                run.skip_part()
                return
            part = run.part
            sources = [tree.source for tree in self._job.trees.values()]
            if problem := overlap_reason(settings.target, sources):
                self._back_off(run, ExitKind.SLOW, 0, problem)
                return
            if part.full:
                self._beside.local_targets.begin_full(part.tree)
                self._beside.remote_targets.begin_full(part.tree)
                # An rsync daemon that keeps a connection writes into the directory that its module was then.
                self._beside.warm.end(part.tree)
            else:
                self._beside.local_targets.check(part.tree)
            self._tries.first_lane_transfers = lanes.transfers
            lanes.begin(lane, part, run.names)
            if names := run.uncounted:
                self._question = calls.count_removals(part.tree)
                self._transfer = counting = self._question.transfer
                counting.send_when_connected(
                    argv.names_input(names), lambda: self._has_its_source(run, counting)
                )
                return
            if not part.full and (transfer := self._renames.start(run)):
                self._transfer = transfer
                return
            part = run.part
            if not run.names:
                lanes.end(lane)
                run.skip_part()
                return
            is_usual = not (part.full or part.ignore_times or order.only_removes(part) or run.frozen_source)
            is_usual = is_usual and lane is Lane.FIRST
            if lane is Lane.FIRST and part.step is Step.UNKNOWN:
                self._question = calls.ask(part)
                transfer = self._question.transfer
            else:
                warm = self._beside.warm.take(part.tree) if is_usual else None
                transfer = warm or calls.start(part, run.delete_nothing, lane, run.frozen_source)
            self._transfer = transfer
            transfer.send_when_connected(
                lambda: argv.names_input(run.names), lambda: self._may_send(run, transfer)
            )
        except OSError as error:  # the tree or rsync is not there, or we are short of processes
            lanes.end(lane)
            self._back_off(run, ExitKind.RETRY, 0, f"{error.filename or settings.rsync}: {error.strerror}")

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

    def _set_retry(self, pause: float | None) -> None:
        if self._retry is not None:
            self._retry.cancel()
        at = None if pause is None else self._loop.clock() + pause
        self._retry = None if at is None else self._loop.call_at(at, self._try_again)

    def _try_again(self) -> None:
        run, self._retry = self._run, None
        assert run is not None
        if self._tries.needs_slot:
            self._report(SlotRequest(run.batch.id))
        elif not self._is_ending:
            self._send_next(run)

    # The end of a transfer ---------------------------------------------------------------------------

    def transfer_ended(self) -> None:
        """The transfer has ended, and nothing that it had started is left."""
        run, transfer = self._run, self._transfer
        assert run is not None
        assert transfer is not None
        question, self._transfer, self._question = self._question, None, None
        self._beside.lanes.end(run.batch.lane)
        run.results.bytes += stdout.transferred_bytes(transfer.stdout)
        code = exit_codes.actual_code(transfer.code or 0, transfer.stderr)
        renames = self._renames
        if renames.is_running:
            renames.note_sent(self._loop.clock())
            outcome = renames.outcome(code, transfer)
        elif question is not None and _is_answered(code, question):
            outcome = Outcome()
        else:
            self._beside.sent.ended(run.part, run.current.send, self._loop.clock())
            outcome = _outcome(run, transfer, code, self._job)
        then = transfer_end.decide(self._view(run, transfer, code, outcome))
        fed_at = transfer.names_sent_at
        if fed_at is not None and (renames.is_running or then is not Then.DONE):
            self._beside.outdated.note_reads(fed_at, run.part.tree)
        match then:
            case Then.NOTHING:
                return
            case Then.HOLD:
                run.hold_part()
                self._tries.is_halted, self._tries.failures = False, 0
            case Then.SAME_AGAIN:
                run.superseded(fed_at is not None)
            case Then.ADAPT:
                self._adapt(transfer.stderr)
            case Then.DONE if renames.is_running:
                assert fed_at is not None
                _, made = renamed.without(run.parts, run.part.tree, renames.done(code, transfer))
                for part in made:
                    run.results.outdated += self._beside.outdated.after(part, part.names, fed_at)
            case failure if (
                renames.is_running and failure in FAILURES and renames.is_given_up(code, transfer)
            ):
                if fed_at is not None:
                    run.superseded(was_fed=True)
            case Then.DONE if question is not None:
                self._answered(run, question)
            case Then.DONE:
                assert fed_at is not None
                self._beside.ssh_master.node_reached()
                if self._tries.refused_beside_warm:
                    self._beside.warm.suspend(self._tries.refused_beside_warm)
                    self._tries.refused_beside_warm = ""
                self._beside.local_targets.check(run.part.tree)
                has_all = not (run.part.full and run.part.step is Step.NEW)
                if has_all and not (outcome.due or outcome.instead):
                    self._beside.remote_targets.came_through(run.part, run.names, run.started_at, fed_at)
                run.results.outdated += self._beside.outdated.after(run.part, run.names, fed_at)
                self._measure(transfer, fed_at)
                was_crossed = self._tries.first_lane_transfers != self._beside.lanes.transfers
                if run.batch.lane is Lane.SECOND and was_crossed:
                    run.look_at_directories()
                run.came_through(outcome, code)
                self._tries.failures = 0
            case failure:
                self._failed(run, transfer, outcome, code, failure)
        renames.end_run()
        if not self._is_ending or not run.parts:
            self._send_next(run)

    def _answered(self, run: BatchRun, question: DryRun) -> None:
        self._beside.ssh_master.node_reached()
        self._tries.failures = 0
        tree = run.part.tree
        if names := run.uncounted:
            further, allowance = question.count - len(question.lines), run.part.allowance
            count = removals.removed(question.differences, further)
            source, excluded = self._job.trees[tree].source, self._job.excluded[tree]
            if allowance is None or removals.are_allowed(count, allowance, source, excluded):
                run.counted()
            else:
                self._report(TooManyRemovals(tree, count, removals.place(names)))
                run.hold_part()
            return
        lacking = {found.path: found.is_link for found in question.differences if found.missing}
        is_all = not (question.has_too_many or question.reason)
        try:
            run.answered(lacking, is_all, self._job.trees[tree].source, self._beside.calls.big_size(tree))
        except OSError:
            run.hold_part()  # the tree is not there any more: the guard will say so

    def _measure(self, transfer: Transfer, fed_at: float) -> None:
        """Learn how fast the node is, and with it how big a big file is."""
        sent, files = stdout.transferred_bytes(transfer.stdout), stdout.transferred_files(transfer.stdout)
        self._beside.lanes.measure(sent, files, self._loop.clock() - fed_at)
        if self._beside.lanes.adjust(self._beside.calls.rspeed):
            self._beside.warm.renew(LULL_SECONDS)

    def _view(self, run: BatchRun, transfer: Transfer, code: int, outcome: Outcome) -> TransferEnd:
        return TransferEnd(
            code,
            has_failed=outcome.retry is not None,
            is_held=self._tries.is_halted
            or (transfer.cancelled and not self._renames.is_running)
            or (run.delete_nothing and code == exit_codes.DELETIONS_STOPPED),
            is_superseded=transfer.superseded,
            is_explained=self._beside.refused.explain(transfer.stderr),
            was_warm=transfer.was_warm,
            fed_for=None if transfer.names_sent_at is None else self._loop.clock() - transfer.names_sent_at,
            has_warm=self._beside.warm.has_connected,
            has_comparison=self._beside.comparisons.is_running,
            has_other_lane=self._beside.lanes.other(run.batch.lane) is not None,
            is_ending=self._is_ending,
        )

    def _failed(self, run: BatchRun, transfer: Transfer, outcome: Outcome, code: int, failure: Then) -> None:
        run.failed(outcome, code, transfer.names_sent_at is not None)
        if transfer.abort_reason or code in exit_codes.NO_CONNECTION:
            self._beside.ssh_master.distrust()
        match failure:
            case Then.RETRY_COLD:
                pass
            case Then.RETRY_WITHOUT_WARM:
                self._tries.refused_beside_warm = outcome.reason
                self._beside.warm.end_all()
                self._set_retry(YIELD_SECONDS)
            case Then.RETRY_WITHOUT_COMPARISON:
                self._beside.comparisons.fail("ended: its connection may have stood in the way of a batch")
                self._set_retry(YIELD_SECONDS)
            case Then.RETRY_ALONE:
                self._beside.lanes.alone_until = self._loop.clock() + ALONE_SECONDS
            case _:
                assert outcome.retry is not None
                self._tries.refused_beside_warm = ""
                self._back_off(run, outcome.retry, code, transfer.abort_reason or outcome.reason)

    def _back_off(self, run: BatchRun, kind: ExitKind, code: int, reason: str) -> None:
        if run.batch.lane is Lane.SECOND:
            run.give_up(code, reason)
            return
        tries = self._tries
        tries.failures += 1
        (first, longest), is_hopeless = self._job.retry, kind is ExitKind.SLOW
        pause = backoff.delay(tries.failures, longest if is_hopeless else first, longest, self._rand())
        self._set_retry(pause)
        tries.needs_slot = run.batch.heavy
        self._beside.title.transfer_ended()
        reason = shortened(reason, MAX_REASON_BYTES)
        self._report(Failed(run.batch.id, tries.failures, code, reason, pause, is_hopeless))

    def _report_done(self, run: BatchRun) -> None:
        batch, results = run.batch, run.results
        path = os.path.join(self._job.spool, f"due-{os.getpid()}-{batch.id}")
        results.outdated += self._renames.harmed()
        left, held = without_excess(results.leftovers(), results.held)
        payload, file = packed(left, path)
        self._beside.hooks.synced(results.arrived)
        run.end()
        self._run = None
        if batch.lane is Lane.FIRST:
            self._beside.title.transfer_ended()
        self._report(
            Done(
                batch.id,
                seconds=self._loop.clock() - run.started_at,
                code=results.code,
                reason=shortened(results.worry, MAX_REASON_BYTES),
                payload=payload,
                file=file,
                held=held,
                cut_off=run.interrupted,
                bytes=results.bytes,
                renamed_bytes=self._renames.bytes,
                rename_problem=shortened(self._renames.problem, MAX_PROBLEM_BYTES),
            )
        )

    def report_through(self) -> None:
        """Report that the node has all of the batch, if that is certain before its last rsync has ended."""
        run, transfer = self._run, self._transfer
        if run is None or transfer is None or self._tries.is_through or not transfer.is_through:
            return
        fed_at = transfer.names_sent_at
        was_ended = transfer.superseded or transfer.abort_reason
        if fed_at is None or was_ended or self._question is not None or run.has_more:
            return
        self._tries.is_through = True
        if self._renames.have_run or self._beside.outdated.is_any_after(run.part, run.names, fed_at):
            return
        if transfer_end.decide(self._view(run, transfer, 0, Outcome())) is Then.DONE:
            self._report(Through(run.batch.id))

    def report_progress(self) -> None:
        """Report how far a full mirror, or a big file, has come, if that has changed."""
        run, transfer = self._run, self._transfer
        if run is None or transfer is None:
            return
        is_first = run.batch.lane is Lane.FIRST
        percent = transfer.percent if is_first else transfer.byte_percent
        if percent is None or percent == self._percent or (is_first and not run.part.full):
            return
        self._percent = percent
        if is_first:
            self._beside.title.transferring(run.part, run.batch.count, percent)
        self._report(Progress(run.batch.id, percent))


def _is_answered(code: int, question: DryRun) -> bool:
    """Whether a node has said what it lacks, or would not say so in another try, either."""
    if question.has_too_many or compat.refused_by_daemon(question.transfer.stderr):
        return True
    is_through = exit_codes.exit_kind(code) in (ExitKind.OK, ExitKind.PARTIAL)
    was_asked = question.transfer.names_sent_at is not None
    return is_through and was_asked and not question.transfer.abort_reason


def _outcome(run: BatchRun, transfer: Transfer, code: int, job: Job) -> Outcome:
    sent = tuple(run.current.send)
    missing = frozenset(run.current.missing)
    ended = Run(run.part, sent, code, transfer.stderr, transfer.stdout, transfer.is_truncated, missing)
    settings = job.trees[run.part.tree]
    outcome = judge(ended, replace(settings, source=run.frozen_source or settings.source))
    if outcome.retry is None and transfer.names_sent_at is None:  # whatever it did was nothing of the part
        return Outcome(ExitKind.RETRY, outcome.reason or "rsync ended before it was told what to do")
    return outcome
