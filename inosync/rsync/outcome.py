"""What the end of one run of rsync means for the batch that it was part of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from inosync.messages import Part
from inosync.rsync import errors, exit_codes
from inosync.rsync.argv import TransferSettings
from inosync.rsync.exit_codes import ExitKind

# With these rsync ends before it has written anything on the node.
_TOO_EARLY = (1, 3, 4, 5, 35)
# A file that could not be written ends it, too: there is no room for it, for instance.
_FILE_IO = 11


@dataclass(frozen=True, slots=True)
class Run:
    """A run of rsync that has ended."""

    part: Part
    """What it was for ..."""
    sent: tuple[bytes, ...]
    """... and the names that were made of it; none for FULL."""
    code: int
    """Its exit code, negative for death by a signal."""
    stderr: Sequence[bytes]
    stdout: Sequence[bytes]
    cut: bool = False
    """Whether it said more than what was kept."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What follows from it."""

    retry: ExitKind | None = None
    """RETRY or SLOW: the part is to be tried again, soon or late; None: it is through."""
    reason: str = ""
    """Why it is to be tried again, or what is still due; empty after a success."""
    untidy: bool = False
    """Whether rsync may have left temporary files on the node."""
    due: tuple[Part, ...] = ()
    """What stays due although the part is through, or is not to be tried again with it."""
    instead: tuple[Part, ...] = ()
    """What is to be run next in the place of the part: at once, or when that is to be tried again."""


def judge(run: Run, settings: TransferSettings) -> Outcome:
    """The meaning of a run, by its exit code and by what rsync said."""
    kind = exit_codes.exit_kind(run.code)
    if kind is ExitKind.OK:
        return Outcome()
    reason = errors.reason(run.stderr) or exit_codes.describe(run.code)
    if kind is ExitKind.PARTIAL:
        return _partial(run, settings, reason)
    if not run.part.full and errors.target_missing(run.stderr):
        # A batch does not make the tree's directory on the node, and cannot know what else it lacks.
        return Outcome(instead=(replace(run.part, full=True, names=()),))
    if run.code == _FILE_IO and not run.part.full:
        return _put_aside(run, settings, reason)
    if errors.source_moved(run.stderr):
        kind = ExitKind.RETRY
    return Outcome(kind, reason, untidy=run.code not in _TOO_EARLY)


def _put_aside(run: Run, settings: TransferSettings, reason: str) -> Outcome:
    """Let what does not fit wait by itself; the rest is tried again with backoff: it may not fit either."""
    tree = run.part.tree
    aside = errors.unwritten(run.stderr, settings.source, run.sent, settings.target)
    due = (Part(tree, False, tuple(sorted(aside))),) if aside else ()
    rest = tuple(name for name in run.sent if name not in aside)
    if not rest:
        return Outcome(reason=reason, due=due)
    instead = (replace(run.part, names=rest),) if due else ()
    # The receiver removes the file that did not fit before it ends.
    return Outcome(ExitKind.RETRY, reason, due=due, instead=instead)


def _partial(run: Run, settings: TransferSettings, reason: str) -> Outcome:
    tree, source, target = run.part.tree, settings.source, settings.target
    stdout = None if run.cut or _is_quiet(settings.extra) else run.stdout
    if run.part.full:
        found = errors.after_full(run.stderr, source, target, stdout)
    else:
        found = errors.after_batch(run.stderr, source, run.sent, target, stdout)
    reason = found.reason or reason
    if found.whole or run.cut:
        return Outcome(reason=reason, due=(_all(run),))
    clouded = set(found.clouded)
    # Retried together with the name that clouds them, their deletions would be left out for ever.
    instead = (replace(run.part, names=found.clouded),) if clouded and clouded != set(run.sent) else ()
    due = tuple(name for name in found.due if not instead or name not in clouded)
    due_part = Part(tree, False, due, ignore_times=run.part.ignore_times)
    return Outcome(reason=reason, due=(due_part,) if due else (), instead=instead)


def _all(run: Run) -> Part:
    return (
        run.part
        if run.part.full
        else Part(run.part.tree, False, run.sent, ignore_times=run.part.ignore_times)
    )


def _is_quiet(extra: Sequence[str]) -> bool:
    """Whether rsync may be told to print nothing; a word too many costs no more than a larger retry."""
    short = (word for word in extra if word.startswith("-") and not word.startswith("--"))
    return "--quiet" in extra or any("q" in word for word in short)
