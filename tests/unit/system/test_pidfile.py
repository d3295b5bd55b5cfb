"""The pid file: one holder at a time, known by its pid, and free again however the holder ends."""

from __future__ import annotations

import os
import shutil
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from support import child_process
from support.wait import until

from inosync.system import pidfile, process
from inosync.system.pidfile import Locked, PidFile


def in_child(run: Callable[[], object]) -> str:
    return child_process.in_child(
        run,
        lambda error: f"{type(error).__name__} {getattr(error, 'pid', '')} {getattr(error, 'content', '')}",
    )


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "inosync.pid")


def test_pid_file_names_the_holder_and_has_mode_0600(path: str) -> None:
    held = PidFile(path, "/etc/inosync/default.py")
    try:
        assert Path(path).read_text() == f"{os.getpid()}\n/etc/inosync/default.py\n"
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert not os.get_inheritable(held.fd)
    finally:
        held.remove()
    assert not os.path.exists(path)


def test_second_pid_file_is_refused_and_names_the_holder(path: str) -> None:
    held = PidFile(path, "the configuration")
    try:
        assert in_child(lambda: PidFile(path, "other")) == f"Locked {os.getpid()} the configuration"
        # Its refusal has neither let go of the lock nor changed the file. (That is read last, since a process
        # that closes a file has lost all its locks of it: fcntl(2).)
        assert in_child(lambda: PidFile(path, "other")).startswith("Locked")
        assert Path(path).read_text() == f"{os.getpid()}\nthe configuration\n"
    finally:
        held.remove()


def test_locked_names_the_pid(path: str) -> None:
    error = Locked(path, 4711, "")
    assert "4711" in str(error)
    assert path in str(error)


def test_pid_file_is_free_after_its_removal(path: str) -> None:
    PidFile(path, "one").remove()
    assert in_child(lambda: PidFile(path, "two").path) == path


def test_pid_file_of_a_killed_holder_is_free(path: str) -> None:
    def hold() -> None:
        PidFile(path, "mortal")
        while True:
            signal.pause()

    child = process.fork(hold, "holder")
    assert child.pid is not None
    try:
        until(lambda: os.path.exists(path) and "mortal" in Path(path).read_text(), 60, "the holder")
        with pytest.raises(Locked) as raised:
            PidFile(path, "second")
        assert raised.value.pid == child.pid
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.join(60)
    assert os.path.exists(path)
    held = PidFile(path, "successor")
    assert Path(path).read_text() == f"{os.getpid()}\nsuccessor\n"
    held.remove()


def test_pid_file_is_not_held_by_a_child_that_outlives_the_holder(path: str) -> None:
    def hold() -> None:
        PidFile(path, "mortal")
        os.fork()  # from here on there are two, and only one of them holds it
        while True:
            signal.pause()

    child = process.fork(hold, "holder")
    pid = child.pid
    assert pid is not None
    survivors: list[int] = []
    try:
        survivors = until(lambda: process.children(pid), 60, "the survivor")
        os.kill(pid, signal.SIGKILL)
        # Not join: the survivor has the other end of the pipe at which that waits.
        until(lambda: child.exitcode is not None, 60, "the end of the holder")
        assert in_child(lambda: PidFile(path, "next").path) == path
    finally:
        process.send(survivors, signal.SIGKILL)
        if child.exitcode is None:
            process.send((pid,), signal.SIGKILL)


@pytest.mark.parametrize("content", [b"", b"99999999\nlong gone\n" * 50, b"\xff\xfe", b"no number\n"])
def test_stale_pid_file_is_taken_over(path: str, content: bytes) -> None:
    Path(path).write_bytes(content)
    held = PidFile(path, "mine")
    assert Path(path).read_text() == f"{os.getpid()}\nmine\n"
    held.remove()


def test_pid_file_that_is_removed_is_still_held(tmp_path: Path) -> None:
    path = str(tmp_path / "run" / "inosync.pid")
    os.mkdir(os.path.dirname(path))
    held = PidFile(path, "one")
    shutil.rmtree(os.path.dirname(path))
    os.mkdir(os.path.dirname(path))
    assert in_child(lambda: PidFile(path, "two")) == f"Locked {os.getpid()} two"
    assert os.listdir(os.path.dirname(path)) == []
    held.remove()
    assert in_child(lambda: PidFile(path, "two").path) == path


def test_pid_file_whose_name_another_user_has_taken_is_free(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = PidFile(path, "one")
    os.unlink(path)
    monkeypatch.setattr(pidfile, "_listener", lambda _address: (1, os.geteuid() + 1))
    other = PidFile(path, "two")
    assert "two" in Path(path).read_text()
    for each in (other, held):
        each.remove()


def test_pid_file_does_not_follow_a_symlink(path: str, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("untouched")
    os.symlink("victim", path)
    with pytest.raises(OSError, match="symbolic"):
        PidFile(path, "mine")
    assert (tmp_path / "victim").read_text() == "untouched"


def test_pid_file_in_a_missing_directory_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        PidFile(str(tmp_path / "gone/inosync.pid"), "mine")
