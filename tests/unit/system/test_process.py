"""Processes: titles, families, and that nothing outlives what started it."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest
from support import procs
from support.wait import until

import inosync
from inosync.system import process

SLEEP = ("/bin/sh", "-c", "while :; do sleep 1000; done")


def child(started: list[procs.Process], run: Callable[[], None]) -> int:
    """Fork; the child ends when ``run`` returns. The test reaps it."""
    forked = process.fork(run, "child")
    assert forked.pid is not None
    status = procs.look(forked.pid)
    assert status is not None
    started.append(status)
    return forked.pid


def test_processor_time_of_children_counts_when_they_are_waited_for() -> None:
    own, before = process.cpu_seconds(), process.reaped_cpu_seconds()
    burner = subprocess.Popen([sys.executable, "-c", "sum(range(3_000_000))"], stdin=subprocess.PIPE)
    os.waitid(os.P_PID, burner.pid, os.WEXITED | os.WNOWAIT)
    assert process.reaped_cpu_seconds() == before
    burner.communicate()
    assert process.reaped_cpu_seconds() > before
    assert process.cpu_seconds() > own


def fork_and_pause(count: int) -> None:
    """Have that many children; they and their parent do nothing."""
    for _ in range(count):
        if os.fork() == 0:
            break
    while True:
        signal.pause()


def script(text: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a Python that has inosync, with a pipe for its output."""
    prelude = "import os, signal, sys\nfrom inosync.system import process\n"
    return subprocess.Popen(
        [sys.executable, "-c", prelude + text, *arguments],
        cwd=Path(inosync.__file__).parents[1],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )


def read(stream: IO[bytes] | None) -> bytes:
    """What can be read of a non-blocking stream until its end."""
    assert stream is not None
    fd, data = stream.fileno(), b""
    while True:
        assert select.select([fd], [], [], 60)[0]
        piece = os.read(fd, 1 << 16)
        if not piece:
            return data
        data += piece


# Titles --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("title", "shown"),
    [
        (
            "inosync: user1@a.mirror.com [ok] synced 12:04:31",
            "inosync: user1@a.mirror.com [ok] synced 12:04:31",
        ),
        ("inosync: a\nb\x1b[31m\x7f", r"inosync: a\x0ab\x1b[31m\x7f"),
        ("inosync: caf\xe9", r"inosync: caf\xe9"),
        ("inosync: " + os.fsdecode(b"\xff"), r"inosync: \udcff"),
    ],
)
def test_title_is_visible_and_escapes_control_characters(title: str, shown: str) -> None:
    text = "process.set_title(sys.argv[1]); print('set', flush=True); sys.stdin.read(); signal.pause()"
    with script(text, title) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == b"set\n"
            assert procs.title(running.pid) == shown
        finally:
            running.kill()


# Families ------------------------------------------------------------------------------------------------


def test_children_and_family_list_descendants(started: list[procs.Process]) -> None:
    def two_more() -> None:
        fork_and_pause(2)

    first = child(started, two_more)
    until(lambda: len(process.children(first)) == 2, 60, "the grandchildren")
    found = process.family(first)
    started += [status for pid in found[1:] if (status := procs.look(pid))]
    assert found[0] == first
    assert sorted(found[1:]) == sorted(process.children(first))
    assert first in process.children(os.getpid())
    assert set(found) <= set(process.family(os.getpid()))


MUX = "ssh: /home/john/.ssh/cm-host [mux]"
"""The title of what ssh leaves behind for ControlPersist."""


