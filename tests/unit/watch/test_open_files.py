"""Waiting for the close of files, and asking the kernel whether one is still being written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inosync.watch import open_files
from inosync.watch.open_files import CLOSE_WAIT_SECONDS, OpenFiles, is_being_written
from inosync.watch.tree import Directory

HERE = Directory(b"")
F, G = (HERE, b"f"), (HERE, b"g")


def test_file_is_overdue_when_it_has_waited_long_enough() -> None:
    files = OpenFiles()
    assert files.deadline() == float("inf")
    assert files.expect_close(F, 100.0)
    assert files.expect_close(G, 100.5)
    assert files.expect_close(F, 100.7), "it waits already, and no longer for that"
    assert files.deadline() == 100.0 + CLOSE_WAIT_SECONDS
    assert files.take_overdue(100.9) == []
    assert files.take_overdue(100.0 + CLOSE_WAIT_SECONDS) == [(F, False)]
    assert F not in files
    assert G in files
    assert files.take_overdue(float("inf")) == [(G, False)]


def test_file_is_new_until_its_close_or_its_overdue_report() -> None:
    files = OpenFiles()
    files.expect_close(F, 100.0, is_new=True)
    files.expect_close(G, 100.0, is_new=True)
    files.expect_close(F, 100.2)
    assert files.is_new(F)
    files.stop_waiting(F)
    assert not files.is_new(F)
    files.expect_close(F, 100.3)
    assert not files.is_new(F)
    assert files.take_overdue(float("inf")) == [(G, True), (F, False)]
    assert not files.is_new(G)


def test_file_that_was_closed_is_not_waited_for() -> None:
    files = OpenFiles()
    files.expect_close(F, 100.0)
    assert files.stop_waiting(F)
    assert not files.stop_waiting(F)
    assert files.take_overdue(float("inf")) == []


def test_files_over_the_limit_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_files, "MAX_OPEN_FILES", 1)
    files = OpenFiles()
    assert files.expect_close(F, 100.0)
    assert not files.expect_close(G, 100.0)
    assert files.expect_close(F, 100.0)
    files.stop_waiting(F)
    assert files.expect_close(G, 100.0)


def test_is_being_written_while_a_writer_has_the_file_open(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    (tmp_path / "f").touch()
    assert not is_being_written(directory, b"f")
    with open(tmp_path / "f", "ab"):
        assert is_being_written(directory, b"f")
    with open(tmp_path / "f", "rb"):
        assert not is_being_written(directory, b"f")
    assert not is_being_written(directory, b"none")
    (tmp_path / "link").symlink_to("f")
    with open(tmp_path / "f", "ab"):
        assert not is_being_written(directory, b"link")
    os.close(directory)
