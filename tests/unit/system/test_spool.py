"""What is too long for a message: by reference to a file that is there whole, or not at all."""

from __future__ import annotations

import errno
import os
import pickle
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from inosync.changes import Part
from inosync.nodes.messages import MAX_REASON_BYTES, Batch, Done
from inosync.system import spool
from inosync.system.channel import MAX_MESSAGE_BYTES
from inosync.text import shortened

SHORT = (Part(1, False, (b"a", b"d/", b"\xff\n")),)
LONG = (Part(1, True), Part(2, False, tuple(b"%06d" % i for i in range(5000))))


def test_pack_returns_short_payloads_inline(tmp_path: Path) -> None:
    payload, file = spool.pack(SHORT, str(tmp_path / "f"))
    assert file == ""
    assert spool.unpack(payload, file) == SHORT
    assert list(tmp_path.iterdir()) == []


def test_pack_writes_long_payloads_to_a_file_with_mode_0600(tmp_path: Path) -> None:
    path = tmp_path / "f"
    payload, file = spool.pack(LONG, str(path))
    assert (payload, file) == (b"", str(path))
    assert spool.unpack(payload, file) == LONG
    assert spool.unpack(payload, file) == LONG
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_pack_longest_inline_payload_fits_into_a_message(tmp_path: Path) -> None:
    size = next(
        size
        for size in range(spool.MAX_INLINE_BYTES, 0, -1)
        if spool.pack(b"x" * size, str(tmp_path / "f"))[1] == ""
    )
    payload, _ = spool.pack(b"x" * size, str(tmp_path / "f"))
    assert len(payload) == spool.MAX_INLINE_BYTES
    reason = shortened("\udce9\u20ac" * MAX_REASON_BYTES, MAX_REASON_BYTES)
    done = Done(2**40, 1.5, 23, reason, payload, "r" * 200, held=tuple(range(1000, 1200)))
    for message in (Batch(2**40, 10**6, False, payload, file="r" * 800), done):
        assert len(pickle.dumps(message, pickle.HIGHEST_PROTOCOL)) <= MAX_MESSAGE_BYTES


def test_pack_keeps_to_the_room_that_a_message_has_left(tmp_path: Path) -> None:
    first, _ = spool.pack(b"x" * 1000, "")
    second, file = spool.pack(b"y" * 2000, str(tmp_path / "f"), spool.MAX_INLINE_BYTES - len(first))
    assert (second, file) == (b"", str(tmp_path / "f"))
    assert spool.unpack(second, file) == b"y" * 2000


def test_pack_replaces_a_file_in_one_step(tmp_path: Path) -> None:
    path = str(tmp_path / "f")
    spool.pack(LONG, path)
    with open(path, "rb") as before:
        spool.pack((*LONG, "more"), path)
        assert os.fstat(before.fileno()).st_nlink == 0
    assert spool.unpack(b"", path) == (*LONG, "more")


def test_pack_ignores_what_a_broken_write_left(tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(b"x" * 10**6)
    _, file = spool.pack(LONG, str(tmp_path / "f"))
    assert spool.unpack(b"", file) == LONG


def test_pack_does_not_follow_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("untouched")
    (tmp_path / "f.part").symlink_to("victim")
    with pytest.raises(OSError, match="symbolic"):
        spool.pack(LONG, str(tmp_path / "f"))
    assert (tmp_path / "victim").read_text() == "untouched"


def test_pack_makes_a_missing_directory_again_with_mode_0700(tmp_path: Path) -> None:
    path = str(tmp_path / "run" / "spool" / "f")
    with pytest.raises(FileNotFoundError):
        spool.unpack(b"", path)
    assert spool.unpack(*spool.pack(LONG, path)) == LONG
    for directory in (tmp_path / "run", tmp_path / "run" / "spool"):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_pack_that_fails_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(OSError, match="No space left"):
        spool.pack(LONG, str(tmp_path / "f"))
    assert list(tmp_path.iterdir()) == []


def test_discard_accepts_missing_files(tmp_path: Path) -> None:
    _, file = spool.pack(LONG, str(tmp_path / "f"))
    spool.discard(file)
    spool.discard(file)
    spool.discard("")
    assert list(tmp_path.iterdir()) == []


def test_sweep_removes_what_a_killed_process_left_and_nothing_else(tmp_path: Path) -> None:
    left = ["ssh-12", "ssh-12.XwZ", "due-12-1", "due-12-1.part"]
    others = ["ssh-123", "ssh-1", "due-123-12", "due-1-12", "batch-12", "batch-12.part", "ssh-12x"]
    for name in left + others:
        (tmp_path / name).touch()
    spool.sweep(str(tmp_path), 12)
    assert sorted(os.listdir(tmp_path)) == sorted(others)
    spool.sweep(str(tmp_path / "gone"), 12)


def test_data_larger_than_the_file_system_is_too_big(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(_source: str, _target: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "rename", no_room)
    data = b"x" * 10_000
    for blocks, number in ((3, errno.ENOSPC), (2, errno.EFBIG)):
        monkeypatch.setattr(
            os, "statvfs", lambda _path, found=blocks: SimpleNamespace(f_blocks=found, f_frsize=4096)
        )
        with pytest.raises(OSError, match=r"system|space") as raised:
            spool.pack(data, str(tmp_path / "spool/batch"))
        assert raised.value.errno == number
        assert list((tmp_path / "spool").iterdir()) == []


def test_discard_leaves_what_cannot_be_removed(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    spool.discard(str(tmp_path / "directory"))
    spool.discard(str(tmp_path / "missing"))
    assert os.listdir(tmp_path) == ["directory"]
