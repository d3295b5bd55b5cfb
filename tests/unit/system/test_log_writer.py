"""The process that writes a log file on a file system that may stop answering."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from support import procs
from support.wait import until

from inosync.system import log, log_writer, mounts


def handler(path: Path) -> logging.Handler:
    return log.to_file(str(path))


def writer(path: Path) -> int:
    """The pid of the process that writes to a file."""
    return until(
        lambda: next(
            (
                pid
                for pid in map(int, filter(str.isdigit, os.listdir("/proc")))
                if procs.title(pid) == f"inosync: log {path}"
            ),
            None,
        ),
        30,
        "the writer",
    )


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let every file be on a file system that may stop answering."""
    monkeypatch.setattr(mounts, "is_remote", lambda _path: True)
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    for one in root.handlers:
        if one not in before:
            one.close()
    root.handlers, root.level = before, level


def test_lines_are_written_and_the_process_ends_with_its_socket(tmp_path: Path) -> None:
    path = tmp_path / "log"
    lines = log_writer.start(partial(handler, path), str(path))
    pid = writer(path)
    assert os.getpgid(pid) != os.getpgid(0), "a terminal does not end it"
    lines.send("one\ntwo \udcff\n".encode("utf-8", "surrogateescape"))
    until(lambda: len(path.read_bytes().splitlines()) == 2, 30, "two lines")
    assert path.read_bytes().endswith(b"two \\xff\n")
    lines.close()
    until(lambda: not os.path.exists(f"/proc/{pid}"), 30, "its end")


def test_file_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        log_writer.start(partial(handler, tmp_path), str(tmp_path))
    with pytest.raises(FileNotFoundError):
        log_writer.start(partial(handler, tmp_path / "no/log"), "no/log")


def test_file_that_does_not_open_in_time_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_writer, "OPEN_SECONDS", 0.2)

    def hang() -> logging.Handler:
        time.sleep(3)
        raise OSError

    with pytest.raises(TimeoutError):
        log_writer.start(hang, "hanging")


@pytest.mark.usefixtures("far")
def test_hanging_writer_costs_lines_which_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log.use(log.to_file(str(path)), verbose=False)
    one = logging.getLogger("test")
    one.warning("before")
    pid = writer(path)
    until(lambda: "before" in path.read_text(), 30, "a line")
    os.kill(pid, signal.SIGSTOP)
    for _ in range(3_000):
        one.warning("x" * 1_000)
    os.kill(pid, signal.SIGCONT)

    def lost() -> bool:
        one.warning("after")
        return "log lines lost because their reader was stuck: " in path.read_text()

    until(lost, 30, "the count")
    log.use(log.to_file(str(path), as_json=True), verbose=False)
    one.warning("again")
    until(lambda: '"message": "again"' in path.read_text(), 30, "another form")
    assert writer(path) == pid, "it opens no file anew"


@pytest.mark.usefixtures("far")
def test_writer_that_was_killed_is_replaced_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    log.use(log.to_file(str(path)), verbose=False)
    os.kill(writer(path), signal.SIGKILL)
    one = logging.getLogger("test")

    def arrives() -> bool:
        one.warning("a line")
        return "a line" in path.read_text()

    monkeypatch.setattr(log, "REPEAT_SECONDS", 0.0)
    until(arrives, 30, "a line from another writer")
