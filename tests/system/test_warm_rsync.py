"""A warm rsync as it is: a real one, over a local path, to a real rsync daemon, and over ssh."""

from __future__ import annotations

import gc
import os
import select
import shutil
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support import procs
from support.rsyncd import MakeRsyncd, Rsyncd
from support.sshd import Sshd
from support.wait import until

from inosync.rsync.argv import TransferSettings, batch_argv, names_input
from inosync.rsync.transfer import Transfer
from inosync.system import peers, process
from inosync.system.loop import Loop
from inosync.worker.warm import POLL_SECONDS, WarmRsync

RSYNC = shutil.which("rsync") or ""
pytestmark = pytest.mark.skipif(not RSYNC, reason="rsync is not installed")

LIMIT = 60.0
FOR_EVER = 3_600.0


@dataclass
class Harness:
    """A source, and a loop in which warm_rsyncs for it live. All that was started ends with the test."""

    home: Path
    started: list[procs.Process] = field(default_factory=list)
    transfers: list[Transfer] = field(default_factory=list)
    warm_rsyncs: list[WarmRsync] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.src, self.dst = self.home / "src", self.home / "dst"
        self.src.mkdir()
        self.dst.mkdir()
        self.rsh = ""
        self.loop = Loop(self.clock)
        self.ahead = 0.0
        """Seconds that the clock is ahead of the real one."""

    def clock(self) -> float:
        return time.monotonic() + self.ahead

    def start(
        self, target: str = "", patience: float = LIMIT, age: float = FOR_EVER, timeout: float = 0.0
    ) -> WarmRsync:
        settings = TransferSettings(RSYNC, str(self.src), target or str(self.dst), rsh=self.rsh)
        argv = batch_argv(settings)
        transfer = Transfer(argv, timeout, self.loop)
        self.transfers.append(transfer)
        self.started += procs.family([transfer.pid])
        self.warm_rsyncs.append(WarmRsync(transfer, self.loop, patience, age))
        return self.warm_rsyncs[-1]

    def ready(self, target: str = "") -> WarmRsync:
        """A warm that is connected."""
        warm = self.start(target)
        self.turn(warm, lambda: warm.connected_at is not None or bool(warm.lost), "the connection")
        assert not warm.lost, warm.lost
        self.started += procs.family([warm.pid])
        return warm

    def turn(self, warm: WarmRsync, condition: Callable[[], bool], what: str) -> None:
        """Do as the worker does, until the condition is true."""

        def one() -> bool:
            self.loop.turn(min(max(warm.deadline - self.clock(), 0), 0.05))
            warm.check()
            return condition()

        until(one, LIMIT, what)

    def finish(self, transfer: Transfer) -> None:
        """Let a transfer end."""

        def one() -> bool:
            self.loop.turn(0.05)
            return transfer.done

        until(one, LIMIT, "the end of the transfer")

    def close(self) -> None:
        for transfer in self.transfers:
            self.started += [] if transfer.done else procs.family([transfer.pid])
        for warm in self.warm_rsyncs:
            warm.end()
        for each in self.started:
            procs.send(each, signal.SIGKILL)
        for transfer in self.transfers:
            if not transfer.done:
                self.finish(transfer)


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    made = Harness(tmp_path)
    yield made
    made.close()


Place = tuple[str, Rsyncd | None]
"""A target for rsync, and the daemon that serves it, if one does."""


@pytest.fixture(params=["local path", "daemon", "ssh"])
def place(request: pytest.FixtureRequest, harness: Harness, rsyncd: MakeRsyncd) -> Place:
    """A node of each kind."""
    if request.param == "local path":
        return str(harness.dst), None
    if request.param == "daemon":
        server = rsyncd({"www": harness.dst})
        return server.url("www"), server
    sshd: Sshd = request.getfixturevalue("sshd")
    harness.rsh = sshd.rsh
    return sshd.node("a", harness.dst), None


