"""Programs that a process starts again and again: what they find, and that none of them outlives it."""

from __future__ import annotations

import fcntl
import os
import resource
import select
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from support import procs
from support.child_process import in_child
from support.wait import until

from inosync.system import descriptors, process, program

LOOP = "while :; do sleep 1000; done"
LIMIT = 60.0


def _output(started: program.Program, stream: str = "stdout") -> str:
    """All that a program prints on a stream."""
    fd, data = getattr(started, stream).fileno(), b""
    while select.select([fd], [], [], LIMIT)[0] and (piece := os.read(fd, 1 << 16)):
        data += piece
    return data.decode()


def _leader(run: Callable[[], object]) -> str:
    """What ``run`` returns in a process that leads its group and is bound to it."""

    def bound() -> object:
        os.setsid()
        program.bind_group()
        return run()

    return in_child(bound)


def _shell(text: str, *words: str) -> program.Program:
    return program.start(("/bin/sh", "-c", text, "sh", *words))


@pytest.mark.parametrize("run", [in_child, _leader], ids=["unbound", "bound"])
def test_program_has_three_streams_and_an_exit_code(run: Callable[[Callable[[], object]], str]) -> None:
    def talk() -> object:
        one = _shell('read line; echo "got $line"; echo oops >&2; exit 3')
        streams = one.stdin, one.stdout, one.stderr
        assert not any(os.get_blocking(stream.fileno()) for stream in streams)
        os.write(one.stdin.fileno(), b"this\n")
        return _output(one), _output(one, "stderr"), one.wait()

    assert run(talk) == repr(("got this\n", "oops\n", 3))


@pytest.mark.parametrize("idle", [False, True])
def test_program_finds_root_directory_english_and_default_signals(
    monkeypatch: pytest.MonkeyPatch, idle: bool
) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("INOSYNC_TEST", "handed on")
    text = "echo $LC_ALL; pwd; echo $INOSYNC_TEST; grep -E 'SigBlk|SigIgn' /proc/self/status; echo $#"

    def ask() -> object:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP})
        return _output(program.start(("/bin/sh", "-c", text, "sh", "a b", "*"), idle))

    said = _leader(ask).split("\n")
    assert said[:3] == ["C", "/", "handed on"]
    blocked, ignored = (int(line.split()[1], 16) for line in said[3:5])
    assert blocked == 0
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python itself ignores
        assert not ignored & 1 << (number - 1)
    assert said[5] == "2"


def test_program_has_no_descriptor_but_its_streams_and_the_lifeline() -> None:
    def ask() -> object:
        os.setsid()
        inherited = os.open("/", os.O_RDONLY)
        os.set_inheritable(inherited, True)
        program.bind_group()
        return _output(program.start(("/bin/ls", "-l", "/proc/self/fd")))

    links = [line.rpartition(" -> ")[2] for line in in_child(ask).splitlines() if " -> " in line]
    links = [link for link in links if not link.startswith("/proc/")]  # what ls itself reads
    assert len(links) == 4
    assert all(link.startswith("pipe:") for link in links)


@pytest.mark.parametrize("many", [False, True], ids=["few descriptors", "more than the soft limit"])
def test_programs_start_with_the_soft_limit_of_before_and_we_keep_ours(many: bool) -> None:
    def limits() -> object:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        low = max(map(int, os.listdir("/proc/self/fd"))) + 20
        resource.setrlimit(resource.RLIMIT_NOFILE, (low, hard))
        descriptors.raise_soft_limit()
        kept = [os.dup(0) for _ in range(30 * many)]
        soft = int(_output(_shell("ulimit -Sn")))
        with pytest.raises(FileNotFoundError):
            program.start(("/nonexistent/rsync",))
        return soft == low, resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard), len(kept)

    assert _leader(limits) == repr((True, True, 30 * many))


@pytest.mark.parametrize("run", [in_child, _leader], ids=["unbound", "bound"])
def test_missing_program_is_an_error_and_leaves_no_descriptor_open(
    run: Callable[[Callable[[], object]], str],
) -> None:
    def fail() -> object:
        before = os.listdir("/proc/self/fd")
        with pytest.raises(FileNotFoundError) as error:
            program.start(("/nonexistent/rsync",))
        return error.value.filename, os.listdir("/proc/self/fd") == before

    assert run(fail) == repr(("/nonexistent/rsync", True))


