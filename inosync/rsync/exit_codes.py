"""What an exit code of rsync means: EXIT VALUES in rsync(1); 126, 127 and 255 are of a shell or of ssh."""

from __future__ import annotations

import enum
import signal
from collections.abc import Iterable


class ExitKind(enum.Enum):
    """What is to follow an exit code."""

    OK = "ok"
    PARTIAL = "partial"
    """What could be transferred has been; the names that rsync complained of stay due."""
    RETRY = "retry"
    """Nothing is certain: try the same again, with backoff."""
    SLOW = "slow"
    """It will hardly get better by itself: try the same again, at the longest backoff."""


_KINDS = {0: ExitKind.OK, 23: ExitKind.PARTIAL, 24: ExitKind.PARTIAL, 25: ExitKind.PARTIAL}
_KINDS |= dict.fromkeys((1, 2, 3, 4), ExitKind.SLOW)

DELETIONS_STOPPED = 25
"""rsync found more to delete than --max-delete allows."""
_DELETIONS_STOPPED_LINE = b"Deletions stopped due to --max-delete limit"
REFUSED = 5
"""A daemon refused the connection; perhaps it takes no more of them."""
TIMEOUT = 30
NO_CONNECTION = frozenset({5, 10, 12, 35, 255})
"""Exit codes of an rsync that may not have got a connection at all."""

_DESCRIPTIONS = {
    0: "done",
    1: "rsync refused its arguments",
    2: "protocols of the two rsyncs do not fit",
    3: "files or directories could not be selected",
    4: "the node's rsync cannot do what was asked",
    5: "the rsync daemon refused the connection",
    6: "rsync could not write its log",
    10: "connection failed",
    11: "error in file I/O",
    12: "connection broke off",
    13: "error in rsync's messages",
    14: "error between rsync's processes",
    19: "rsync got SIGUSR1",
    20: "rsync was interrupted",
    21: "rsync lost a child process",
    22: "rsync is out of memory",
    23: "not everything was transferred",
    24: "files vanished during the transfer",
    25: "--max-delete stopped deletions",
    30: "timeout",
    35: "timeout while connecting",
    126: "rsync cannot be run on the node",
    127: "rsync was not found on the node",
    255: "connection failed",
}


def actual_code(code: int, stderr: Iterable[bytes]) -> int:
    """Return the exit code that a run should have had, given its standard error.

    An rsync that talks to a daemon exits with 0 when --max-delete stopped the daemon, and only says so.
    """
    if code == 0 and any(line.strip().startswith(_DELETIONS_STOPPED_LINE) for line in stderr):
        return DELETIONS_STOPPED
    return code


def exit_kind(code: int) -> ExitKind:
    """Return the kind of an exit code; a negative one is the number of the signal that killed rsync.

    Death and unknown codes are failures: to count them as done would lose data.
    """
    return _KINDS.get(code, ExitKind.RETRY)


def describe(code: int) -> str:
    """A phrase for the operator, for when rsync itself said nothing: "connection failed (exit 255)"."""
    if code < 0:
        return f"killed by {_signal_name(-code)}"
    return f"{_DESCRIPTIONS.get(code, 'rsync failed')} (exit {code})"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals between SIGRTMIN and SIGRTMAX have no name
        return f"signal {number}"