@pytest.fixture(params=["told by the kernel", "looked for"])
def seen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways in which the end of a connection is noticed."""
    way = str(request.param)
    if way == "looked for":

        def forbidden(_process: int, _number: int) -> int:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(peers, "_duplicate", forbidden)
    return way


# The common case -----------------------------------------------------------------------------------------


def test_warm_rsync_waits_connected_and_sends_its_names(harness: Harness, place: Place, seen: str) -> None:
    target, server = place
    warm = harness.ready(target)
    if server is not None:  # that of who has looked whether it listens may have a moment left
        until(lambda: len(server.connections()) == 1, LIMIT, "one connection")
    (harness.src / "f").write_text("made after it was connected")
    transfer = warm.take(str(harness.src))
    assert transfer is not None, (warm.lost, seen)
    assert transfer.is_connected
    assert transfer.names_sent_at is None
    transfer.send_names(names_input([b"f"]))
    harness.finish(transfer)
    assert (transfer.code, transfer.stderr) == (0, [])
    assert (harness.dst / "f").read_text() == "made after it was connected"


def test_empty_name_at_the_start_changes_nothing(harness: Harness, place: Place) -> None:
    target, _ = place
    (harness.src / "f").write_text("new")
    (harness.dst / "mine").write_text("the node's own")
    transfer = harness.ready(target).take(str(harness.src))
    assert transfer is not None
    transfer.send_names(names_input([]))
    harness.finish(transfer)
    assert (transfer.code, transfer.stderr) == (0, [])
    assert [path.name for path in harness.dst.iterdir()] == ["mine"]


def test_warm_rsync_still_connecting_sends_its_names(harness: Harness, place: Place) -> None:
    target, _ = place
    (harness.src / "f").write_text("x")
    warm = harness.start(target)
    transfer = warm.take(str(harness.src))
    assert transfer is not None
    transfer.send_names(names_input([b"f"]))
    harness.finish(transfer)
    assert (transfer.code, (harness.dst / "f").read_text()) == (0, "x")


def test_warm_rsync_that_waits_has_no_deadline(harness: Harness) -> None:
    warm = harness.ready()
    assert warm.deadline >= harness.clock() + FOR_EVER / 2
    assert harness.loop.next_timer >= harness.clock() + FOR_EVER / 2


def test_warm_rsync_is_polled_where_the_kernel_does_not_tell(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(_process: int, _number: int) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(peers, "_duplicate", forbidden)
    warm = harness.ready()
    assert warm.deadline <= harness.clock() + POLL_SECONDS
    for _ in range(3):
        harness.ahead += max(warm.deadline - harness.clock(), 0)
        before = harness.clock()
        warm.check()
        assert not warm.lost
        assert warm.deadline >= before + POLL_SECONDS


# The other side goes -------------------------------------------------------------------------------------


def is_noticed(harness: Harness, warm: WarmRsync, seen: str) -> None:
    if seen == "looked for":
        harness.ahead += POLL_SECONDS
    harness.turn(warm, lambda: bool(warm.lost), "the end of the far side to be noticed")
    assert warm.take(str(harness.src)) is None


def test_death_of_its_child_is_noticed(harness: Harness, seen: str) -> None:
    warm = harness.ready()
    (child,) = process.children(warm.pid)
    os.kill(child, signal.SIGKILL)
    is_noticed(harness, warm, seen)


def test_death_of_the_far_side_of_ssh_is_noticed(harness: Harness, own_sshd: Sshd, seen: str) -> None:
    harness.rsh = own_sshd.rsh
    warm = harness.ready(own_sshd.node("a", harness.dst))
    own_sshd.drop()
    is_noticed(harness, warm, seen)


@pytest.mark.parametrize("ending", [Rsyncd.drop, Rsyncd.stop, Rsyncd.kill])
def test_end_of_the_daemon_is_noticed(
    harness: Harness, rsyncd: MakeRsyncd, seen: str, ending: Callable[[Rsyncd], None]
) -> None:
    server = rsyncd({"www": harness.dst})
    warm = harness.ready(server.url("www"))
    ending(server)
    is_noticed(harness, warm, seen)
    assert warm.lost == "the node has closed the connection"


class Middle:
    """Something between a node and us that passes on what both say, until it resets the connection."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(LIMIT)
        self.port = int(self._listening.getsockname()[1])
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._pass_on)
        self._thread.start()

    def _pass_on(self) -> None:
        near, _ = self._listening.accept()
        with near, socket.create_connection(("127.0.0.1", self._to)) as far:
            other = {near: far, far: near}
            while True:
                readable, _, _ = select.select([near, far, self._woken], [], [])
                if self._woken in readable:
                    break
                for each in readable:
                    data = each.recv(1 << 16)
                    if not data:
                        return
                    other[each].sendall(data)
            near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def reset(self) -> None:
        self._wake.send(b"x")
        self._thread.join(LIMIT)

    def close(self) -> None:
        self.reset()
        for each in (self._listening, self._wake, self._woken):
            each.close()