def test_programs_start_where_the_kernel_refuses_the_lifeline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_words: object) -> int:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    assert _leader(lambda: _output(_shell("pwd"))) == "/\n"


def _family_of_leader(
    started: list[procs.Process], count: int, run: Callable[[], object], end: Callable[[], object]
) -> list[procs.Process]:
    """A bound process that runs something and then ``end``; it first, then ``count`` descendants."""

    def lead() -> None:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        program.bind_group()
        kept = run()  # a pipe that is closed would end the program
        end()
        assert kept is not None

    leader = process.fork(lead, "leader")
    assert leader.pid is not None
    pid = leader.pid
    family = until(lambda: f if len(f := procs.family([pid])) > count else [], LIMIT, "the programs")
    started += family
    return family


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("stopped", [False, True])
def test_kernel_kills_programs_and_their_children_when_we_are_killed(
    started: list[procs.Process], number: signal.Signals, stopped: bool
) -> None:
    family = _family_of_leader(started, 4, lambda: (_shell(LOOP), _shell(LOOP)), signal.pause)
    if stopped:
        for each in family[1:]:
            procs.send(each, signal.SIGSTOP)
    procs.send(family[0], number)
    _, status = os.waitpid(family[0].pid, 0)
    assert os.waitstatus_to_exitcode(status) == -number
    until(lambda: not any(map(procs.alive, family)), LIMIT, "the end of the programs")


def test_kernel_kills_programs_that_close_the_lifeline_with_their_parents(
    started: list[procs.Process],
) -> None:
    # As ssh below an rsync does (closefrom(3) in its main).
    bash = 'for fd in /proc/self/fd/*; do fd=${fd##*/}; [ $fd -gt 2 ] && eval "exec $fd>&-"; done; '
    start = f"/bin/bash -c '{bash}{LOOP}' & {LOOP}"
    family = _family_of_leader(started, 4, lambda: _shell(start), signal.pause)
    procs.send(family[0], signal.SIGKILL)
    os.waitpid(family[0].pid, 0)
    until(lambda: not any(map(procs.alive, family)), LIMIT, "the end of the programs")


def test_end_of_the_leader_keeps_its_exit_code_and_kills_its_programs(
    started: list[procs.Process], tmp_path: Path
) -> None:
    go = tmp_path / "go"

    def leave() -> None:
        until(go.exists, LIMIT, "the word to leave")
        process.leave(7)

    family = _family_of_leader(started, 2, lambda: _shell(LOOP), leave)
    go.touch()
    _, status = os.waitpid(family[0].pid, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    until(lambda: not any(map(procs.alive, family)), LIMIT, "the end of the program")


def test_programs_outlive_a_reader_of_theirs_that_is_closed(started: list[procs.Process]) -> None:
    """Check that only the end of the process counts: other pipes, and other programs, may come and go."""

    reader, writer = os.pipe()

    def run() -> object:
        kept = _shell(LOOP)
        for _ in range(3):
            other = _shell("exit 0")
            other.wait()
            for stream in (other.stdin, other.stdout, other.stderr):
                stream.close()
        os.write(writer, b"x")
        return kept

    leader, *_ = _family_of_leader(started, 2, run, signal.pause)
    os.close(writer)
    os.set_blocking(reader, False)
    with open(reader, "rb", buffering=0) as pipe:
        until(lambda: pipe.read(1) == b"x", LIMIT, "the others to come and go")
    # Before that, one of the others may have been seen as one of the family.
    family = until(lambda: f if len(f := procs.family([leader.pid])) == 3 else [], LIMIT, "the program alone")
    started += family
    assert all(map(procs.alive, family))


def test_process_in_a_session_of_its_own_is_spared(started: list[procs.Process]) -> None:
    # What ssh leaves behind for ControlPersist.
    family = _family_of_leader(started, 3, lambda: _shell(f"setsid sleep 1000 & {LOOP}"), signal.pause)
    apart = until(
        lambda: [each for each in family[1:] if os.getsid(each.pid) == each.pid], LIMIT, "its own session"
    )
    procs.send(family[0], signal.SIGKILL)
    os.waitpid(family[0].pid, 0)
    left = [each for each in family if each not in apart]
    until(lambda: not any(map(procs.alive, left)), LIMIT, "the end of the group")
    assert procs.alive(apart[0])
