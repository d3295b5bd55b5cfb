"""Directories that disappear, disks that are full, and an endless writer.

None of these ends the master, starves a node or loses a change.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import procs
from support.daemon import ask
from support.service import IN_TIME, Service
from support.wait import until

ROOT = os.geteuid() == 0


# Events --------------------------------------------------------------------------------------------------

WRITER = """
import os, sys
one, two = (os.open(path, os.O_WRONLY | os.O_CREAT, 0o600) for path in sys.argv[1:])
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(1000):
        # Alternately, because the kernel merges equal events in a row.
        os.pwrite(one, b"x", 0)
        os.pwrite(two, b"x", 0)
"""


@contextlib.contextmanager
def writing(*files: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program that writes to two open files as fast as it can."""
    writer = subprocess.Popen([sys.executable, "-c", WRITER, *files], stdin=subprocess.DEVNULL)
    try:
        until(lambda: all(file.exists() and file.stat().st_size for file in files), 60, "the writer")
        yield writer
    finally:
        writer.kill()
        writer.wait()


EMASK = ["IN_CLOSE_WRITE", "IN_CREATE", "IN_DELETE", "IN_MOVED_FROM", "IN_MOVED_TO", "IN_ATTRIB"]


# A write is a change only with IN_MODIFY; then it costs more to handle than to make.
@pytest.mark.parametrize("emask", [EMASK, [*EMASK, "IN_MODIFY"]], ids=["as usual", "each a change"])
def test_endless_writer_starves_no_node_and_no_command(service: Service, emask: list[str]) -> None:
    s = service
    s.configure(emask=emask)
    s.daemon.start()
    s.until_ok()
    with writing(s.tree() / "one", s.tree() / "two") as writer:
        s.change("during")
        s.until_arrived("a", "during")
        s.until_arrived("b", "during")
        s.kill_worker("a")
        s.hup()
        assert s.daemon.stop(IN_TIME) == 0
        assert writer.poll() is None, "it was no test"


# Directories that go away --------------------------------------------------------------------------------


def test_log_directory_removed_and_made_again_is_used_again(
    service: Service,
) -> None:
    s = service
    directory = s.home / "log"
    directory.mkdir()
    log = directory / "inosync.log"
    s.configure(logfile=str(log))
    s.daemon.start()
    s.until_ok()
    pids = s.daemon.workers()
    shutil.rmtree(directory)
    for number in (signal.SIGHUP, signal.SIGUSR1):
        s.daemon.signal(number)
        s.change("without", number.name)
        s.until_arrived("a", "without", number.name)
        s.until_arrived("b", "without", number.name)
    assert not directory.exists()
    directory.mkdir()
    s.daemon.signal(signal.SIGUSR1)
    until(lambda: log.exists() and "log file reopened" in log.read_text(), 60, "the log to be back")
    s.daemon.hup()
    until(lambda: "default.py reloaded" in log.read_text(), 60, "the reload in the log")
    s.change("with")
    s.until_ok()
    assert s.daemon.workers() == pids
    assert "Traceback" not in log.read_text()


def test_run_directory_that_is_removed_is_made_again(service: Service) -> None:
    s = service
    s.daemon.start()
    s.until_ok()
    for prefix in ("first", "second"):
        with s.big_batch(prefix, 60) as names:
            remove_run_directory(s)
        for name in names:
            s.until_arrived("a", name, prefix)
        assert s.daemon.rundir.is_dir(), "it was no test"
        assert s.daemon.rundir.stat().st_mode & 0o777 == 0o700
        s.until_ok()
    remove_run_directory(s)
    socket = s.daemon.rundir / "default.sock"
    until(socket.is_socket, 60, "the control socket to be made again")
    assert ask(str(socket), {"command": "flush", "timeout": 60}, 90)["behind"] == []
    assert stat.S_IMODE(s.daemon.rundir.stat().st_mode) == 0o700
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    remove_run_directory(s)
    assert s.daemon.stop(IN_TIME) == 0
    assert "Traceback" not in s.daemon.log()


