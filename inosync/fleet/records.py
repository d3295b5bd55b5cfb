"""What the machines of a fleet know of each other, as they read it from Redis. Pure.

A position means something in its epoch only: the origin begins a new one when it does not know any more which
positions it has given. Epochs are compared for equality, never for order.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """How far a node is, whichever sender serves it. Both positions only grow within an epoch."""

    epoch: str
    cursor: int | None = None
    """It has everything up to here; None: that is not known."""
    upto: int = 0
    """The upper position of the newest batch that was begun."""
    tidy: bool = False
    """Whether the last sender has handed it over in order, with nothing under way."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """What the origin says of a sender's copy: it has everything up to a position."""

    epoch: str
    position: int
    copy: str
    """Which copy that is true of. Another file system at the same place, or none, is another copy."""


@dataclass(frozen=True, slots=True)
class Beat:
    """What a sender says of itself."""

    is_ready: bool
    """Whether it takes nodes."""
    copy: str
    """Which copy it has."""
    config: str
    """The fingerprint of its configuration."""
    reason: str = ""
    """Why it takes none, for people."""
    is_late: bool = False
    """Whether it leaves its nodes to others, because its copy stays behind theirs."""


@dataclass(frozen=True, slots=True)
class JournalSpan:
    """Which changes the journal in Redis holds: those after ``floor``, up to ``appended``."""

    epoch: str
    floor: int
    """Up to here changes may be missing, because every node had them or there were too many."""
    appended: int


@dataclass(frozen=True, slots=True)
class OriginPosition:
    """The answer of the origin: nothing that was on any machine at the time of the question is newer.

    The origin reads the number of the last question first, then all events that the kernel has for it, and
    only then its own position.
    """

    question: int
    epoch: str
    head: int


def merged(a: NodeRecord | None, b: NodeRecord | None, epoch: str) -> NodeRecord | None:
    """Return what is true of a node if both records were once true, and one of them may have been lost.

    A cursor stays true once it is: a node's content never goes back. None if neither is of this epoch.
    """
    found = [record for record in (a, b) if record is not None and record.epoch == epoch]
    if not found:
        return None
    cursors = [record.cursor for record in found if record.cursor is not None]
    # The begin of a batch may be what was lost.
    tidy = a == b and found[0].tidy
    return NodeRecord(epoch, max(cursors, default=None), max(record.upto for record in found), tidy)
