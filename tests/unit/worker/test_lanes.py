"""Which files are big, and what of one lane has to wait for the other."""

from __future__ import annotations

import pytest

from inosync.changes import Lane, Part
from inosync.worker.lanes import (
    ALONE_SECONDS,
    MAX_BIG_BYTES,
    MIN_BIG_BYTES,
    START_SPEED,
    Lanes,
    big_size,
    listing,
    smoothed,
)

KIB, MIB = 1 << 10, 1 << 20


@pytest.mark.parametrize(
    ("before", "speed", "rspeed", "size"),
    [
        (0, START_SPEED, 0, 8 * MIB),
        (8 * MIB, 8 * MIB, 0, 8 * MIB),
        (8 * MIB, 31 * MIB, 0, 8 * MIB),
        (8 * MIB, 32 * MIB, 0, 32 * MIB),
        (8 * MIB, 8 * MIB - 1, 0, 4 * MIB),
        (8 * MIB, 1_000.0, 0, MIN_BIG_BYTES),
        (MIN_BIG_BYTES, 1_000.0, 0, MIN_BIG_BYTES),
        (8 * MIB, 1e12, 0, MAX_BIG_BYTES),
        (MAX_BIG_BYTES, 1e12, 0, MAX_BIG_BYTES),
        (8 * MIB, 1e9, 1_000, 512 * KIB),  # the limit counts where it is lower
        (8 * MIB, 1_000.0, 100_000, MIN_BIG_BYTES),
    ],
)
def test_big_size_follows_the_speed(before: int, speed: float, rspeed: int, size: int) -> None:
    assert big_size(before, speed, rspeed) == size


@pytest.mark.parametrize(
    ("sent", "files", "seconds", "speed"),
    [
        (10 * MIB, 1, 1.0, (1e6 + 10 * MIB) / 2),
        (MIN_BIG_BYTES, 1, 0.5, (1e6 + 2 * MIN_BIG_BYTES) / 2),
        (MIN_BIG_BYTES - 1, 1, 0.5, 1e6),
        (10 * MIB, 1_000, 10.0, 1e6),  # small files show the latency
        (10 * MIB, 0, 1.0, (1e6 + 10 * MIB) / 2),  # an rsync that does not tell
        (10 * MIB, 1, 0.0, 1e6),
    ],
)
def test_speed_is_learnt_from_large_files(sent: int, files: int, seconds: float, speed: float) -> None:
    assert smoothed(1e6, sent, files, seconds) == speed


@pytest.mark.parametrize(
    ("name", "directory"), [(b"f", b"./"), (b"d/", b"./"), (b"d/f", b"d/"), (b"d/e/", b"d/")]
)
def test_listing_of_a_name(name: bytes, directory: bytes) -> None:
    assert listing(name) == directory


BIG_UNDER_WAY = (b"d/big", b"top")


@pytest.mark.parametrize(
    ("name", "is_blocked"),
    [
        (b"d/big", True),
        (b"d/big/", True),  # it has become a directory
        (b"d/big/inside", True),
        (b"d/big/in/side", True),
        (b"top", True),
        (b"d/", True),  # the relist would remove the temporary file
        (b"./", True),
        (b"d", False),  # the directory itself; if it is gone, so is the big file
        (b"d/bigger", False),
        (b"d/small", False),
        (b"d/sub/", False),
        (b"e/", False),
        (b"e/big", False),
        (b"big", False),
    ],
)
def test_name_waits_for_the_big_file_under_way(name: bytes, is_blocked: bool) -> None:
    lanes = Lanes()
    lanes.begin(Lane.SECOND, Part(1, False, BIG_UNDER_WAY), BIG_UNDER_WAY)
    other = lanes.other(Lane.FIRST, 1)
    assert other is not None
    assert other.is_in_the_way(name) is is_blocked


@pytest.mark.parametrize(
    ("names", "is_blocked"),
    [
        ((b"d/big",), True),
        ((b"d/",), True),
        ((b"d",), True),  # perhaps it is being removed
        ((b"d/small", b"e/"), False),
        ((b"./",), False),
    ],
)
def test_big_file_waits_for_names_under_way(names: tuple[bytes, ...], is_blocked: bool) -> None:
    lanes = Lanes()
    lanes.begin(Lane.FIRST, Part(1, False, names), names)
    other = lanes.other(Lane.SECOND, 1)
    assert other is not None
    assert other.is_in_the_way(b"d/big") is is_blocked


def test_full_mirror_is_in_the_way_of_its_own_tree_only() -> None:
    lanes = Lanes()
    lanes.begin(Lane.FIRST, Part(1, True), (b"./",))
    other = lanes.other(Lane.SECOND, 1)
    assert other is not None
    assert other.is_in_the_way(b"d/big")
    assert lanes.other(Lane.SECOND, 2) is None
    assert lanes.other(Lane.FIRST, 1) is None
    lanes.end(Lane.FIRST)
    lanes.end(Lane.FIRST)
    assert lanes.other(Lane.SECOND, 1) is None


def test_lanes_take_turns_once_a_node_has_refused_two_connections() -> None:
    lanes, now = Lanes(), 1_000.0
    lanes.begin(Lane.SECOND, Part(1, False, (b"big",)), (b"big",))
    assert not lanes.must_wait(Lane.FIRST, now)
    lanes.alone_until = now + ALONE_SECONDS
    assert lanes.must_wait(Lane.FIRST, now)
    assert not lanes.must_wait(Lane.SECOND, now), "it is the one that runs"
    assert not lanes.must_wait(Lane.FIRST, now + ALONE_SECONDS)
    lanes.end(Lane.SECOND)
    assert not lanes.must_wait(Lane.FIRST, now)


def test_big_size_changes_with_what_is_measured_and_with_rspeed() -> None:
    lanes = Lanes()
    before = lanes.big_size
    lanes.measure(1_000, 1, 10.0)
    assert not lanes.adjust(0)
    lanes.measure(MIB, 1, 10.0)
    lanes.measure(MIB, 1, 10.0)
    assert lanes.adjust(0)
    assert lanes.big_size < before
    assert lanes.adjust(100)
    assert lanes.big_size == MIN_BIG_BYTES
    assert lanes.adjust(0)


def test_transfers_of_the_first_lane_are_counted() -> None:
    lanes = Lanes()
    lanes.begin(Lane.SECOND, Part(1, False, (b"big",)), (b"big",))
    assert lanes.transfers == 0
    lanes.begin(Lane.FIRST, Part(1, False, (b"a",)), (b"a",))
    assert lanes.transfers == 1
