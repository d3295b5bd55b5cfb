"""Decides what follows the end of one run of rsync for the batch that it was part of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from inosync.changes import Part, Step
from inosync.rsync import errors, exit_codes, stderr
from inosync.rsync.argv import TransferSettings
from inosync.rsync.exit_codes import ExitKind

_BEFORE_WRITING = (1, 3, 4, 5, 35)
"""Exit codes of an rsync that has written nothing on the node."""
_FILE_IO = 11
"""For instance, there was no room for a file."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run of rsync that has ended."""

    part: Part
    sent: tuple[bytes, ...]
    """The names that were sent for the part; none for a full mirror."""
    code: int
    """The exit code, negative for death by a signal."""
    stderr: Sequence[bytes]
    stdout: Sequence[bytes]
    is_truncated: bool = False
    """Whether it printed more than was kept."""
    missing: frozenset[bytes] = frozenset()
    """The names among ``sent`` that were not there any more."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What follows a run."""

    retry: ExitKind | None = None
    """RETRY or SLOW: try the part again, soon or late; None: the part is done."""
    reason: str = ""
    """Why it is tried again, or why something is still due; empty after a success."""
    untidy: bool = False
    """Whether rsync may have left temporary files on the node."""
    due: tuple[Part, ...] = ()
    """What stays due and is not part of the next try."""
    instead: tuple[Part, ...] = ()
    """What is run in place of the part: at once, or when the part would be tried again."""


def judge(run: Run, settings: TransferSettings) -> Outcome:
    kind = exit_codes.exit_kind(run.code)
    if kind is ExitKind.OK:
        if not stderr.leaves_undone(run.stderr):
            return Outcome()
        kind = ExitKind.PARTIAL
    reason = stderr.failure_reason(run.code, run.stderr)
    if kind is ExitKind.PARTIAL:
        return _partial(run, settings, reason)
    if not run.part.full and errors.target_missing(run.stderr):
        # A batch neither makes the tree's directory on the node nor knows what else the node lacks.
        return Outcome(instead=(replace(run.part, full=True, names=(), step=Step.CHANGED),))
    if run.code == _FILE_IO and not run.part.full:
        return _put_aside(run, settings, reason)
    if errors.source_moved(run.stderr):
        kind = ExitKind.RETRY
    return Outcome(kind, reason, untidy=run.code not in _BEFORE_WRITING)


def _put_aside(run: Run, settings: TransferSettings, reason: str) -> Outcome:
    """Let what does not fit wait by itself; try the rest again with backoff: it may not fit either."""
    aside = errors.unwritten(run.stderr, settings.source, run.sent, settings.target)
    due = (_names(run, tuple(sorted(aside))),) if aside else ()
    rest = tuple(name for name in run.sent if name not in aside)
    if not rest:
        return Outcome(reason=reason, due=due)
    instead = (replace(run.part, names=rest),) if due else ()
    # The receiver removes the file that did not fit before it ends.
    return Outcome(ExitKind.RETRY, reason, due=due, instead=instead)


def _partial(run: Run, settings: TransferSettings, reason: str) -> Outcome:
    source, target = settings.source, settings.target
    stdout = None if run.is_truncated or _may_be_quiet(settings.extra) else run.stdout
    if run.part.full:
        found = errors.after_full(run.stderr, source, target, stdout)
    else:
        found = errors.after_batch(run.stderr, source, run.sent, target, stdout)
    reason = found.reason or reason
    if found.whole or run.is_truncated:
        return Outcome(reason=reason, due=(run.part if run.part.full else _names(run, run.sent),))
    # What is gone here and cannot be on the node is done; it would fail in each try to come.
    done = run.missing.intersection(found.unconvertible)
    # Retried together with the name that clouds them, their deletions would be left out for ever.
    again = set(found.clouded) if set(found.clouded) != set(run.sent) else set()
    done |= again
    undeleted = {name for name in found.undeleted if errors.relist_of_parent(name) not in run.sent}
    parents = set(map(errors.relist_of_parent, undeleted))
    again |= parents
    done |= undeleted
    instead: tuple[Part, ...] = ()
    if again:
        instead = (replace(run.part, names=tuple(sorted(again)), ignore_times=False),)
    if in_the_way := undeleted.intersection(found.in_the_way) - run.missing:
        # rsync does not make a directory writable that it replaces by a symlink, but one that it does not
        # find in a listing (atomic_create and delete_in_dir in its generator.c).
        gone = replace(instead[0], names=tuple(sorted(parents)), step=Step.REMOVED)
        instead = (replace(gone, make_way=tuple(sorted(in_the_way))), *instead)
    due = tuple(name for name in found.due if name not in done)
    if done and not due:
        return Outcome(instead=instead)
    return Outcome(reason=reason, due=(_names(run, due),) if due else (), instead=instead)


def _names(run: Run, names: tuple[bytes, ...]) -> Part:
    part = run.part
    return Part(
        part.tree, False, names, ignore_times=part.ignore_times, step=step_of_failed(part), again=part.again
    )


def step_of_failed(part: Part) -> Step:
    """Return the step of names of a part that have failed. A full mirror sends new names and others."""
    return Step.UNKNOWN if part.full else part.step


def _may_be_quiet(extra: Sequence[str]) -> bool:
    """Whether rsync may be told to print nothing. A wrong yes costs no more than a larger retry."""
    short = (word for word in extra if word.startswith("-") and not word.startswith("--"))
    return "--quiet" in extra or any("q" in word for word in short)
