"""Follows renames on the node before a part is sent: the new name is made from what is there at the old one.

What fails of it is sent, as if there were no hints. The part itself removes the old name afterwards.
"""

from __future__ import annotations

import os

from inosync.changes import Part, Rename
from inosync.rsync import argv, exit_codes, stdout
from inosync.rsync.argv import RenameWay
from inosync.rsync.exit_codes import ExitKind
from inosync.rsync.outcome import Outcome
from inosync.rsync.renames import may_follow, may_link, needs_anchor
from inosync.rsync.stderr import failure_reason, leaves_undone
from inosync.rsync.target import Transport, transport
from inosync.rsync.transfer import Transfer
from inosync.worker import rename_plan
from inosync.worker.batch_run import BatchRun
from inosync.worker.calls import RsyncCalls
from inosync.worker.job import Job
from inosync.worker.lanes import directory_of
from inosync.worker.refused_options import RefusedOptions
from inosync.worker.rename_plan import RenameStep
from inosync.worker.renamed import directories_for
from inosync.worker.sent_directories import SentDirectories

MAX_TRIES = 2
"""Tries of a run that is ended by an error of the connection, although it was there a moment before."""


class RenameRuns:
    """The runs for one part after the other."""

    def __init__(self, job: Job, calls: RsyncCalls, refused: RefusedOptions, sent: SentDirectories) -> None:
        self._job, self._calls, self._refused, self._sent = job, calls, refused, sent
        self._tree = 0
        """The tree of the part at work."""
        self._steps: list[RenameStep] = []
        """What is still to be done before the part. The first one is at work."""
        self._planned: dict[tuple[Rename, ...], list[RenameStep]] = {}
        """The steps for renames whose new directories are made first."""
        self._complete: list[RenameStep] = []
        """Those that have left nothing to send."""
        self.is_running = False
        """Whether the transfer that runs, or has just ended, is one of these."""
        self._is_cut_off = False
        """Whether an earlier worker may have made hard links for this batch."""
        self._linked: list[tuple[int, Rename]] = []
        """Renames after which files may share an inode on the node until the old name is removed."""
        self.bytes = 0
        """What was not sent because of renames, in this batch."""
        self.problem = ""
        """Why a rename was not followed."""

    def begin_batch(self, is_cut_off: bool) -> None:
        """Forget the batch before. ``is_cut_off``: whether an earlier transfer was killed."""
        self._steps, self._linked, self._is_cut_off = [], [], is_cut_off
        self._planned, self._complete = {}, []
        self.bytes, self.problem = 0, ""

    @property
    def have_run(self) -> bool:
        """Whether any belongs to the batch, after which more may have to be sent."""
        return self.is_running or bool(self._linked)

    def has_steps(self, tree: int) -> bool:
        """Whether something is still to be done before the first part, which is of this tree."""
        return tree == self._tree and bool(self._steps or self._complete)

    def start(self, run: BatchRun) -> Transfer | None:
        """Start the next run before the first part, or change that part; None if there is none."""
        part = run.part
        if part.tree != self._tree or part.renames:
            self._tree, self._steps, self._complete = part.tree, [], []
        if part.renames:
            self._take_steps(run)
        transfer = None
        while self._steps and transfer is None:
            try:
                transfer = self._start_step(part.tree)
            except OSError as error:  # something has changed meanwhile, or there are no processes left
                self._give_up(str(error))
        if transfer is None and self._complete:
            files = [step for step in self._complete if not (step.rename.is_directory or step.at_root)]
            entered = {directory_of(step.rename.new) for step in files} - {b""}
            run.leave_out({step.rename.new: step.deletes for step in self._complete}, entered)
            self._complete = []
        self.is_running = transfer is not None
        return transfer

    def _take_steps(self, run: BatchRun) -> None:
        """Take the steps for the renames of the first part, unless directories are to be made for them."""
        part, renames = run.part, run.take_renames()
        steps = self._planned.pop(renames, None)
        if steps is None:
            settings, rules = self._calls.settings(part.tree), self._job.rules[part.tree]
            may_run = self._refused.follows_renames() and may_follow(settings)
            steps = rename_plan.steps(part, renames, settings, rules) if may_run else []
            directories = directories_for(step.rename for step in steps if not step.at_root)
            if directories and not _are_there(settings.target, directories):
                followed = tuple(step.rename for step in steps)
                self._planned[followed] = steps
                run.make_directories(directories, followed)
                return
        self._steps = steps

    def _start_step(self, tree: int) -> Transfer:
        step = self._steps[0]
        settings = self._calls.settings(tree)
        source = os.fsencode(settings.source)
        is_again = os.path.lexists(os.path.join(source, step.rename.old))
        links = may_link(settings) and not is_again
        if links or self._is_cut_off:
            self._linked.append((tree, step.rename))
        # A file may take the place of one of the same size and time.
        compares = not step.rename.is_directory or self._sent.may_hide_others(tree, step.rename)
        way = RenameWay(links, step.whole, self._refused.needs_anchor, step.deletes, compares)
        transfer = self._calls.start_rename(tree, step.rename, way)

        def is_in_place() -> bool:
            found = transfer.directory_status
            return (found.st_dev, found.st_ino) == step.directory

        transfer.send_when_connected(argv.names_input(step.names), is_in_place)
        return transfer

    # The end of a run --------------------------------------------------------------------------------

    def note_sent(self, now: float) -> None:
        """The run that has ended may have sent something of the new directory."""
        self._sent.rename_ended(self._tree, self._steps[0].rename, now)

    def outcome(self, code: int, transfer: Transfer) -> Outcome:
        """What the end of a run would mean for the part, if it were not given up."""
        kind = exit_codes.exit_kind(code)
        if kind in (ExitKind.OK, ExitKind.PARTIAL) and transfer.names_sent_at is not None:
            return Outcome()
        why = failure_reason(code, transfer.stderr)
        return Outcome(ExitKind.RETRY, why, untidy=transfer.names_sent_at is not None)

    def done(self, code: int, transfer: Transfer) -> dict[bytes, bool]:
        """A run has come through; return what it has left nothing to send of (``renamed.without``)."""
        step = self._steps.pop(0)
        self.bytes += stdout.unsent_bytes(transfer.stdout)
        has_failed = code != 0 or leaves_undone(transfer.stderr) or transfer.is_truncated
        if has_failed or (step.rename.is_directory and not step.whole):
            return {}
        self._complete.append(step)
        return {step.rename.new: step.deletes}

    def is_given_up(self, code: int, transfer: Transfer) -> bool:
        """A run has failed: whether the part is sent without it. If not, it has failed with it."""
        target, kind = self._job.trees[self._tree].target, exit_codes.exit_kind(code)
        step = self._steps[0]
        if needs_anchor(transfer.stderr, target) and self._refused.anchor_paths():
            return True  # with the next call
        step.tries += 1
        if kind is ExitKind.RETRY and step.tries < MAX_TRIES and not transfer.cancelled:
            return False
        self._give_up(failure_reason(code, transfer.stderr))
        if kind is ExitKind.SLOW:
            self._refused.refuse_renames()
        return True

    def end_run(self) -> None:
        """What follows from the run that has ended is done."""
        self.is_running = False

    def _give_up(self, why: str) -> None:
        self._steps, self.problem = [], why

    def harmed(self) -> list[Part]:
        """Return what has to be sent once more, because a file had two names on the node for a while.

        An old name may be there again, and was not removed. Then the two names are one inode on the node,
        although they are two here: later a change of the attributes of one would be a change of both.

        An rsync without root makes a file writable before it removes it (``delete_item`` in its delete.c).
        Then all names of the file are writable.
        """
        parts = []
        for tree, rename in self._linked:
            settings, rules = self._job.trees[tree], self._job.rules[tree]
            if names := rename_plan.alike(settings, rename, rules):
                parts.append(Part(tree, False, names, ignore_times=True))
            removes_as_root = transport(settings.target) is Transport.LOCAL and os.geteuid() == 0
            if not removes_as_root and (names := rename_plan.write_protected(settings, rename, rules)):
                parts.append(Part(tree, False, names))
        return parts


def _are_there(target: str, directories: tuple[bytes, ...]) -> bool:
    """Return whether a node, if it is a local one, has these directories already."""
    if transport(target) is not Transport.LOCAL:
        return False
    places = (os.path.join(os.fsencode(target), path) for path in directories)
    return all(os.path.isdir(place) and not os.path.islink(place) for place in places)