@pytest.mark.parametrize(
    ("title", "is_left"),
    [
        (MUX, True),
        ("ssh: /tmp/with space and [mux] [mux]", True),
        ("ssh: /home/john/.ssh/cm-host", False),
        ("rsync /home/john/.ssh/cm-host [mux]", False),
        ("ssh: /home/john/[mux]/cm", False),
    ],
)
def test_process_that_ssh_left_for_sharing_is_no_orphan(title: str, is_left: bool) -> None:
    # In a process of its own: it must have no other children.
    text = """
import time
def lead():
    if os.fork() == 0:
        process.set_title(sys.argv[1])
        signal.pause()
process.adopt_orphans()
process.fork(lead, "lead").join()
[left] = process.children(os.getpid())
deadline = time.monotonic() + 30
def title():
    return open(f"/proc/{left}/cmdline").read().rstrip("\\0")
while title() != sys.argv[1] and time.monotonic() < deadline:
    time.sleep(0.01)
assert title() == sys.argv[1]
print(process.is_left_for_sharing(left), left in process.orphans(), left in process.family(os.getpid()))
process.end_family(30)
print(os.path.exists(f"/proc/{left}"))
os.path.exists(f"/proc/{left}") and os.kill(left, signal.SIGKILL)
"""
    with script(text, title) as running:
        assert running.stdout is not None
        said = running.stdout.read().decode().splitlines()
    assert said == ([f"{is_left} {not is_left} {not is_left}", f"{is_left}"])


def test_process_that_is_gone_has_no_children_and_can_be_signalled(started: list[procs.Process]) -> None:
    gone = child(started, lambda: process.leave(0))
    os.waitpid(gone, 0)
    assert process.children(gone) == []
    assert process.family(gone) == [gone]
    assert process.io_total([gone]) == 0
    process.send([gone], signal.SIGTERM)
    process.send_group(gone, signal.SIGTERM)


def test_io_total_counts_reads_and_writes(started: list[procs.Process], tmp_path: Path) -> None:
    reader, writer = os.pipe()

    def copy() -> None:
        os.close(writer)
        with open(tmp_path / "f", "wb", buffering=0) as file:
            while data := os.read(reader, 1 << 16):
                file.write(data)
        signal.pause()

    pid = child(started, copy)
    os.close(reader)
    before = process.io_total([pid])
    os.write(writer, b"x" * 10_000)
    until(lambda: process.io_total([pid]) >= before + 20_000, 60, "the copy")
    os.close(writer)
    assert process.io_total([pid, os.getpid()]) > process.io_total([pid])
    assert process.io_total([]) == 0


def test_unread_counts_bytes_in_a_pipe_from_either_end() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb", buffering=0) as out, os.fdopen(writer, "wb", buffering=0) as into:
        assert process.unread(reader) == process.unread(writer) == 0
        into.write(b"x" * 10_000)
        assert process.unread(reader) == process.unread(writer) == 10_000
        out.read(9_999)
        assert process.unread(writer) == 1
        out.read(1)
        assert process.unread(writer) == 0


def holder(started: list[procs.Process], *held: socket.socket) -> subprocess.Popen[bytes]:
    """A process that has these sockets, and no child."""
    made = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[each.fileno() for each in held])
    status = procs.look(made.pid)
    assert status is not None
    started.append(status)
    return made