def test_reset_connection_is_not_taken_for_an_unreachable_node(harness: Harness, rsyncd: MakeRsyncd) -> None:
    # A node, or a firewall, may end idle connections in this way again and again. That is no outage.
    server = rsyncd({"www": harness.dst})
    middle = Middle(server.port)
    try:
        warm = harness.ready(f"rsync://127.0.0.1:{middle.port}/www")
        middle.reset()
        is_noticed(harness, warm, "told by the kernel")
        assert not warm.is_broken
    finally:
        middle.close()


def test_timeout_of_the_daemon_is_noticed(harness: Harness, rsyncd: MakeRsyncd, seen: str) -> None:
    server = rsyncd({"www": harness.dst}, options={"timeout": "1"})
    warm = harness.ready(server.url("www"))
    until(lambda: not server.connections(), LIMIT, "the daemon to give up")
    is_noticed(harness, warm, seen)


def test_death_of_the_rsync_itself_is_noticed(harness: Harness, place: Place, seen: str) -> None:
    target, _ = place
    warm = harness.ready(target)
    os.kill(warm.pid, signal.SIGKILL)
    harness.turn(warm, lambda: bool(warm.lost), f"its own death to be noticed ({seen})")
    assert warm.code == -signal.SIGKILL
    # Where the connection leads to a child, that may have had the last word.
    assert warm.lost == "killed by SIGKILL"
    assert warm.take(str(harness.src)) is None


def test_death_not_yet_noticed_is_noticed_when_the_rsync_is_taken(
    harness: Harness, rsyncd: MakeRsyncd
) -> None:
    server = rsyncd({"www": harness.dst})
    warm = harness.ready(server.url("www"))
    server.kill()  # which waits until they are gone; the loop has not turned since
    assert not warm.lost
    assert warm.take(str(harness.src)) is None


# It does not get through ---------------------------------------------------------------------------------


def test_refused_connection_is_a_failure_in_the_words_of_rsync(harness: Harness, rsyncd: MakeRsyncd) -> None:
    server = rsyncd({"www": harness.dst})
    server.stop()
    warm = harness.start(server.url("www"))
    harness.turn(warm, lambda: bool(warm.lost), "the failure")
    assert warm.code == 10
    assert "Connection refused" in warm.lost
    assert warm.connected_at is None


def test_unknown_module_is_a_failure_in_the_words_of_the_daemon(harness: Harness, rsyncd: MakeRsyncd) -> None:
    server = rsyncd({"www": harness.dst})
    warm = harness.start(server.url("none"))
    harness.turn(warm, lambda: bool(warm.lost), "the failure")
    assert (warm.code, warm.connected_at) == (5, None)
    assert "Unknown module 'none'" in warm.lost


def test_second_connection_beyond_max_connections_says_why_it_failed(
    harness: Harness, rsyncd: MakeRsyncd
) -> None:
    server = rsyncd({"www": harness.dst}, options={"max connections": "1"})
    first = harness.ready(server.url("www"))
    second = harness.start(server.url("www"))
    harness.turn(second, lambda: bool(second.lost), "the refusal")
    assert second.code == 5
    assert "max connections (1)" in second.lost  # what WarmPool looks for
    harness.finish(first.end())
    until(lambda: not server.connections(), LIMIT, "the daemon to notice")
    assert harness.ready(server.url("www"))


def test_server_that_never_answers_is_given_up(harness: Harness) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        warm = harness.start(f"rsync://127.0.0.1:{silent.getsockname()[1]}/www", patience=0.5)
        taken, _ = silent.accept()
        with taken:
            harness.turn(warm, lambda: bool(warm.lost), "the end of its patience")
            assert (warm.lost, warm.connected_at) == ("no answer for 0.5 s", None)
            harness.finish(warm.end())


