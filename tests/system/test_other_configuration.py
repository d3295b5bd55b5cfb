"""Two configuration files of one name with one run directory: only its own file steers a daemon."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.daemon import LAUNCHER, Daemon, MakeDaemon
from support.wait import until

NOT_RUNNING, FAILED = 3, 1


def say(file: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """``inosync -c FILE`` with these words, to its end."""
    return subprocess.run(
        [sys.executable, LAUNCHER, "-c", file, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def production(tmp_path: Path, daemon: MakeDaemon) -> Daemon:
    """A daemon that runs, with one node."""
    for name in ("tree", "copy"):
        (tmp_path / name).mkdir()
    (tmp_path / "tree" / "file").write_text("content")
    node = str(tmp_path / "copy")
    made = daemon({"wpaths": [f"{tmp_path}/tree/"], "rpaths": [""], "rnodes": [{"node": node, "name": "a"}]})
    made.start()
    until(lambda: made.ask("status")["nodes"][0]["state"] == "ok", 60, "the node to be ok")
    return made


@pytest.fixture
def staging(tmp_path: Path, production: Daemon) -> Path:
    """A copy of its file elsewhere, which mirrors to another place."""
    path = tmp_path / "staging" / production.file.name
    path.parent.mkdir(mode=0o700)
    path.touch(0o600)
    path.write_text(production.file.read_text().replace(f"{tmp_path}/copy", f"{tmp_path}/other"))
    return path


def test_copy_of_a_file_cannot_steer_the_daemon(production: Daemon, staging: Path) -> None:
    for words in ("status", "stop", "flush", "pause a", "resync all", "accept", "reload", "reopen"):
        done = say(staging, "-s", *words.split())
        assert (done.returncode, done.stdout) == (NOT_RUNNING, ""), words
        assert f"not running for {staging}: the daemon at {production.socket}" in done.stderr
        assert f"is that of {production.file}" in done.stderr
    [node] = production.ask("status")["nodes"]
    assert (production.exit_code, node["state"]) == (None, "ok")


def test_copy_of_a_file_cannot_start_beside_the_daemon(production: Daemon, staging: Path) -> None:
    before = sorted(path.name for path in production.rundir.iterdir())
    done = say(staging)
    assert done.returncode == FAILED
    assert f"already running with pid {production.pid} for {production.file}" in done.stderr
    assert f"set another rundir for {staging}" in done.stderr
    assert sorted(path.name for path in production.rundir.iterdir()) == before
    assert say(production.file, "-s", "status").returncode == 0


def test_link_to_the_file_steers_the_daemon(production: Daemon, tmp_path: Path) -> None:
    link = tmp_path / "links" / production.file.name
    link.parent.mkdir(mode=0o700)
    link.symlink_to(production.file)
    assert say(link, "-s", "status").returncode == 0
    assert "already running" in say(link).stderr


def test_link_that_leads_to_a_newer_file_still_steers_its_daemon(
    production: Daemon, staging: Path, tmp_path: Path, daemon: MakeDaemon
) -> None:
    other = daemon({"wpaths": ["x"], "rpaths": [""], "rnodes": ["h:"]})  # only its place is used
    other.file.unlink()
    other.file.symlink_to(production.file)
    production.stop()
    text = production.file.read_text()
    other.start()
    until(lambda: say(other.file, "-s", "status").returncode == 0, 60, "the node to be ok")
    newer = tmp_path / "newer" / "default.py"
    newer.parent.mkdir(mode=0o700)
    newer.touch(0o600)
    newer.write_text(text)
    other.file.unlink()
    other.file.symlink_to(newer)
    assert say(other.file, "-s", "reload").returncode == 0
    assert say(production.file, "-s", "status").returncode == 0, "it was started from this file"
    assert say(staging, "-s", "stop").returncode == NOT_RUNNING
    assert say(other.file, "-s", "stop").returncode == 0
    other.wait()


def test_command_does_not_run_the_file_if_its_daemon_is_found(production: Daemon, tmp_path: Path) -> None:
    text = production.file.read_text()
    runs = tmp_path / "runs"
    production.file.write_text(f"{text}\nwith open({str(runs)!r}, 'a') as _file:\n    _file.write('x')\n")
    assert say(production.file, "-s", "status").returncode == 0
    assert not runs.exists()
    computed = text.replace("rundir = ", "rundir = '' + ")
    production.file.write_text(computed)
    assert say(production.file, "-s", "status").returncode == 0
    production.file.write_text(f"import time\ntime.sleep(2)\n{computed}")
    done = say(production.file, "-s", "status")
    assert done.returncode == 0
    assert done.stderr == f"inosync: running {production.file}, to find its run directory ...\n"
