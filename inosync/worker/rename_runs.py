"""Follows renames on the node before a part is sent: the new name is made from what is there at the old one.

What fails of it is sent, as if there were no hints. The part itself removes the old name afterwards.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from inosync.filters.rules import Rules
from inosync.messages import WORTHWHILE_BYTES, Part, Rename, Step
from inosync.rsync import argv, exit_codes, stdout
from inosync.rsync.argv import EVERYTHING, RenameWay, renames_at_root
from inosync.rsync.exit_codes import ExitKind
from inosync.rsync.options import one_file_system
from inosync.rsync.outcome import Outcome
from inosync.rsync.renames import are_position_free, is_plain, may_follow, may_link, needs_anchor
from inosync.rsync.stderr import failure_reason, leaves_undone
from inosync.rsync.target import Transport, transport
from inosync.rsync.transfer import Transfer
from inosync.worker.batch_run import BatchRun
from inosync.worker.calls import RsyncCalls
from inosync.worker.job import Job
from inosync.worker.lanes import directory_of
from inosync.worker.order import directories_for
from inosync.worker.refused_options import RefusedOptions

MAX_RUNS = 16
"""Renames that are followed for one part; of more the largest, because each costs a run of rsync."""
MAX_LISTED = 50_000
"""Entries of directories that are looked at for one part; given to rsync one by one where rules need that."""
MAX_MEASURED = 5_000
"""Entries of one directory that are looked at to find out how large it is."""
MAX_TRIES = 2
"""Tries of a run that is ended by an error of the connection, although it was there a moment before."""
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(slots=True)
class RenameStep:
    """A rename that is worth a run."""

    rename: Rename
    names: tuple[bytes, ...]
    """What rsync is given: relative to the new directory, or to the one that a new file is in."""
    whole: bool
    """As in ``RenameWay``."""
    directory: tuple[int, int]
    """Device and inode of that directory."""
    bytes: int
    """About how much is in it."""
    at_root: bool = False
    """``argv.renames_at_root``."""
    deletes: bool = False
    """As in ``RenameWay``."""
    tries: int = 0


class RenameRuns:
    """The runs for one part after the other."""

    def __init__(self, job: Job, calls: RsyncCalls, refused: RefusedOptions) -> None:
        self._job, self._calls, self._refused = job, calls, refused
        self._tree = 0
        """The tree of the part at work."""
        self._steps: list[RenameStep] = []
        """What is still to be done before the part. The first one is at work."""
        self._planned: dict[tuple[Rename, ...], list[RenameStep]] = {}
        """The steps for renames whose new directories are made first."""
        self._complete: list[RenameStep] = []
        """Those that have left nothing to send."""
        self._entries_left = 0
        """How many entries of directories may still be looked at for the part."""
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
            steps = self._plan(renames, part)
            directories = directories_for(step.rename for step in steps if not step.at_root)
            if directories and not _are_there(self._calls.settings(part.tree).target, directories):
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
        way = RenameWay(links, step.whole, self._refused.needs_anchor, step.deletes)
        transfer = self._calls.start_rename(tree, step.rename, way)

        def is_in_place() -> bool:
            found = transfer.directory_status
            return (found.st_dev, found.st_ino) == step.directory

        transfer.send_when_connected(argv.names_input(step.names), is_in_place)
        return transfer

    # The end of a run --------------------------------------------------------------------------------

    def outcome(self, code: int, transfer: Transfer) -> Outcome:
        """What the end of a run would mean for the part, if it were not given up."""
        kind = exit_codes.exit_kind(code)
        if kind in (ExitKind.OK, ExitKind.PARTIAL) and transfer.names_sent_at is not None:
            return Outcome()
        why = failure_reason(code, transfer.stderr)
        return Outcome(ExitKind.RETRY, why, untidy=transfer.names_sent_at is not None)

    def done(self, code: int, transfer: Transfer) -> dict[bytes, bool]:
        """A run has come through; return what it has left nothing to send of (``order.without_renamed``)."""
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

    # What is worth it --------------------------------------------------------------------------------

    def _plan(self, renames: tuple[Rename, ...], part: Part) -> list[RenameStep]:
        """What is worth a run of renames, in their order."""
        settings = self._calls.settings(part.tree)
        if not self._refused.follows_renames() or not may_follow(settings):
            return []
        replaced = {rename.old for rename in renames}
        steps: list[RenameStep] = []
        self._entries_left = MAX_LISTED
        try:
            root = os.open(settings.source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return []
        try:
            for rename in renames:
                # The node has something else there, which only hard links replace.
                links = rename.is_directory and not _is_there(rename.old, root)
                if is_plain(settings.target, rename) and (links or rename.new not in replaced):
                    with contextlib.suppress(OSError):
                        steps += self._measured(rename, part.tree, root)
        finally:
            os.close(root)
        steps = [step for step in steps if step.bytes >= WORTHWHILE_BYTES]
        chosen = sorted(steps, key=lambda step: -step.bytes)[:MAX_RUNS]
        for step in chosen:
            below = step.rename.new + b"/"
            # Another one may need what the node has below the new name, and what is not here may be led to.
            is_free = part.step is Step.NEW and not any(old.startswith(below) for old in replaced)
            step.deletes = step.whole and is_free
        return [step for step in steps if step in chosen]

    def _measured(self, rename: Rename, tree: int, root: int) -> list[RenameStep]:
        """The step for a rename; none if it cannot be followed. OSError if the new name is not there."""
        rules, settings = self._job.rules[tree], self._job.trees[tree]
        if any(rules.excluded_below(path, rename.is_directory) for path in (rename.old, rename.new)):
            return []
        above, _, name = rename.new.rpartition(b"/")
        directory = _open_below(root, rename.new if rename.is_directory else above)
        try:
            status = os.fstat(directory)
            place = status.st_dev, status.st_ino
            device = os.fstat(root).st_dev if one_file_system(settings.extra) else None
            if device not in (None, status.st_dev):
                return []
            if not rename.is_directory:
                file = os.lstat(name, dir_fd=directory)
                size = file.st_size if stat.S_ISREG(file.st_mode) else 0
                at_root = renames_at_root(settings.target, rename)
                if at_root:
                    name, status = rename.new, os.fstat(root)
                    place = status.st_dev, status.st_ino
                return [RenameStep(rename, (name,), False, place, size, at_root)]
            whole = are_position_free(rules.rules)
            if not whole and transport(settings.target) is Transport.LOCAL:
                return []  # names cannot be confined to the tree there: see ``options.confinable``
            listing = _listing(directory, rename.new, rules, device)
            entries = list(
                islice(listing, min(self._entries_left, MAX_MEASURED) if whole else self._entries_left)
            )
            self._entries_left -= len(entries)
            if not whole and next(listing, None):
                return []
            names = EVERYTHING if whole else tuple(entry.path for entry in entries)
            return [RenameStep(rename, names, whole, place, sum(entry.size for entry in entries))]
        finally:
            os.close(directory)

    # Hard links that would stay ----------------------------------------------------------------------

    def harmed(self) -> list[Part]:
        """What has to be sent once more, because a file had two names on the node for a while.

        An old name may be there again, and was not removed. Then the two names are one inode on the node,
        although they are two here: later a change of the attributes of one would be a change of both.

        An rsync without root makes a file writable before it removes it (``delete_item`` in its delete.c).
        Then all names of the file are writable.
        """
        parts = []
        for tree, rename in self._linked:
            settings, rules = self._job.trees[tree], self._job.rules[tree]
            removes_as_root = transport(settings.target) is Transport.LOCAL and os.geteuid() == 0
            with contextlib.suppress(OSError):
                names = tuple(_alike(settings.source, rename, rules))
                parts += [Part(tree, False, names, ignore_times=True)] if names else []
            if not removes_as_root:
                with contextlib.suppress(OSError):
                    names = tuple(_write_protected(settings.source, rename, rules))
                    parts += [Part(tree, False, names)] if names else []
        return parts


@dataclass(frozen=True, slots=True)
class _Entry:
    path: bytes
    """Relative to the directory that is listed."""
    size: int
    """Of a regular file; else 0."""
    is_directory: bool
    time: int
    """When it was modified, in nanoseconds."""
    is_write_protected: bool
    """Whether it is a regular file that its owner may not write to."""


def _listing(directory: int, path: bytes, rules: Rules, device: int | None) -> Iterator[_Entry]:
    """What is below an open directory, which has this path in the tree, and is not excluded.

    With ``device`` nothing on other file systems. What cannot be read is left out.
    """
    waiting = [b""]
    while waiting:
        above = waiting.pop()
        try:
            own = os.open(above or b".", _OPEN, dir_fd=directory)
        except OSError:
            continue
        try:
            with os.scandir(own) as entries:
                for entry in entries:
                    name = os.fsencode(entry.name)
                    below = above + b"/" + name if above else name
                    is_directory = entry.is_dir(follow_symlinks=False)
                    if rules.excluded(path + b"/" + below, is_directory):
                        continue
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except OSError:
                        continue
                    if is_directory and device in (None, status.st_dev):
                        waiting.append(below)
                    size = status.st_size if stat.S_ISREG(status.st_mode) else 0
                    yield _Entry(below, size, is_directory, status.st_mtime_ns, _is_write_protected(status))
        finally:
            os.close(own)


def _is_write_protected(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and not status.st_mode & stat.S_IWUSR


def _are_there(target: str, directories: tuple[bytes, ...]) -> bool:
    """Whether a node, if it is a local one, has these directories already."""
    if transport(target) is not Transport.LOCAL:
        return False
    with contextlib.suppress(OSError):
        places = (os.path.join(os.fsencode(target), path) for path in directories)
        return all(stat.S_ISDIR(os.lstat(place).st_mode) for place in places)
    return False


def _open_below(root: int, path: bytes) -> int:
    """Open a directory below an open one, following no symlink. OSError if it is not there."""
    found = os.dup(root)
    for name in path.split(b"/") if path else ():
        above, found = found, -1
        try:
            found = os.open(name, _OPEN, dir_fd=above)
        finally:
            os.close(above)
    return found


def _is_there(path: bytes, root: int) -> bool:
    try:
        os.lstat(path, dir_fd=root)
    except OSError:
        return False
    return True


def _alike(source: str, rename: Rename, rules: Rules) -> Iterator[bytes]:
    """Names at the old path that rsync takes for the files at the new one. OSError if there is none."""
    with _opened(source) as root:
        if not rename.is_directory:
            old, new = (os.lstat(path, dir_fd=root) for path in (rename.old, rename.new))
            if (old.st_size, old.st_mtime_ns) == (new.st_size, new.st_mtime_ns):
                yield rename.old
            return
        for entry in _entries(root, rename.old, rules):
            if entry.is_directory:
                continue
            with contextlib.suppress(OSError):
                new = os.lstat(rename.new + b"/" + entry.path, dir_fd=root)
                if stat.S_ISREG(new.st_mode) and (entry.size, entry.time) == (new.st_size, new.st_mtime_ns):
                    yield rename.old + b"/" + entry.path


def _write_protected(source: str, rename: Rename, rules: Rules) -> Iterator[bytes]:
    """Files at the new path that their owner may not write to. OSError if there is nothing."""
    with _opened(source) as root:
        if not rename.is_directory:
            if _is_write_protected(os.lstat(rename.new, dir_fd=root)):
                yield rename.new
            return
        for entry in _entries(root, rename.new, rules):
            if entry.is_write_protected:
                yield rename.new + b"/" + entry.path


@contextlib.contextmanager
def _opened(source: str) -> Iterator[int]:
    root = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield root
    finally:
        os.close(root)


def _entries(root: int, path: bytes, rules: Rules) -> Iterator[_Entry]:
    """What is below a directory of the tree. OSError if it is not there."""
    directory = _open_below(root, path)
    try:
        yield from _listing(directory, path, rules, None)
    finally:
        os.close(directory)
