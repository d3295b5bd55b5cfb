"""Going elsewhere, and back to where the process was."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from inosync.watch.working_directory import WorkingDirectory


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A directory, opened; the current one is another."""
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    fd = os.open(tmp_path / "there", os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_working_directory_is_entered_and_left(elsewhere: int, tmp_path: Path) -> None:
    working_directory = WorkingDirectory()
    assert working_directory.enter(elsewhere)
    assert Path.cwd() == tmp_path / "there"
    working_directory.leave()
    assert Path.cwd() == tmp_path / "here"
    working_directory.close()


def test_close_keeps_nothing_open(elsewhere: int) -> None:
    before = os.listdir("/proc/self/fd")
    working_directory = WorkingDirectory()
    working_directory.enter(elsewhere)
    working_directory.leave()
    working_directory.close()
    working_directory.close()
    assert os.listdir("/proc/self/fd") == before


def test_leave_returns_to_where_the_process_is_by_then(elsewhere: int, tmp_path: Path) -> None:
    working_directory = WorkingDirectory()
    assert working_directory.enter(elsewhere)
    working_directory.leave()
    working_directory.close()
    os.chdir(tmp_path)
    assert working_directory.enter(elsewhere)
    working_directory.leave()
    working_directory.close()
    assert Path.cwd() == tmp_path


def test_leave_returns_to_a_removed_directory(elsewhere: int, tmp_path: Path) -> None:
    inode = os.stat(".").st_ino
    (tmp_path / "here").rmdir()
    working_directory = WorkingDirectory()
    assert working_directory.enter(elsewhere)
    working_directory.leave()
    working_directory.close()
    assert os.stat(".").st_ino == inode


def test_enter_refuses_where_there_is_no_way_back(
    elsewhere: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fchdir, here = os.fchdir, os.stat(".").st_ino

    def barred(directory: int) -> None:
        if os.fstat(directory).st_ino == here:
            raise PermissionError("barred")
        fchdir(directory)

    monkeypatch.setattr(os, "fchdir", barred)
    working_directory = WorkingDirectory()
    assert not working_directory.enter(elsewhere)
    assert not working_directory.enter(elsewhere)
    assert Path.cwd() == tmp_path / "here"


def test_enter_refuses_what_is_no_directory(tmp_path: Path, elsewhere: int) -> None:
    (tmp_path / "file").touch()
    file = os.open(tmp_path / "file", os.O_RDONLY)
    working_directory = WorkingDirectory()
    assert not working_directory.enter(file)
    assert Path.cwd() == tmp_path / "here"
    working_directory.close()
    os.close(file)
    assert elsewhere >= 0
