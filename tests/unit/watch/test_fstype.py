"""What file systems promise: compared with what they do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from inosync.watch.fstype import counts_subdirectories


@pytest.fixture(params=["tmp_path", "/dev/shm"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A directory on a file system that counts subdirectories."""
    where = tmp_path if request.param == "tmp_path" else Path(request.param)
    fd = os.open(where, os.O_RDONLY)
    counted = counts_subdirectories(fd)
    os.close(fd)
    if not counted:
        pytest.skip(f"{where} is on another kind of file system")
    made = where / f"inosync-test-{os.getpid()}"
    made.mkdir()
    yield made
    made.rmdir()


def test_counting_file_systems_count_subdirectories(place: Path) -> None:
    assert place.stat().st_nlink == 2
    (place / "file").touch()
    (place / "link").symlink_to(".")
    assert place.stat().st_nlink == 2
    (place / "a").mkdir()
    assert place.stat().st_nlink == 3
    (place / "b").mkdir()
    (place / "a").rmdir()
    assert place.stat().st_nlink == 3
    for name in ("file", "link"):
        (place / name).unlink()
    (place / "b").rmdir()
    assert place.stat().st_nlink == 2


def test_counting_is_unknown_elsewhere() -> None:
    fd = os.open("/proc", os.O_RDONLY)
    assert not counts_subdirectories(fd)
    os.close(fd)
    assert not counts_subdirectories(fd)
