"""Transfers, with shell scripts in the place of rsync, for what rsync itself cannot be made to do."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.real_rsync import RSYNC
from support.wait import until

from inosync.rsync import transfer as transfers
from inosync.rsync.argv import NO_NAME, SAYS_END, TransferSettings, batch_argv, names_input
from inosync.rsync.stderr import failure_reason
from inosync.rsync.transfer import Transfer
from inosync.system import process
from inosync.system.loop import Loop

LIMIT = 30.0
READ_NO_NAME = "head -c 1 >/dev/null"
"""What rsync does once it is connected."""


class Run:
    """A transfer of a script, and the loop that it is in."""

    def __init__(
        self, script: str, timeout: float = 0.0, listener: Callable[[list[bytes]], None] | None = None
    ) -> None:
        self.loop = Loop()
        self.transfer = Transfer(("/bin/sh", "-c", script), timeout, self.loop, listener)

    def until(self, condition: Callable[[], bool], what: str) -> None:
        def turned() -> bool:
            for _ in range(20):  # because ``until`` pauses, and a pipe holds little
                self.loop.turn(0.05)
                if condition():
                    return True
            return False

        until(turned, LIMIT, what)

    def end(self) -> int:
        self.until(lambda: self.transfer.done, "the end of the transfer")
        assert self.transfer.code is not None
        return self.transfer.code


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Run]]:
    monkeypatch.setattr(transfers, "KILL_AFTER_SECONDS", 0.2)
    runs: list[Run] = []

    def start(
        script: str, timeout: float = 0.0, listener: Callable[[list[bytes]], None] | None = None
    ) -> Run:
        runs.append(Run(script, timeout, listener))
        return runs[-1]

    yield start
    for each in runs:
        each.transfer.terminate()
        each.end()


Start = Callable[..., Run]


# Names


def test_names_are_sent_once_rsync_has_read_the_empty_name(run: Start, tmp_path: Path) -> None:
    go, got = tmp_path / "go", tmp_path / "got"
    one = run(f"until [ -e {go} ]; do sleep 0.01; done; {READ_NO_NAME}; cat >{got}")
    asked: list[bool] = []

    def may_send() -> bool:
        asked.append(one.transfer.is_connected)
        return True

    one.transfer.send_when_connected(b"a\0b\0", may_send)
    one.loop.turn(0.05)
    assert (asked, one.transfer.names_sent_at) == ([], None)
    go.touch()
    assert one.end() == 0
    assert got.read_bytes() == b"a\0b\0"
    assert asked == [True]
    assert one.transfer.names_sent_at is not None
    assert not one.transfer.was_warm


def test_names_are_asked_for_after_they_may_be_sent(run: Start, tmp_path: Path) -> None:
    got, names = tmp_path / "got", [b"a", b"b"]
    one = run(f"{READ_NO_NAME}; cat >{got}")

    def may_send() -> bool:
        names.remove(b"a")
        return True

    one.transfer.send_when_connected(lambda: names_input(names), may_send)
    assert one.end() == 0
    assert got.read_bytes() == names_input([b"b"])


def test_transfer_that_was_connected_before_is_warm(run: Start) -> None:
    one = run(f"{READ_NO_NAME}; cat >/dev/null")
    one.transfer.send_empty_name()
    one.until(lambda: one.transfer.is_connected, "the connection")
    one.transfer.send_when_connected(b"a\0")
    assert one.end() == 0
    assert one.transfer.was_warm


def test_names_that_may_not_be_sent_cancel_the_transfer(run: Start, tmp_path: Path) -> None:
    got = tmp_path / "got"
    one = run(f"{READ_NO_NAME}; cat >{got}")
    one.transfer.send_when_connected(b"a\0", lambda: False)
    assert one.end() == -signal.SIGTERM
    assert (one.transfer.cancelled, one.transfer.names_sent_at) == (True, None)
    assert not got.exists() or got.read_bytes() == b""


def test_names_are_not_sent_when_the_source_cannot_be_checked(run: Start) -> None:
    def may_send() -> bool:
        raise FileNotFoundError(2, "No such file or directory")

    one = run(f"{READ_NO_NAME}; cat >/dev/null")
    one.transfer.send_when_connected(b"a\0", may_send)
    assert one.end() == -signal.SIGTERM
    assert (one.transfer.cancelled, one.transfer.names_sent_at) == (False, None)


def test_names_that_a_pipe_cannot_hold_are_sent_whole(run: Start, tmp_path: Path) -> None:
    got, names = tmp_path / "got", b"name\0" * 100_000
    one = run(f"sleep 0.1; cat >{got}")
    one.transfer.send_names(names)
    assert one.end() == 0
    assert got.read_bytes() == names


@pytest.mark.parametrize("names", [b"a\0", b"name\0" * 100_000])
def test_names_for_an_rsync_that_ends_early_are_no_error(run: Start, names: bytes) -> None:
    one = run("exit 5")
    one.transfer.send_names(names)
    assert one.end() == 5
    one.transfer.send_names(names)
    one.transfer.send_empty_name()
    assert not one.transfer.is_connected


def test_directory_is_that_of_the_process(run: Start, tmp_path: Path) -> None:
    one = run(f"cd {tmp_path}; {READ_NO_NAME}; cat >/dev/null")
    one.transfer.send_empty_name()
    one.until(lambda: one.transfer.is_connected, "the connection")
    assert os.path.samestat(one.transfer.directory_status, tmp_path.stat())
    one.transfer.terminate()
    one.end()
    with pytest.raises(FileNotFoundError):
        assert one.transfer.directory_status


# Output


def test_output_is_collected_by_lines_and_progress_is_not_kept(run: Start) -> None:
    progress = r"  2  28%%    0.00kB/s    0:00:00 (xfr#1, to-chk=11/13)\r"
    one = run(rf"printf 'one\n\n{progress}two'; printf 'three\r\nfour' >&2; exit 23")
    assert one.end() == 23
    assert (one.transfer.stdout, one.transfer.percent) == ([b"one", b"two"], 15)
    assert one.transfer.stderr == [b"three", b"four"]
    assert not one.transfer.is_truncated


def test_listener_gets_standard_output_instead(run: Start) -> None:
    heard: list[bytes] = []
    one = run("echo one; echo two", listener=heard.extend)
    assert one.end() == 0
    assert (heard, one.transfer.stdout) == ([b"one", b"two"], [])


@pytest.mark.parametrize("stream", ["1", "2"])
def test_output_without_end_is_truncated_from_its_beginning(run: Start, stream: str) -> None:
    one = run(f"seq 10000 >&{stream}")
    one.end()
    kept = one.transfer.stdout if stream == "1" else one.transfer.stderr
    assert (len(kept) <= 2_000, kept[-1]) == (True, b"10000")
    assert one.transfer.is_truncated


def test_transfer_ends_though_a_process_left_behind_holds_its_pipes(run: Start, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    one = run(f"sleep 1000 & echo $! >{pid}; echo said; exit 3")
    try:
        assert one.end() == 3
        assert one.transfer.stdout == [b"said"]
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)


@pytest.mark.parametrize("stream", ["1", "2"])
def test_transfer_ends_though_a_process_left_behind_fills_its_pipes(
    run: Start, tmp_path: Path, stream: str
) -> None:
    pid = tmp_path / "pid"
    one = run(f"yes noise >&{stream} & echo $! >{pid}; sleep 0.1; exit 3")
    try:
        one.end()
    finally:
        with contextlib.suppress(ProcessLookupError):  # it may have met the end of its pipe
            os.kill(int(pid.read_text()), signal.SIGKILL)


WAITS = "sleep 60 & echo client_run waiting on $!; wait"


@pytest.mark.parametrize(
    ("says_end", "script", "is_through"),
    [
        (True, WAITS, True),
        (True, f"echo sent; {WAITS}", True),
        (False, WAITS, False),
        (True, f"echo vanished >&2; {WAITS}", False),
        (True, "echo client_run waiting on 1; sleep 60", False),  # a file of that name
        (True, "sleep 60", False),
    ],
)
def test_rsync_that_has_said_so_without_a_complaint_is_through(
    says_end: bool, script: str, is_through: bool
) -> None:
    loop = Loop()
    words = ("/bin/sh", "-c", f"{READ_NO_NAME}; {script} #", *((SAYS_END,) if says_end else ()))
    transfer = Transfer(words, 0.0, loop)
    try:
        transfer.send_when_connected(names_input([b"a"]))

        def printed() -> bool:
            loop.turn(0.02)
            is_quiet = script == "sleep 60" and transfer.names_sent_at is not None
            return is_quiet or any(b"waiting on" in line for line in transfer.stdout)

        until(printed, LIMIT, "what it prints")
        assert transfer.is_through is is_through
    finally:
        process.send(process.family(transfer.pid), signal.SIGKILL)

        def ended() -> bool:
            loop.turn(0.02)
            return transfer.done

        until(ended, LIMIT, "its end")
    assert not transfer.is_through, "it has ended"


@pytest.mark.skipif(not RSYNC, reason="rsync is not installed")
def test_last_words_are_no_reason_of_a_failure(tmp_path: Path) -> None:
    """After a failure rsync says on standard error how it exits: that must not be taken for a complaint."""
    source, limit = tmp_path / "source", 1 << 20
    source.mkdir()
    (source / "big").write_bytes(bytes(2 * limit))
    target = tmp_path / "target"
    target.mkdir()
    settings = TransferSettings(RSYNC, str(source), str(target), says_end=True)
    loop = Loop()
    # The receiver may not write so much to a file.
    words = (
        "/bin/sh",
        "-c",
        f'ulimit -f {limit // 512}; trap "" XFSZ; exec "$@"',
        "sh",
        *batch_argv(settings),
    )
    transfer = Transfer(words, 0.0, loop)
    transfer.send_when_connected(names_input([b"big"]))

    def ended() -> bool:
        loop.turn(0.02)
        return transfer.done

    until(ended, LIMIT, "its end")
    assert transfer.code == 11, transfer.stderr
    assert "File too large" in failure_reason(11, transfer.stderr)
    assert not [line for line in (*transfer.stdout, *transfer.stderr) if b"_exit_cleanup" in line]


def test_output_of_an_rsync_that_is_not_needed_wakes_nobody(run: Start) -> None:
    one = run("echo a; echo b >&2; head -c 1 >/dev/null")
    one.loop.turn(0.1)
    assert (one.transfer.stdout, one.transfer.stderr) == ([], [])
    one.transfer.send_empty_name()
    assert one.end() == 0
    assert (one.transfer.stdout, one.transfer.stderr) == ([b"a"], [b"b"])


@pytest.mark.parametrize("stream", [1, 2])
@pytest.mark.parametrize("before", ["", "head -c 1 >/dev/null; "], ids=["not connected", "connected"])
def test_output_that_no_pipe_holds_does_not_hold_up_a_transfer(run: Start, stream: int, before: str) -> None:
    one = run(f"{before}yes line | head -n 20000 >&{stream}; cat >/dev/null")
    one.transfer.send_when_connected(b"a\0")
    assert one.end() == 0
    assert (one.transfer.stdout or one.transfer.stderr)[-1] == b"line"


def test_output_may_be_watched_twice_and_at_the_end(run: Start) -> None:
    one = run("echo a; cat >/dev/null")
    one.transfer.watch_output()
    one.until(lambda: one.transfer.stdout == [b"a"], "its output")
    one.transfer.watch_output()
    one.transfer.send_names(b"")
    assert one.end() == 0
    one.transfer.watch_output()


# How it is ended


def test_flood_of_errors_before_the_names_is_aborted(run: Start) -> None:
    one = run("exec yes noise >&2")
    one.transfer.watch_output()
    assert one.end() == -signal.SIGTERM
    assert one.transfer.abort_reason == "more than 1 MiB of errors"


def test_flood_of_errors_after_the_names_has_a_higher_limit(
    run: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "MAX_STDERR_BYTES", 2 << 20)
    one = run("cat >/dev/null; exec yes noise >&2")
    one.transfer.send_names(b"")
    assert one.end() == -signal.SIGTERM
    assert one.transfer.abort_reason == "more than 2 MiB of errors"


def test_many_errors_after_the_names_are_no_flood(run: Start) -> None:
    one = run("cat >/dev/null; yes noise | head -c 3000000 >&2; exit 23")
    one.transfer.send_names(b"")
    assert (one.end(), one.transfer.abort_reason) == (23, "")


def test_transfer_without_progress_is_aborted(run: Start) -> None:
    one = run("exec sleep 1000", 0.2)
    one.transfer.send_names(b"")
    assert one.end() == -signal.SIGTERM
    assert one.transfer.abort_reason == "no progress for 0.2 s"


def test_transfer_without_names_may_wait_for_ever(run: Start) -> None:
    one = run("exec sleep 1000", 0.01)
    assert one.loop.next_timer == float("inf")
    assert not one.transfer.done


def test_transfer_with_progress_is_not_aborted(run: Start) -> None:
    one = run("for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.1; done", 0.5)
    one.transfer.send_names(b"")
    assert one.end() == 0
    assert one.transfer.abort_reason == ""


def test_transfer_that_opens_a_fifo_is_aborted(run: Start, tmp_path: Path) -> None:
    if not process.waits_for_fifo.__doc__ or Path("/proc/self/wchan").read_text() == "":
        pytest.skip("the kernel does not show where a process sleeps")
    os.mkfifo(tmp_path / "fifo")
    one = run(f"exec cat {tmp_path}/fifo", 1.0)
    one.transfer.send_names(b"")
    one.end()
    assert one.transfer.abort_reason in (
        "a file became a FIFO while it was to be sent",
        "no progress for 1 s",  # the kernel shows no wchan to us
    )


def test_transfer_that_ignores_sigterm_is_killed(run: Start) -> None:
    one = run("trap '' TERM; echo ready; while :; do sleep 0.01; done")
    one.transfer.watch_output()
    one.until(lambda: bool(one.transfer.stdout), "the trap")
    one.transfer.terminate()
    assert one.end() == -signal.SIGKILL


def test_stopped_transfer_is_ended_all_the_same(run: Start) -> None:
    one = run("exec sleep 1000")
    os.kill(one.transfer.pid, signal.SIGSTOP)
    one.transfer.terminate()
    assert one.end() == -signal.SIGTERM


def test_superseded_transfer_says_so(run: Start) -> None:
    one = run("exec sleep 1000")
    assert not one.transfer.superseded
    one.transfer.supersede()
    assert one.end() == -signal.SIGTERM
    assert one.transfer.superseded


def test_transfer_that_has_ended_is_not_superseded(run: Start) -> None:
    one = run("exit 12")
    one.end()
    one.transfer.supersede()
    assert (one.transfer.superseded, one.transfer.code) == (False, 12)


def test_aborted_transfer_is_not_superseded(run: Start) -> None:
    one = run("exec sleep 1000")
    one.transfer.abort("no progress")
    one.transfer.supersede()
    one.end()
    assert (one.transfer.superseded, one.transfer.abort_reason) == (False, "no progress")


def test_first_reason_to_abort_stays(run: Start) -> None:
    one = run("exec sleep 1000")
    one.transfer.abort("first")
    one.transfer.abort("second")
    assert one.transfer.abort_reason == "first"


def test_processor_time_is_that_of_transfers_that_are_not_idle() -> None:
    loop, burn = Loop(), ("/bin/sh", "-c", "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done")
    taken = []
    for idle in (False, True):
        before = Transfer.cpu_seconds
        transfer = Transfer(burn, 0.0, loop, idle=idle)
        deadline = loop.clock() + LIMIT
        while not transfer.done:
            loop.turn(0.05)
            assert loop.clock() < deadline
        taken.append(Transfer.cpu_seconds - before)
    assert taken[0] > 0
    assert taken[1] == 0


def test_transfer_leaves_no_timer_and_no_descriptor_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    loop = Loop()
    for _ in range(3):
        one = Transfer((sys.executable, "-c", "import sys; sys.stdin.read()"), 5.0, loop)
        one.send_when_connected(NO_NAME)
        while not one.done:
            loop.turn(0.05)
    assert loop.next_timer == float("inf")
    descriptors = loop.descriptors()
    assert len(os.listdir("/proc/self/fd")) <= before + len(descriptors)


def test_transfer_of_a_missing_program_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        Transfer(("/nonexistent/rsync",), 0.0, Loop())


# Stopped for another transfer


def stands_still(run: Run) -> bool:
    """Whether it is stopped, or waits (D) for a child that was stopped between vfork and exec."""
    return Path(f"/proc/{run.transfer.pid}/stat").read_text().rpartition(")")[2].split()[0] in "TD"


def test_stopped_transfer_waits_and_goes_on(run: Start, tmp_path: Path) -> None:
    done = tmp_path / "done"
    one = run(f"{READ_NO_NAME}; cat >/dev/null; touch {done}", timeout=0.2)
    one.transfer.set_stopped(True)
    one.until(lambda: stands_still(one), "the transfer to stand still")
    one.transfer.send_when_connected(b"a\0")
    one.transfer.set_stopped(True)
    until_after = one.loop.clock() + 0.6
    one.until(lambda: one.loop.clock() > until_after, "more than its timeout")
    assert one.transfer.abort_reason == "", "it makes no progress because it is stopped"
    assert not done.exists()
    one.transfer.set_stopped(False)
    assert one.end() == 0
    assert done.exists()
    one.transfer.set_stopped(True)  # it is gone


def test_stopped_transfer_is_ended_politely(run: Start, tmp_path: Path) -> None:
    said, ready = tmp_path / "said", tmp_path / "ready"
    one = run(f"trap 'touch {said}; exit 20' TERM; touch {ready}; while :; do sleep 0.01; done")
    one.until(ready.exists, "the script")
    one.transfer.set_stopped(True)
    one.until(lambda: stands_still(one), "the transfer to stand still")
    one.transfer.terminate()
    one.transfer.set_stopped(True)  # it is to end
    assert one.end() == 20
    assert said.exists()
