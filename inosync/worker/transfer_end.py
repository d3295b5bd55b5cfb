"""What follows from the end of a transfer for the batch that it was part of."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from inosync.rsync import exit_codes

STALE_SECONDS = 2.0
"""A warm rsync that fails so soon after it was fed met a connection that was dead before; that says nothing
about the node."""


class Then(enum.Enum):
    """What the worker does next."""

    NOTHING = "the worker is ending, and has ended the transfer"
    HOLD = "leave the part out, and report its tree as held"
    SAME_AGAIN = "send the part once more, at once"
    ADAPT = "send the part once more, at once, without what the node's rsync refuses"
    RETRY_COLD = "try again at once, with an rsync that connects anew"
    RETRY_WITHOUT_WARM = "try again as soon as the warm rsyncs have closed their connections"
    RETRY_WITHOUT_COMPARISON = "try again as soon as the comparison has closed its connection"
    RETRY_ALONE = "try again when the transfer of the other lane has ended"
    BACK_OFF = "report the failure, and try again after a pause"
    DONE = "go on with the next part"


@dataclass(frozen=True, slots=True)
class TransferEnd:
    """A transfer that has ended, and what else the worker has at that moment."""

    code: int  # rsync's exit code
    has_failed: bool  # the part has to be done again (``outcome.judge``)
    is_held: bool = False  # it was ended, or deleted nothing, because of what the root of its tree is
    is_superseded: bool = False  # the worker ended it in favour of another one
    is_explained: bool = False  # it failed because of an option that can be left out
    was_warm: bool = False  # it was connected before it was fed
    fed_for: float | None = None  # seconds since it was fed; None: it never was
    has_warm: bool = False  # other connections are kept to the node
    has_comparison: bool = False  # a comparison runs beside it
    has_other_lane: bool = False  # a transfer of the other lane does
    is_ending: bool = False  # the worker is ending


def decide(end: TransferEnd) -> Then:
    """The first row that applies; ``tests/unit/worker/test_transfer_end.py`` has them as a table."""
    if end.code != 0 and end.is_ending:
        return Then.NOTHING
    if end.is_held:
        return Then.HOLD
    if end.code != 0 and end.is_superseded:
        return Then.SAME_AGAIN
    if end.code != 0 and end.is_explained:
        return Then.ADAPT
    if not end.has_failed:
        return Then.DONE
    # The failure may be the fault of connections that were kept; then there is a try without them.
    if end.was_warm and end.fed_for is not None and end.fed_for < STALE_SECONDS:
        return Then.RETRY_COLD
    if end.code in exit_codes.NO_CONNECTION and end.has_warm:
        return Then.RETRY_WITHOUT_WARM
    if end.code in exit_codes.NO_CONNECTION and end.has_comparison:
        return Then.RETRY_WITHOUT_COMPARISON
    if end.code == exit_codes.REFUSED and end.fed_for is None and end.has_other_lane:
        return Then.RETRY_ALONE
    return Then.BACK_OFF
