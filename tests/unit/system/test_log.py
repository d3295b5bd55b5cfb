"""Log lines: one for each record, whatever a file name holds, and files that can be rotated away."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import socket
import stat
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inosync.system import log as logs

log = logging.getLogger("inosync.test")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Gives the root logger its handlers back."""
    root = logging.getLogger()
    handlers, level, raising = list(root.handlers), root.level, logging.raiseExceptions
    for handler in handlers:
        root.removeHandler(handler)
    yield
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level)
    logging.raiseExceptions = raising


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, caf\xe9, \u65e5\u672c", "plain text, caf\xe9, \u65e5\u672c"),
        ("a\nb", r"a\x0ab"),
        ("a\r\n\tb", r"a\x0d\x0a\x09b"),
        ("\x1b[31mred\x7f", r"\x1b[31mred\x7f"),
        ("\x9b31m", r"\x9b31m"),
        ("a\u2028b\u2029c", r"a\u2028b\u2029c"),
        (os.fsdecode(b"caf\xe9 \xff"), r"caf\xe9 \xff"),
        ("\ud800", r"\ud800"),
        ("\0", r"\x00"),
        ("", ""),
    ],
)
def test_printable_escapes_what_would_garble_a_line(text: str, shown: str) -> None:
    assert logs.printable(text) == shown


@given(st.text(st.characters()))
def test_printable_text_is_one_line_of_utf8(text: str) -> None:
    shown = logs.printable(text)
    assert len(shown.splitlines()) <= 1
    assert shown.encode().decode() == shown
    assert logs.printable(shown) == shown


@given(st.binary())
def test_log_line_is_one_line_for_any_file_name(name: bytes) -> None:
    shown = logs.printable(os.fsdecode(name))
    assert not any(ord(character) < 32 or 0x7F <= ord(character) < 0xA0 for character in shown)


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_log_record_is_one_line_in_a_file_with_mode_0640(tmp_path: Path) -> None:
    path = tmp_path / "log"
    before = os.umask(0o027)
    os.umask(before)
    logs.use(logs.to_file(str(path)), verbose=False)
    log.warning("changed: %s", os.fsdecode(b"forged\n2026-01-01 inosync: all is well \x1b[2J\xff"))
    [line] = lines(path)
    assert line.endswith(r"changed: forged\x0a2026-01-01 inosync: all is well \x1b[2J\xff")
    assert f"inosync[{os.getpid()}]: WARNING: " in line
    assert stat.S_IMODE(path.stat().st_mode) == 0o640 & ~before


def test_exception_is_logged_with_traceback_and_one_line_message(tmp_path: Path) -> None:
    path = tmp_path / "log"
    logs.use(logs.to_file(str(path)), verbose=False)
    try:
        raise OSError("some fault")
    except OSError:
        log.exception("two\nlines")
    assert lines(path)[0].endswith(r"two\x0alines")
    assert lines(path)[-1] == "OSError: some fault"
    assert sum("OSError: some fault" in line for line in lines(path)) == 1


@pytest.mark.parametrize(("verbose", "count"), [(False, 2), (True, 3)])
def test_debugging_lines_are_for_the_verbose(tmp_path: Path, verbose: bool, count: int) -> None:
    path = tmp_path / "log"
    logs.use(logs.to_file(str(path)), verbose)
    log.debug("one")
    log.info("two")
    log.error("three")
    assert len(lines(path)) == count


def test_log_file_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("before\n")
    logs.use(logs.to_file(str(path)), verbose=False)
    log.info("after")
    assert lines(path)[0] == "before"
    assert len(lines(path)) == 2


def test_log_line_after_a_rotation_is_in_the_new_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    logs.use(logs.to_file(str(path)), verbose=False)
    log.info("one")
    path.rename(tmp_path / "log.1")
    logs.reopen()
    assert path.exists()
    log.info("two")
    assert lines(tmp_path / "log.1")[0].endswith("one")
    assert len(lines(tmp_path / "log.1")) == 1
    assert lines(path)[0].endswith("two")