def test_is_cut_off_when_the_far_end_of_the_connection_is_closed(
    started: list[procs.Process],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    with near, far, holder(started, near) as client:
        assert not process.is_cut_off(client.pid)
        far.sendall(b"something to read is no end")
        assert not process.is_cut_off(client.pid)
        far.close()
        until(lambda: process.is_cut_off(client.pid), 60, "the end to be seen")
        client.kill()


def test_is_cut_off_without_child_and_connection(started: list[procs.Process]) -> None:
    parent = child(started, lambda: fork_and_pause(1))
    until(lambda: process.children(parent), 60, "the child")
    started += procs.family(process.children(parent))
    assert not process.is_cut_off(parent)
    with holder(started) as alone:
        assert process.is_cut_off(alone.pid)
        alone.kill()
    assert process.is_cut_off(alone.pid)


def test_io_total_leaves_out_programs_by_name(started: list[procs.Process]) -> None:
    with holder(started) as copying:
        assert process.io_total([copying.pid]) > 0
        assert process.io_total([copying.pid], but=("cat",)) == 0
        assert process.io_total([copying.pid], but=("ca", "cats")) > 0
        copying.kill()


def test_send_group_signals_the_whole_group(started: list[procs.Process]) -> None:
    def lead() -> None:
        os.setpgid(0, 0)
        fork_and_pause(1)

    leader = child(started, lead)
    until(lambda: process.children(leader), 60, "the member")
    members = [status for pid in process.family(leader) if (status := procs.look(pid))]
    started += members[1:]
    process.send_group(leader, signal.SIGKILL)
    until(lambda: not any(procs.alive(member) for member in members), 60, "the end of the group")


def test_close_accepts_descriptors_that_are_not_open() -> None:
    fds = os.pipe()
    process.close(fds)
    process.close(fds)
    for fd in fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_leave_runs_no_exit_handler_of_the_parent() -> None:
    text = """
import atexit
atexit.register(print, "at exit", os.getpid() == int(os.environ.get("PARENT", os.getpid())))
os.environ["PARENT"] = str(os.getpid())
child = process.fork(lambda: process.leave(3), "child")
child.join()
print(child.exitcode, flush=True)
"""
    with script(text) as running:
        assert running.stdout is not None
        assert running.stdout.read() == b"3\nat exit True\n"
        assert running.wait(60) == 0


# Programs ------------------------------------------------------------------------------------------------


def test_spawn_gives_three_streams_that_do_not_block() -> None:
    with process.spawn(("/bin/sh", "-c", 'read line; echo "got $line"; echo oops >&2; exit 3')) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        assert program.stderr is not None
        for stream in (program.stdin, program.stdout, program.stderr):
            assert not os.get_blocking(stream.fileno())
        assert os.write(program.stdin.fileno(), b"this\n") == 5
        assert read(program.stdout) == b"got this\n"
        assert read(program.stderr) == b"oops\n"
        assert program.wait(60) == 3


def test_spawn_starts_in_root_directory_in_english_with_no_signal_blocked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("INOSYNC_TEST", "handed on")
    command = "echo $LC_ALL; pwd; echo $INOSYNC_TEST; grep SigBlk /proc/self/status; echo $#"
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP})
    try:
        with process.spawn(("/bin/sh", "-c", command, "sh", "a b", "*")) as program:
            said = read(program.stdout).decode().splitlines()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert said[0] == "C"
    assert said[1] == "/"
    assert said[2] == "handed on"
    assert int(said[3].split()[1], 16) == 0
    assert said[4] == "2"


def test_spawn_of_a_missing_program_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        process.spawn((str(tmp_path / "none"),))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_spawned_program_ends_with_its_parent_however_that_ends(
    started: list[procs.Process], number: signal.Signals
) -> None:
    reader, writer = os.pipe()

    def start() -> None:
        os.close(reader)
        if number != signal.SIGKILL:  # whoever runs the tests may have ignored it
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        program = process.spawn(SLEEP)
        os.write(writer, b"%d\n" % program.pid)
        while True:
            signal.pause()

    parent = child(started, start)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        program = procs.look(int(stream.readline()))
    assert program is not None
    # With its child, which it leaves behind.
    started += until(lambda: f[1:] if len(f := procs.family([program.pid])) == 2 else [], 60, "the program")
    started.append(program)
    assert procs.alive(program)
    os.kill(parent, number)
    until(lambda: not procs.alive(program), 60, "the end of the program")


def test_die_with_parent_works_when_the_parent_died_before(started: list[procs.Process]) -> None:
    # The parent's pid is told by the caller: whoever has another parent by now has lost it.
    def run() -> None:
        process.die_with_parent(signal.SIGUSR1, os.getpid())
        signal.pause()

    pid = child(started, run)
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGUSR1


