"""``inosync -d``: the daemon detaches itself from its caller."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from support import procs, trees
from support.service import Detached, run_inosync

CONFIG, FAILED = 78, 1


# Detached ------------------------------------------------------------------------------------------------


def test_detached_daemon_works_when_its_caller_returns(
    detached: Detached,
) -> None:
    service = detached.service
    service.change("before")
    done = detached.start()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    pid = detached.pid()
    [*_, second, last] = detached.pidfile.read_text().split("\n")
    assert (second, last) == (str(service.daemon.file), "")
    service.until_arrived("a", "before")
    # The tree is watched by now, even if the full mirror still runs.
    service.change("after")
    service.until_arrived("a", "after")
    service.until_arrived("b", "after")
    master = procs.look(pid)
    assert master is not None
    assert procs.title(pid).startswith("inosync: master default.py [")
    assert master.session not in (os.getsid(0), 0)
    # It is not the session leader, so it cannot acquire a terminal.
    assert master.session != pid
    tty = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[4]
    assert tty == "0"
    # The master, the workers and the writer of the state only: rsync changes to another directory.
    inosyncs = [process for process in detached.family() if pid in (process.pid, process.ppid)]
    assert len(inosyncs) == 4
    assert {os.readlink(f"/proc/{process.pid}/cwd") for process in inosyncs} == {"/"}
    assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)} == {"/dev/null"}
    again = detached.start()
    assert again.returncode == FAILED
    assert f"already running with pid {pid}" in again.stderr
    os.kill(pid, signal.SIGTERM)
    detached.until_gone()
    assert list(service.daemon.rundir.iterdir()) == []
    assert "Traceback" not in (service.home / "log").read_text()


def test_detached_daemon_reloads_a_configuration_named_relatively(
    detached: Detached, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = detached.service
    monkeypatch.chdir(service.daemon.file.parent)
    command = [word if word != str(service.daemon.file) else "default.py" for word in service.daemon.command]
    assert run_inosync(service.daemon, "-d", command=command).returncode == 0
    detached.family()
    service.configure(logfile=str(service.home / "log"), rnodes=[service.node("a"), service.node("new")])
    os.kill(detached.pid(), signal.SIGHUP)
    service.change("file")
    service.until_arrived("new", "file")
    detached.family()
    os.kill(detached.pid(), signal.SIGTERM)
    detached.until_gone()


# Starts --------------------------------------------------------------------------------------------------


def works(detached: Detached) -> None:
    """Check that the daemon mirrors and that a second start finds it."""
    s = detached.service
    for node in "ab":
        s.change("file", node)
        s.until_arrived(node, "file", node)
    again = detached.start_in_shell('exec "$@"')
    assert again.returncode == FAILED
    assert f"already running with pid {detached.pid()}" in again.stderr


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", "<&-", ">&-", "2>&-"])
def test_detached_daemon_starts_with_closed_standard_streams(detached: Detached, closed: str) -> None:
    done = detached.start_in_shell(f'exec "$@" {closed}')
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert {os.readlink(f"/proc/{detached.pid()}/fd/{fd}") for fd in (0, 1, 2)} == {"/dev/null"}
    works(detached)
    detached.stop()


IN_NOTHING = 'cd "$1" && rmdir "$1" && shift && exec "$@"'


def test_detached_daemon_starts_in_a_removed_directory(detached: Detached, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    done = detached.start_in_shell(IN_NOTHING, str(gone))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    works(detached)
    s = detached.service
    s.configure(logfile=str(s.home / "log"), rnodes=[s.node("a"), s.node("b"), s.node("c")])
    os.kill(detached.pid(), signal.SIGHUP)
    s.until_arrived("c", "file", "b")
    assert trees.diff(trees.snapshot(s.tree()), trees.snapshot(s.copy("c"))) == []
    detached.stop()


def test_configuration_relative_to_a_removed_directory_is_refused(detached: Detached, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    done = detached.start_in_shell(IN_NOTHING, str(gone), config="default.py")
    assert (done.returncode, done.stdout) == (CONFIG, "")
    [line] = done.stderr.splitlines()
    assert "current directory is gone" in line
