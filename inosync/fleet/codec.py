"""What is kept in Redis, as bytes: changes, records, positions. Pure.

Whoever can write to Redis can write anything: nothing is used before it is checked here.
"""

from __future__ import annotations

import re

from inosync.changes import Change, Kind, Step, is_below_root
from inosync.fleet.records import Arrived, Beat, JournalSpan, NodeRecord, OriginPosition
from inosync.fleet.recovery import MAX_POSITION

MAX_PATH_BYTES = 4096
MAX_TREES = 100_000
MAX_REASON = 300
"""Characters of what a sender says for people."""
_NUMBER = rb"(\d{1,16})"
_WORD = rb"([!-~]{1,200})"
_MEMBER = re.compile(rb"(\d{1,6}) ([012]) ([0-4]) (.*)", re.DOTALL)
_RECORD = re.compile(rb"%b (?:-|%b) %b ([01])" % (_WORD, _NUMBER, _NUMBER))
_ARRIVED = re.compile(rb"%b %b %b" % (_WORD, _NUMBER, _WORD))
_BEAT = re.compile(rb"([012]) %b %b ?(.{0,2000})" % (_WORD, _WORD), re.DOTALL)
_LEASE = re.compile(rb"([A-Za-z0-9_.-]{1,64}) ([0-9a-f]{1,64})")
_POSITION = re.compile(rb"%b %b %b" % (_NUMBER, _WORD, _NUMBER))


class BadValue(Exception):
    """What Redis holds is not what the fleet writes."""


def encode_change(change: Change) -> bytes:
    """Return a change as a member of the journal. A path of another kind or step is another member."""
    return b"%d %d %d %b" % (change.tree, change.kind, change.step, change.path)


def decode_change(member: bytes) -> Change:
    """Return the change that a member of the journal stands for."""
    found = _MEMBER.fullmatch(member)
    if found is None or int(found[1]) >= MAX_TREES or not _is_relative(found[4]):
        raise BadValue("the journal holds something that is no change")
    return Change(int(found[1]), found[4], Kind(int(found[2])), step=Step(int(found[3])))


def _is_relative(path: bytes) -> bool:
    """Whether a path is one that events have."""
    return len(path) <= MAX_PATH_BYTES and b"\0" not in path and is_below_root(path)


def encode_record(record: NodeRecord) -> bytes:
    """Return the record of a node as Redis keeps it."""
    cursor = "-" if record.cursor is None else record.cursor
    return f"{record.epoch} {cursor} {record.upto} {record.tidy:d}".encode()


def decode_record(value: bytes) -> NodeRecord:
    """Return the record of a node from what Redis keeps."""
    epoch, cursor, upto, tidy = _fields(_RECORD, value)
    return NodeRecord(
        epoch.decode(), None if cursor is None else position(cursor), position(upto), tidy == b"1"
    )


def encode_arrived(arrived: Arrived) -> bytes:
    """Return what is said of a copy as Redis keeps it."""
    return f"{arrived.epoch} {arrived.position} {arrived.copy}".encode()


def decode_arrived(value: bytes) -> Arrived:
    """Return what is said of a copy from what Redis keeps."""
    epoch, at, copy = _fields(_ARRIVED, value)
    return Arrived(epoch.decode(), position(at), copy.decode())


def encode_beat(beat: Beat) -> bytes:
    """Return what a sender says of itself as Redis keeps it."""
    how = 2 if beat.is_ready and beat.is_late else int(beat.is_ready)
    text = f"{how} {beat.copy} {beat.config} {beat.reason[:MAX_REASON]}"
    return text.encode("utf-8", "replace")


def decode_beat(value: bytes) -> Beat:
    """Return what a sender says of itself from what Redis keeps."""
    is_ready, copy, config, reason = _fields(_BEAT, value)
    text = reason.decode("utf-8", "replace")
    return Beat(is_ready != b"0", copy.decode(), config.decode(), text, is_ready == b"2")


def encode_lease(sender: str, number: str) -> bytes:
    """Return the value of a lease: who has it, and a number that no other lease has."""
    return f"{sender} {number}".encode()


def holder(value: bytes) -> str:
    """Return which sender has a lease."""
    return _fields(_LEASE, value)[0].decode()


def encode_position(answer: OriginPosition) -> bytes:
    """Return the answer of the origin as Redis keeps it."""
    return f"{answer.question} {answer.epoch} {answer.head}".encode()


def decode_position(value: bytes) -> OriginPosition:
    """Return the answer of the origin from what Redis keeps."""
    question, epoch, head = _fields(_POSITION, value)
    return OriginPosition(position(question), epoch.decode(), position(head))


def decode_span(epoch: bytes | None, floor: bytes | None, appended: bytes | None) -> JournalSpan | None:
    """Return what the journal holds; None if there is none."""
    if epoch is None or floor is None or appended is None:
        return None
    if not re.fullmatch(_WORD, epoch):
        raise BadValue("Redis holds an epoch that is none")
    return JournalSpan(epoch.decode(), position(floor), position(appended))


def position(value: bytes) -> int:
    """Return a position."""
    if not re.fullmatch(_NUMBER, value) or int(value) > MAX_POSITION:
        raise BadValue("Redis holds a position that is none")
    return int(value)


def _fields(pattern: re.Pattern[bytes], value: bytes) -> tuple[bytes, ...]:
    found = pattern.fullmatch(value)
    if found is None:
        raise BadValue("Redis holds a record that the fleet has not written")
    return found.groups()
