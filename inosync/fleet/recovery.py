"""What the origin writes when it meets Redis again, and which changes Redis may forget. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from inosync.fleet.records import JournalSpan, NodeRecord, merged

RESERVED_POSITIONS = 1_000_000
"""How far ahead of the newest position the kept one is, so that it is written rarely."""
MAX_POSITION = 1 << 53
"""Scores in Redis are floating point numbers, which are exact up to here."""


@dataclass(frozen=True, slots=True)
class OwnBooks:
    """What the origin has in memory."""

    epoch: str
    head: int
    """The newest position."""
    floor: int
    """Changes up to here are no longer in memory."""
    nodes: Mapping[str, NodeRecord]
    """The records of nodes as Redis had them last."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """What is written to Redis, all at once, before anything else."""

    reset: bool
    """Whether what Redis has of the journal is thrown away before."""
    append_after: int
    """The changes after this position are appended, so far as they are in memory."""
    span: JournalSpan
    """What the journal holds then."""
    restore: Mapping[str, NodeRecord]
    """Records that say more than those in Redis."""


def recover(own: OwnBooks, span: JournalSpan | None, nodes: Mapping[str, NodeRecord]) -> Recovery | None:
    """Return what is written when the connection to Redis is new; None if Redis is ahead of this origin.

    ``span`` and ``nodes``: what is there; None if there is no journal. It may be older than what was written,
    or of another epoch. If it is ahead, another origin writes to it.
    """
    is_ours = span is not None and span.epoch == own.epoch
    if span is not None and is_ours and span.appended > own.head:
        return None
    appended = span.appended if span is not None and is_ours else 0
    floor = span.floor if span is not None and is_ours else 0
    # What is missing there, and no longer here, can be had by full mirrors only. Where it was dropped because
    # every node has it, the restored cursors are beyond it.
    if not is_ours or appended < own.floor:
        floor = max(floor, own.floor)
    restore = {}
    for name, record in own.nodes.items():
        best = merged(record, nodes.get(name), own.epoch)
        if best is not None and best != nodes.get(name):
            restore[name] = best
    span = JournalSpan(own.epoch, floor, own.head)
    return Recovery(not is_ours, max(appended, own.floor), span, restore)


def disposable(
    epoch: str, nodes: Iterable[str], records: Mapping[str, NodeRecord], arrived: Collection[int], floor: int
) -> int:
    """Return the position up to which no node of a fleet needs the journal any more.

    ``arrived``: the positions of the senders that are clean; ``floor``: what the journal has dropped. A full
    mirror begins at the position of a sender, so what follows the last of those stays.
    """
    lowest = min(arrived, default=floor)
    for name in nodes:
        record = records.get(name)
        if record is None or record.epoch != epoch:
            continue
        if record.cursor is not None and record.cursor >= floor:
            lowest = min(lowest, record.cursor)
        elif record.upto >= floor:  # a full mirror is under way
            lowest = min(lowest, record.upto)
    return max(lowest, floor)


def reserved(head: int, kept: int) -> int:
    """Return the position that the origin keeps, and may count up to. ``kept``: the last one."""
    return kept if kept - head > RESERVED_POSITIONS // 2 else head + RESERVED_POSITIONS
