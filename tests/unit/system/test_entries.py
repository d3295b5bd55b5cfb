"""How much is in a directory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inosync.system import entries


def test_entries_are_counted_no_further_than_needed_and_without_what_is_excluded(tmp_path: Path) -> None:
    asked: list[tuple[bytes, bool]] = []

    def excluded(name: bytes, is_directory: bool) -> bool:
        asked.append((name, is_directory))
        return name == b"lost+found"

    (tmp_path / "lost+found").mkdir()
    (tmp_path / "link").symlink_to("lost+found")
    os.close(os.open(os.fsencode(tmp_path) + b"/\xff", os.O_CREAT))
    fd = entries.open_directory(str(tmp_path))
    try:
        assert entries.count(fd, excluded, 10) == 2
        assert sorted(asked) == [(b"link", False), (b"lost+found", True), (b"\xff", False)]
        assert entries.count(fd, excluded, 1) == 1
        assert entries.count(fd, lambda _name, _is_directory: True, 10) == 0
        status = tmp_path.stat()
        assert entries.identity(fd) == (status.st_dev, status.st_ino)
    finally:
        os.close(fd)


def test_what_is_no_directory_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    for name in ("file", "fifo", "missing"):
        with pytest.raises(OSError, match=name):
            entries.open_directory(str(tmp_path / name))