def test_reopening_what_is_no_file_or_was_not_rotated_changes_nothing(tmp_path: Path) -> None:
    logs.reopen()
    path = tmp_path / "log"
    logs.use(logs.to_file(str(path)), verbose=False)
    log.info("one")
    logs.reopen()
    log.info("two")
    assert len(lines(path)) == 2


def test_log_handler_replaces_the_one_before(tmp_path: Path) -> None:
    logs.use(logs.to_file(str(tmp_path / "old")), verbose=False)
    logs.use(logs.to_file(str(tmp_path / "new")), verbose=False)
    log.info("where?")
    assert lines(tmp_path / "old") == []
    assert len(lines(tmp_path / "new")) == 1


def test_log_file_that_cannot_be_written_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        logs.to_file(str(tmp_path / "gone/log"))
    with pytest.raises(IsADirectoryError):
        logs.to_file(str(tmp_path))


def test_lines_for_a_terminal_go_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    logs.use(logs.to_stderr(), verbose=False)
    log.error("name %s", "a\nb")
    out, err = capfd.readouterr()
    assert out == ""
    assert err.endswith("inosync: ERROR: name a\\x0ab\n")
    assert len(err.splitlines()) == 1


@pytest.mark.timeout(30)
def test_syslog_gets_the_lines_and_a_stuck_syslogd_blocks_nothing(tmp_path: Path) -> None:
    address = str(tmp_path / "log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        logs.use(logs.to_syslog(address), verbose=False)
        log.warning("name %s", "a\nb")
        data = listener.recv(4096)
        assert f"inosync[{os.getpid()}]: name a\\x0ab".encode() in data
        assert data.startswith(b"<28>")  # daemon, warning
        for i in range(2000):  # far more than a socket takes
            log.warning("nobody reads this %d", i)
        listener.setblocking(False)
        taken = 0
        with contextlib.suppress(BlockingIOError):
            while listener.recv(4096):
                taken += 1
        log.warning("read again")
        assert f"lost because their reader was stuck: {2000 - taken}".encode() in listener.recv(4096)
        assert listener.recv(4096).rstrip(b"\0").endswith(b"read again")


def _stuck(kind: str) -> tuple[int, int]:
    """What is to be read and written; nothing more goes into it."""
    if kind == "pipe":
        reader, writer = os.pipe()
    elif kind == "terminal":
        reader, writer = os.openpty()
    else:
        reader, writer = (end.detach() for end in socket.socketpair())
    os.set_blocking(writer, False)
    for _ in range(20):  # a terminal takes more after a moment
        with contextlib.suppress(BlockingIOError):
            while os.write(writer, b"x" * 512):
                pass
        time.sleep(0.005)
    os.set_blocking(writer, True)
    return reader, writer


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", ["pipe", "pipe that cannot be opened", "socket", "terminal"])
def test_stuck_stderr_blocks_nothing_and_lost_lines_are_counted(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = _stuck(kind.split()[0])
    with monkeypatch.context() as patched:
        if "opened" in kind:
            patched.setattr(os, "open", Mock(side_effect=PermissionError))
        handler = logs._Stderr(writer)
    logs.use(handler, verbose=False)
    for number in range(300):
        log.warning("lost %d", number)
    os.set_blocking(reader, False)
    found = b""
    with contextlib.suppress(BlockingIOError):
        while data := os.read(reader, 1 << 16):
            found += data
    log.warning("read again")
    log.warning("and again")
    for _ in range(100):  # a terminal passes on what it has kept back
        with contextlib.suppress(BlockingIOError):
            found += os.read(reader, 1 << 16)
        time.sleep(0.001)
    shown = re.split(r"x+", found.decode().replace("\r", ""))[-1].splitlines()
    lost = sum(line.startswith("lost ") for line in shown)
    assert lost < 300
    assert f"log lines lost because their reader was stuck: {300 - lost}" in shown
    assert shown[-2:] == ["read again", "and again"]
    handler.close()
    os.close(reader)
    os.close(writer)


def test_syslog_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        logs.to_syslog(str(tmp_path / "none"))


def test_lines_of_json_keep_the_facts_apart(tmp_path: Path) -> None:
    path = tmp_path / "log"
    logs.use(logs.to_file(str(path), as_json=True), verbose=False)
    name = os.fsdecode(b"caf\xe9 \xff\n")
    log.warning("%s: is behind", name, extra=logs.about(node=name, lag=1.5, held=False))
    log.info("plain %d", 7)
    first, second = (json.loads(line) for line in lines(path))
    assert first["message"] == r"caf\xe9 \xff\x0a: is behind"
    assert (first["node"], first["lag"], first["held"]) == (r"caf\xe9 \xff\x0a", 1.5, False)
    assert (first["level"], first["pid"]) == ("warning", os.getpid())
    assert datetime.fromisoformat(first["time"]).tzinfo is not None
    assert (second["message"], second["level"]) == ("plain 7", "info")
    try:
        raise OSError("some fault")
    except OSError:
        log.exception("fault")
    assert "OSError: some fault" in json.loads(lines(path)[-1])["traceback"]


def test_repeats_are_counted_and_told_once_in_a_while() -> None:
    now = 0.0
    repeats = logs.Repeats(lambda: now)

    def reported(same: object) -> int | None:
        record = logging.makeLogRecord({"msg": "x", "same": same})
        return record.__dict__.get("repeated", 0) if repeats.filter(record) else None

    root = logging.getLogger()
    root.setLevel(logging.INFO)
    assert [reported("a"), reported("a"), reported("b"), reported("a")] == [0, None, 0, None]
    now = logs.REPEAT_SECONDS - 1
    assert reported("a") is None
    now = logs.REPEAT_SECONDS
    assert [reported("a"), reported("a"), reported("b")] == [3, None, 0]
    assert [reported(None), reported(None)] == [0, 0]
    root.setLevel(logging.DEBUG)
    assert [reported("a"), reported("a")] == [0, 0]


def test_repeats_remembered_are_bounded() -> None:
    now = 0.0
    repeats = logs.Repeats(lambda: now)
    logging.getLogger().setLevel(logging.INFO)
    for number in range(5_000):
        now += 1.0
        assert repeats.filter(logging.makeLogRecord({"msg": "x", "same": number}))
    assert len(repeats._passed) <= 1_000


def test_repeats_are_counted_in_the_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, now = tmp_path / "log", 0.0
    monkeypatch.setattr(logs, "_repeats", logs.Repeats(lambda: now))
    logs.use(logs.to_file(str(path)), verbose=False)
    for _ in range(3):
        log.warning("again", extra=logs.about("again"))
    now = logs.REPEAT_SECONDS
    log.warning("again", extra=logs.about("again"))
    assert [line.partition("WARNING: ")[2] for line in lines(path)] == [
        "again",
        "again (2 more like this since the last one)",
    ]


@pytest.mark.parametrize("as_json", [False, True])
def test_journal_lines_have_their_priorities(monkeypatch: pytest.MonkeyPatch, as_json: bool) -> None:
    reader, writer = os.pipe()
    saved = os.dup(2)
    os.dup2(writer, 2)
    try:
        found = os.fstat(2)
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        handler = logs.to_stderr(as_json)
        logs.use(handler, verbose=True)
        for call in (log.debug, log.info, log.warning, log.error, log.critical):
            call("a\nb")
        try:
            raise OSError("some fault")
        except OSError:
            log.exception("fault")
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(writer)
        handler.close()
    with open(reader) as pipe:
        lines = pipe.read().splitlines()
    assert [line[:3] for line in lines[:5]] == ["<7>", "<6>", "<4>", "<3>", "<2>"]
    assert all(line.startswith("<3>") for line in lines[5:])
    if as_json:
        assert json.loads(lines[1][3:])["message"] == r"a\x0ab"
    else:
        assert lines[1] == r"<6>a\x0ab"


def test_log_lines_have_no_priorities_without_the_journal(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    logs.use(logs.to_stderr(), verbose=False)
    log.error("x")
    assert "inosync: ERROR: x" in capfd.readouterr().err
