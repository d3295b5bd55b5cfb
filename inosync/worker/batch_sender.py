"""Sends batches, one transfer after another. What fails is tried again, and the result is reported."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from inosync.changes import Lane, Part, Step
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
from inosync.rsync import exit_codes, stdout
from inosync.rsync.dry_run import DryRun
from inosync.rsync.exit_codes import ExitKind
from inosync.rsync.outcome import Outcome, Run, judge
from inosync.rsync.transfer import Transfer
from inosync.system.loop import Loop, Timer
from inosync.text import shortened
from inosync.worker import removals, renamed, transfer_end
from inosync.worker.batch_run import BatchRun
from inosync.worker.beside import Beside
from inosync.worker.job import Job
from inosync.worker.lanes import ALONE_SECONDS
from inosync.worker.leftovers import packed, without_excess
from inosync.worker.rename_runs import RenameRuns
from inosync.worker.transfer_end import Then, TransferEnd
from inosync.worker.transfer_start import TransferStarter
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
        self._starter = TransferStarter(job, beside, self._renames)
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
        """Start a transfer. One that cannot start has failed."""
        self._tries.first_lane_transfers = self._beside.lanes.transfers
        start = self._starter.start(run)
        self._transfer, self._question = start.transfer, start.question
        if start.is_held:
            self._tries.failures = 0  # the other trees go on
        elif start.problem:
            self._back_off(run, start.kind, 0, start.problem)

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
        outcome = self._judge(run, transfer, code, question)
        then = transfer_end.decide(self._view(run, transfer, code, outcome))
        fed_at, renames = transfer.names_sent_at, self._renames
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
                self._rename_followed(run, transfer, code)
            case Then.DONE if question is not None:
                self._answered(run, question)
            case Then.DONE:
                self._came_through(run, transfer, outcome, code)
            case _ if renames.is_running and renames.is_given_up(code, transfer):
                if fed_at is not None:
                    run.superseded(was_fed=True)
            case failure:
                self._failed(run, transfer, outcome, code, failure)
        renames.end_run()
        if not self._is_ending or not run.parts:
            self._send_next(run)

    def _judge(self, run: BatchRun, transfer: Transfer, code: int, question: DryRun | None) -> Outcome:
        """What the end of a transfer means for the part, or for the renames before it."""
        if self._renames.is_running:
            self._renames.note_sent(self._loop.clock())
            return self._renames.outcome(code, transfer)
        if question is not None and question.is_answered(code):
            return Outcome()
        self._beside.sent.ended(run.part, run.current.send, self._loop.clock())
        return _outcome(run, transfer, code, self._job)

    def _rename_followed(self, run: BatchRun, transfer: Transfer, code: int) -> None:
        fed_at = transfer.names_sent_at
        assert fed_at is not None
        _, made = renamed.without(run.parts, run.part.tree, self._renames.done(code, transfer))
        for part in made:
            run.results.outdated += self._beside.outdated.after(part, part.names, fed_at)

    def _came_through(self, run: BatchRun, transfer: Transfer, outcome: Outcome, code: int) -> None:
        """The part is on the node, but for what the outcome says: note what that tells of the node."""
        fed_at = transfer.names_sent_at
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
        missing = len(run.current.missing.intersection(run.current.send))
        if (names := run.replacing) and stdout.equal_files(transfer.stdout, missing):
            run.results.outdated.append(Part(run.part.tree, False, names, ignore_times=True))
        self._measure(transfer, fed_at)
        was_crossed = self._tries.first_lane_transfers != self._beside.lanes.transfers
        if run.batch.lane is Lane.SECOND and was_crossed:
            run.look_at_directories()
        run.came_through(outcome, code)
        self._tries.failures = 0

    def _answered(self, run: BatchRun, question: DryRun) -> None:
        self._beside.ssh_master.node_reached()
        self._tries.failures = 0
        tree = run.part.tree
        if names := run.uncounted:
            further, allowance = question.count - len(question.lines), run.part.allowance
            count = removals.removed(question.differences, further)
            source, excluded = self._job.trees[tree].source, self._job.excluded[tree]
            if allowance is None or removals.are_allowed(count, allowance, source, excluded):
                run.allow_removals()
            else:
                self._report(TooManyRemovals(tree, count, removals.place(names)))
                run.hold_part()
            return
        lacking = {found.path: found.is_link for found in question.differences if found.missing}
        is_all = not (question.has_too_many or question.reason)
        try:
            run.take_answer(lacking, is_all, self._job.trees[tree].source, self._beside.calls.big_size(tree))
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
        run.remove_copies()
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
        # Only at its end rsync says whether it has taken a file for equal.
        is_uncertain = self._renames.have_run or run.replacing
        if is_uncertain or self._beside.outdated.is_any_after(run.part, run.names, fed_at):
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


def _outcome(run: BatchRun, transfer: Transfer, code: int, job: Job) -> Outcome:
    sent = tuple(run.current.send)
    missing = frozenset(run.current.missing)
    ended = Run(run.part, sent, code, transfer.stderr, transfer.stdout, transfer.is_truncated, missing)
    settings = job.trees[run.part.tree]
    if run.frozen_source:
        settings = replace(settings, source=run.frozen_source)
    outcome = judge(ended, settings)
    if outcome.retry is None and transfer.names_sent_at is None:  # whatever it did was nothing of the part
        return Outcome(ExitKind.RETRY, outcome.reason or "rsync ended before it was told what to do")
    return outcome
