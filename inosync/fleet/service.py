"""Whether a sender may serve a node that it holds the lease of, and what the node is sent next. Pure.

The copy of a sender is at least as new as the origin says, and may be newer: a transfer to it may be running,
of files that have changed again. So what a node got from one sender may be newer than every position that is
written. A sender that takes over therefore asks the origin where it stands, and waits until its own copy is
that far: then nothing that it sends is older than what the node may have.
"""

from __future__ import annotations

from dataclasses import dataclass

from inosync.fleet.records import Arrived, JournalSpan, NodeRecord, OriginPosition


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing may be sent yet."""

    reason: str
    ask: bool = False
    """Whether the origin has to be asked anew where it stands."""


@dataclass(frozen=True, slots=True)
class Level:
    """The node has all that may be sent."""


@dataclass(frozen=True, slots=True)
class SendFull:
    """The node is compared as a whole; then ``upto`` is its cursor."""

    upto: int


@dataclass(frozen=True, slots=True)
class SendChanges:
    """The node is sent the changes of the journal after one position, up to and including another."""

    after: int
    upto: int


Service = Wait | Level | SendFull | SendChanges


def bound(question: int, answer: OriginPosition | None) -> OriginPosition | None:
    """Return the origin's answer if it was given after a question of that number; None if it was not yet."""
    return answer if answer is not None and answer.question >= question else None


def may_send(arrived: Arrived | None, copy: str, span: JournalSpan) -> bool:
    """Whether a sender's copy is good for anything: it may be empty, or belong to another epoch."""
    return arrived is not None and (arrived.epoch, arrived.copy) == (span.epoch, copy)


def reach(arrived: Arrived | None, copy: str, span: JournalSpan) -> int | None:
    """Return the position up to which a sender may send; None if its copy is good for nothing.

    Redis may have lost its newest changes: what it does not hold cannot be sent.
    """
    if arrived is None or not may_send(arrived, copy, span):
        return None
    return min(arrived.position, span.appended)


def next_service(
    arrived: Arrived | None,
    copy: str,
    since: OriginPosition | None,
    record: NodeRecord | None,
    span: JournalSpan,
) -> Service:
    """Return what a node is sent next.

    ``arrived``: what the origin says of the own copy; ``copy``: which that is; ``since``: where the origin
    stood after the node was taken over; None if it has not answered yet.
    """
    if arrived is None or not may_send(arrived, copy, span):
        return Wait("the copy of this sender is not complete")
    if since is None:
        return Wait("the origin has not said yet where it stands")
    if since.epoch != span.epoch:
        return Wait("the origin has begun anew", ask=True)
    known = record if record is not None and record.epoch == span.epoch else NodeRecord(span.epoch)
    if arrived.position < max(since.head, known.upto):
        return Wait("the copy of this sender is older than what the node may have")
    upto = min(arrived.position, span.appended)
    if known.cursor is None or known.cursor < span.floor:
        return SendFull(upto) if upto >= span.floor else Wait("this sender is behind the journal")
    return SendChanges(known.cursor, upto) if upto > known.cursor else Level()


def is_untidy(record: NodeRecord | None, instance_changed: bool) -> bool:
    """Whether a transfer to a node that is taken over may have been cut off.

    What was still received late is looked at once more then. A Redis that may have lost its last second says
    nothing about it.
    """
    return record is not None and (not record.tidy or instance_changed)


def begun(record: NodeRecord | None, epoch: str, upto: int) -> NodeRecord:
    """Return what is written before a batch goes."""
    known = record if record is not None and record.epoch == epoch else NodeRecord(epoch)
    return NodeRecord(epoch, known.cursor, max(known.upto, upto))


def confirmed(record: NodeRecord, upto: int) -> NodeRecord:
    """Return what is written once a batch up to a position is confirmed."""
    cursor = upto if record.cursor is None else max(record.cursor, upto)
    return NodeRecord(record.epoch, cursor, max(record.upto, upto))