def test_daemon_that_hangs_is_given_up_and_one_that_resumes_is_not(
    harness: Harness, rsyncd: MakeRsyncd
) -> None:
    server = rsyncd({"www": harness.dst})
    server.pause()
    warm = harness.start(server.url("www"), patience=0.5)
    harness.turn(warm, lambda: bool(warm.lost), "the end of its patience")
    assert warm.lost == "no answer for 0.5 s"
    harness.finish(warm.end())
    warm = harness.start(server.url("www"))
    assert warm.connected_at is None
    server.resume()
    harness.turn(warm, lambda: warm.connected_at is not None, "the connection")


def test_answer_ends_the_time_limit_for_it(harness: Harness) -> None:
    warm = harness.ready()
    harness.ahead += FOR_EVER / 2
    warm.check()
    assert not warm.lost
    assert warm.take(str(harness.src)) is not None


# What it reads from --------------------------------------------------------------------------------------


@pytest.mark.parametrize("successor", ["another", "none", "a file"])
def test_warm_rsync_of_a_replaced_source_is_not_taken(harness: Harness, place: Place, successor: str) -> None:
    target, _ = place
    warm = harness.ready(target)
    harness.src.rename(harness.home / "moved")
    if successor == "another":
        harness.src.mkdir()
    elif successor == "a file":
        harness.src.write_text("")
    assert warm.take(str(harness.src)) is None
    assert not warm.lost  # it is not its node's fault
    harness.finish(warm.end())


def test_warm_rsync_of_a_source_moved_and_put_back_is_taken(harness: Harness) -> None:
    warm = harness.ready()
    harness.src.rename(harness.home / "moved")
    assert warm.take(str(harness.src)) is None
    (harness.home / "moved").rename(harness.src)
    assert warm.take(str(harness.src)) is not None


def test_source_that_is_a_symlink_is_what_it_leads_to(harness: Harness) -> None:
    link = harness.home / "link"
    link.symlink_to(harness.src)
    warm = harness.ready()
    assert warm.take(str(link)) is not None
    warm = harness.ready()
    link.unlink()
    link.symlink_to(harness.dst)
    assert warm.take(str(link)) is None


def open_files() -> int:
    gc.collect()  # what other tests have left
    return len(os.listdir("/proc/self/fd"))


# Its end -------------------------------------------------------------------------------------------------


def test_warm_rsync_and_its_far_side_end_when_ended(harness: Harness, place: Place, seen: str) -> None:
    target, server = place
    before = open_files()
    warm = harness.ready(target)
    family = procs.family([warm.pid])
    assert len(family) >= (2 if server is None else 1)
    harness.finish(warm.end())
    until(lambda: not any(procs.alive(each) for each in family), LIMIT, f"their end ({seen})")
    if server is not None:
        until(lambda: not server.connections(), LIMIT, "the daemon to notice")
    assert open_files() <= before


def test_connection_is_not_held_open_after_the_rsync_was_taken(harness: Harness, place: Place) -> None:
    target, _ = place
    before = open_files()
    transfer = harness.ready(target).take(str(harness.src))
    assert transfer is not None
    transfer.send_names(b"")
    harness.finish(transfer)
    assert transfer.code == 0
    assert open_files() <= before


def test_stopped_warm_rsync_ends(harness: Harness) -> None:
    warm = harness.ready()
    os.kill(warm.pid, signal.SIGSTOP)
    harness.finish(warm.end())


def test_warm_rsync_is_old_at_its_age(harness: Harness) -> None:
    warm = harness.start(age=100)
    assert not warm.is_old
    assert warm.deadline <= harness.clock() + 100
    harness.ahead += 100
    assert warm.is_old


def test_warm_rsync_is_a_child_with_its_command_line(harness: Harness) -> None:
    warm = harness.ready()
    shown = procs.look(warm.pid)
    assert shown is not None
    assert shown.ppid == os.getpid()
    assert str(harness.dst) in procs.title(warm.pid)