def test_spawned_program_that_is_stopped_ends_with_its_parent(started: list[procs.Process]) -> None:
    reader, writer = os.pipe()

    def start() -> None:
        os.close(reader)
        program = process.spawn(SLEEP)
        os.kill(program.pid, signal.SIGSTOP)
        os.write(writer, b"%d\n" % program.pid)
        signal.pause()

    parent = child(started, start)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        program = procs.look(int(stream.readline()))
    assert program is not None
    started.append(program)
    os.kill(parent, signal.SIGKILL)
    until(lambda: not procs.alive(program), 30, "the end of the program")


def test_abandoned_child_is_not_waited_for() -> None:
    text = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which it would be sent at the end, and waited for
child = process.fork(signal.pause, "hangs")
process.abandon(child)
process.abandon(None)
print(child.pid, flush=True)
"""
    with script(text) as running:
        assert running.stdout is not None
        left = procs.look(int(running.stdout.readline()))
        assert left is not None
        try:
            assert running.wait(60) == 0
            assert procs.alive(left)
        finally:
            procs.send(left, signal.SIGKILL)


# Orphans -------------------------------------------------------------------------------------------------


def test_end_family_ends_descendants_whatever_they_do() -> None:
    text = """
import time
process.adopt_orphans()
def lead():
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.kill(os.getpid(), signal.SIGSTOP)
    signal.pause()
leaders = [process.fork(lead, "leader") for _ in range(3)]
deadline = time.monotonic() + 30
while len(family := process.family(os.getpid())) < 7 and time.monotonic() < deadline:
    time.sleep(0.01)
os.kill(leaders[0].pid, signal.SIGKILL)
process.end_family(30)
assert len(family) == 7
assert process.family(os.getpid()) == [os.getpid()]
print("good")
process.leave(0)
"""
    with script(text) as running:
        assert running.stdout is not None
        assert running.stdout.read().splitlines()[-1:] == [b"good"]
        assert running.wait(60) == 0


def test_end_family_kills_what_a_dead_child_left_and_spares_known_ones() -> None:
    # In a process of its own: it kills every child that it was not told of.
    text = """
import time
def lead():
    for _ in range(2):
        if os.fork() == 0:
            break
    signal.pause()
process.adopt_orphans()
known = process.fork(signal.pause, "known")
leader = process.fork(lead, "leader")
deadline = time.monotonic() + 30
while len(process.children(leader.pid)) < 2 and time.monotonic() < deadline:
    time.sleep(0.01)
left = process.children(leader.pid)
assert len(left) == 2
leader.kill()
leader.join()
while time.monotonic() < deadline:
    process.send(process.orphans([known.pid]), signal.SIGKILL)
    if process.children(os.getpid()) == [known.pid]:
        break
    time.sleep(0.01)
assert process.children(os.getpid()) == [known.pid]
for pid in left:
    assert not os.path.exists(f"/proc/{pid}"), pid
assert known.is_alive()
known.kill()
known.join()
assert process.orphans() == []
print("good")
"""
    with script(text) as running:
        assert running.stdout is not None
        assert running.stdout.read().splitlines()[-1:] == [b"good"]
        assert running.wait(60) == 0


@pytest.mark.parametrize("failing", ["pipe", "fork"])
def test_fork_that_fails_leaves_no_descriptor_open(failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pipes = iter([os.pipe] * (1 if failing == "pipe" else 100))

    def pipe() -> tuple[int, int]:
        if real := next(pipes, None):
            return real()
        raise OSError(errno.EMFILE, "Too many open files")

    def fork() -> int:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    before = os.listdir("/proc/self/fd")
    with monkeypatch.context() as patch:
        patch.setattr(os, "pipe", pipe)
        patch.setattr(os, "fork", fork)
        for _ in range(3):
            with pytest.raises(OSError, match=r"Too many|temporarily unavailable"):
                process.fork(lambda: None, "child")
    assert os.listdir("/proc/self/fd") == before