def lists(rundir: Path) -> list[Path]:
    """Return the files with long lists of names in a run directory."""
    return [path for path in rundir.glob("*.spool/*") if path.name != "marks"]


def remove_run_directory(s: Service) -> None:
    # rmtree fails on files that disappear by themselves, as b's last list may.
    until(lambda: not lists(s.daemon.rundir), 60, "long lists to be removed")
    shutil.rmtree(s.daemon.rundir)


ROOM = 256 * 1024
FILLED = 120 * 1024


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A mounted file system of ``ROOM`` bytes."""
    path = tmp_path / "tiny"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM},mode=700", "tmpfs", str(path)]
    done = subprocess.run(mount, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted: {done.stderr.strip()}")
    yield path
    # Lazily: a process of a test that failed must not leave it mounted.
    subprocess.run(["umount", "-l", str(path)], stdin=subprocess.DEVNULL, check=True)


@pytest.mark.skipif(not ROOT, reason="only root mounts")
def test_run_directory_that_was_full_is_used_when_it_has_room(tiny: Path, service: Service) -> None:
    s = service
    s.configure(rundir=str(tiny))
    s.daemon.start()
    s.until_ok()
    filler = tiny / "filler"
    # The list fits into the empty disk, but not beside the filler or a leftover of the first try.
    with s.big_batch("many", 800) as names:
        until(lambda: not lists(tiny), 60, "what b was sent to be removed")
        filler.write_bytes(bytes(FILLED))
    s.daemon.until_logged("No space left on device: a batch cannot be written; next try in 5 s")
    until(lambda: re.search(r"\[lagging\] no room in ", _title_of(s, "a")), 60, "the title to say why")
    assert not (s.copy("a") / names[0]).exists(), "it was no test"
    filler.unlink()
    s.until_arrived("a", names[-1], "many")
    s.until_ok()
    assert len(s.rsync.starts("full ")) == 2


@pytest.mark.skipif(not ROOT, reason="only root mounts")
def test_batch_larger_than_the_run_directory_becomes_a_full_mirror(tiny: Path, service: Service) -> None:
    s = service
    s.configure(rundir=str(tiny))
    s.daemon.start()
    s.until_ok()
    with s.big_batch("many", 2 * ROOM // 200) as names:
        pass
    s.daemon.until_logged(
        "a: .*: larger than the file system: a batch cannot be written: a full mirror takes"
    )
    s.until_arrived("a", names[-1], "many")
    s.until_ok()


@pytest.mark.skipif(not ROOT, reason="only root mounts")
def test_log_on_a_full_disk_is_written_when_it_has_room(tiny: Path, service: Service) -> None:
    s = service
    log = tiny / "inosync.log"
    s.configure(logfile=str(log))
    s.daemon.start()
    s.until_ok()
    pids = s.daemon.workers()
    filler = tiny / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:  # also fill the rest of the log's last page
            file.write(bytes(4096))
    for number in range(25):
        s.change("meanwhile", f"{number}")
        s.until_arrived("b", "meanwhile", f"{number}")
    size = log.stat().st_size
    # Lines that could not be written do not make the replacement of the log handler fail.
    s.configure(logfile=str(log), rnodes=[s.node("a", rwarm=False), s.node("b"), s.node("c")])
    s.daemon.hup()
    s.until_ok(["a", "b", "c"])
    s.daemon.signal(signal.SIGUSR1)
    s.change("meanwhile", "the last")
    s.until_arrived("b", "meanwhile", "the last")
    filler.unlink()
    s.change("afterwards")
    s.until_ok(["a", "b", "c"])
    until(lambda: log.stat().st_size > size, 30, "the log to go on")
    s.daemon.signal(signal.SIGUSR1)
    until(lambda: "log file reopened" in log.read_text(), 30, "a line in the log")
    assert {name: pid for name, pid in s.daemon.workers().items() if name != "c"} == pids
    assert "Traceback" not in log.read_text()


def _title_of(s: Service, node: str) -> str:
    pid = s.daemon.workers().get(node)
    return procs.title(pid) if pid else ""
