"""What Redis keeps: read back as it was written, and nothing else is accepted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inosync.changes import Change, Kind, Step
from inosync.fleet import codec
from inosync.fleet.records import Arrived, Beat, JournalSpan, NodeRecord, OriginPosition

names = st.binary(min_size=1, max_size=20).filter(
    lambda name: name not in (b".", b"..") and not {47, 0} & set(name)
)
paths = st.lists(names, max_size=4).map(b"/".join)
changes = st.builds(
    lambda tree, path, kind, step: Change(tree, path, kind, step=step),
    st.integers(0, 99_999),
    paths,
    st.sampled_from(Kind),
    st.sampled_from(Step),
)


@given(changes)
def test_change_is_read_as_it_was_written(change: Change) -> None:
    found = codec.decode_change(codec.encode_change(change))
    assert (found, found.step) == (change, change.step)


@pytest.mark.parametrize(
    "member",
    [
        b"",
        b"1 0 0",
        b"1 0 0/etc",
        b"1 0 0 /etc/passwd",
        b"1 0 0 ../x",
        b"1 0 0 a/../../x",
        b"1 0 0 a/./x",
        b"1 0 0 a//x",
        b"1 0 0 a/",
        b"1 0 0 a\0b",
        b"1 3 0 a",
        b"1 0 5 a",
        b"-1 0 0 a",
        b"999999 0 0 a",
        b"1234567 0 0 a",
        b"1 0 0 " + b"a" * 4097,
    ],
)
def test_change_that_no_event_can_be_is_refused(member: bytes) -> None:
    with pytest.raises(codec.BadValue):
        codec.decode_change(member)


@pytest.mark.parametrize("record", [NodeRecord("e"), NodeRecord("e", 0, 7), NodeRecord("e", 5, 7, tidy=True)])
def test_record_is_read_as_it_was_written(record: NodeRecord) -> None:
    assert codec.decode_record(codec.encode_record(record)) == record


def test_what_machines_say_is_read_as_it_was_written() -> None:
    arrived, answer = Arrived("e", 5, "disk:1"), OriginPosition(3, "e", 1 << 53)
    assert codec.decode_arrived(codec.encode_arrived(arrived)) == arrived
    assert codec.decode_position(codec.encode_position(answer)) == answer
    assert codec.decode_span(b"e", b"1", b"2") == JournalSpan("e", 1, 2)
    assert codec.decode_span(None, None, None) is None


@pytest.mark.parametrize(
    ("decode", "value"),
    [
        (codec.decode_record, b""),
        (codec.decode_record, b"e 1 2"),
        (codec.decode_record, b"e -1 2 0"),
        (codec.decode_record, b"e 1 2 2"),
        (codec.decode_record, b"e 1 99999999999999999 0"),
        (codec.decode_record, b"e\n 1 2 0"),
        (codec.decode_arrived, b"e 1"),
        (codec.decode_position, b"1 e 9999999999999999"),
        (codec.position, b"1e9"),
        (codec.position, b"9007199254740993"),
        (lambda value: codec.decode_span(value, b"1", b"2"), b"e f"),
    ],
)
def test_record_that_the_fleet_did_not_write_is_refused(
    decode: Callable[[bytes], object], value: bytes
) -> None:
    with pytest.raises(codec.BadValue):
        decode(value)


@pytest.mark.parametrize(
    "beat", [Beat(True, "c", "f"), Beat(False, "c", "f", "why"), Beat(True, "c", "f", "w", True)]
)
def test_beat_comes_back_as_it_was(beat: Beat) -> None:
    assert codec.decode_beat(codec.encode_beat(beat)) == beat
    assert not codec.decode_beat(codec.encode_beat(replace(beat, is_ready=False, is_late=True))).is_late
