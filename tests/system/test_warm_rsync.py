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
from inosync.worker.warm import LOOK, WarmRsync

RSYNC = shutil.which("rsync") or ""
pytestmark = pytest.mark.skipif(not RSYNC, reason="rsync is not installed")

LIMIT = 60.0
FOR_EVER = 3_600.0


@dataclass
class Bench:
    """A source, and a loop in which spares for it live. All that was started ends with the test."""

    home: Path
    loop: Loop = field(default_factory=Loop)
    started: list[procs.Process] = field(default_factory=list)
    transfers: list[Transfer] = field(default_factory=list)
    spares: list[WarmRsync] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.src, self.dst = self.home / "src", self.home / "dst"
        self.src.mkdir()
        self.dst.mkdir()
        self.rsh = ""
        self.ahead = 0.0
        """Seconds that the clock is ahead of the real one."""

    def clock(self) -> float:
        return time.monotonic() + self.ahead

    def spare(
        self, target: str = "", patience: float = LIMIT, age: float = FOR_EVER, timeout: float = 0.0
    ) -> WarmRsync:
        settings = TransferSettings(RSYNC, str(self.src), target or str(self.dst), rsh=self.rsh)
        argv = batch_argv(settings)
        transfer = Transfer(argv, timeout, self.loop, self.clock)
        self.transfers.append(transfer)
        self.started += procs.family([transfer.pid])
        self.spares.append(WarmRsync(transfer, self.loop, self.clock, patience, age))
        return self.spares[-1]

    def ready(self, target: str = "") -> WarmRsync:
        """A spare that is connected."""
        spare = self.spare(target)
        self.turn(spare, lambda: spare.ready_at is not None or bool(spare.lost), "the connection")
        assert not spare.lost, spare.lost
        self.started += procs.family([spare.pid])
        return spare

    def turn(self, spare: WarmRsync, condition: Callable[[], bool], what: str) -> None:
        """Do as the worker does, until the condition is true."""

        def one() -> bool:
            self.loop.turn(min(max(spare.deadline - self.clock(), 0), 0.05))
            spare.tend()
            return condition()

        until(one, LIMIT, what)

    def finish(self, transfer: Transfer) -> None:
        """Let a transfer end."""

        def one() -> bool:
            self.loop.turn(0.05)
            transfer.tend()
            return transfer.done

        until(one, LIMIT, "the end of the transfer")

    def close(self) -> None:
        for transfer in self.transfers:
            self.started += [] if transfer.done else procs.family([transfer.pid])
        for spare in self.spares:
            spare.end()
        for each in self.started:
            procs.send(each, signal.SIGKILL)
        for transfer in self.transfers:
            if not transfer.done:
                self.finish(transfer)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


Place = tuple[str, Rsyncd | None]
"""A target for rsync, and the daemon that serves it, if one does."""


@pytest.fixture(params=["local path", "daemon", "ssh"])
def place(request: pytest.FixtureRequest, bench: Bench, rsyncd: MakeRsyncd) -> Place:
    """A node of each kind."""
    if request.param == "local path":
        return str(bench.dst), None
    if request.param == "daemon":
        server = rsyncd({"www": bench.dst})
        return server.url("www"), server
    sshd: Sshd = request.getfixturevalue("sshd")
    bench.rsh = sshd.rsh
    return sshd.node("a", bench.dst), None


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


def test_warm_rsync_waits_connected_and_sends_its_names(bench: Bench, place: Place, seen: str) -> None:
    target, server = place
    spare = bench.ready(target)
    if server is not None:  # that of who has looked whether it listens may have a moment left
        until(lambda: len(server.connections()) == 1, LIMIT, "one connection")
    (bench.src / "f").write_text("made after it was connected")
    transfer = spare.take(str(bench.src))
    assert transfer is not None, (spare.lost, seen)
    assert transfer.was_warm
    assert transfer.names_sent_at is None
    transfer.send_names(names_input([b"f"]))
    bench.finish(transfer)
    assert (transfer.code, transfer.stderr) == (0, [])
    assert (bench.dst / "f").read_text() == "made after it was connected"


def test_empty_name_at_the_start_changes_nothing(bench: Bench, place: Place) -> None:
    target, _ = place
    (bench.src / "f").write_text("new")
    (bench.dst / "mine").write_text("the node's own")
    transfer = bench.ready(target).take(str(bench.src))
    assert transfer is not None
    transfer.send_names(names_input([]))
    bench.finish(transfer)
    assert (transfer.code, transfer.stderr) == (0, [])
    assert [path.name for path in bench.dst.iterdir()] == ["mine"]


def test_warm_rsync_still_connecting_sends_its_names(bench: Bench, place: Place) -> None:
    target, _ = place
    (bench.src / "f").write_text("x")
    spare = bench.spare(target)
    transfer = spare.take(str(bench.src))
    assert transfer is not None
    assert transfer.was_warm is (spare.ready_at is not None)
    transfer.send_names(names_input([b"f"]))
    bench.finish(transfer)
    assert (transfer.code, (bench.dst / "f").read_text()) == (0, "x")


def test_warm_rsync_that_waits_has_no_deadline(bench: Bench) -> None:
    spare = bench.ready()
    assert spare.deadline >= bench.clock() + FOR_EVER / 2
    for transfer in bench.transfers:
        assert transfer.deadline == float("inf"), "a limit for progress holds for what has something to do"


def test_warm_rsync_is_polled_where_the_kernel_does_not_tell(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(_process: int, _number: int) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(peers, "_duplicate", forbidden)
    spare = bench.ready()
    assert spare.deadline <= bench.clock() + LOOK
    for _ in range(3):
        bench.ahead += max(spare.deadline - bench.clock(), 0)
        before = bench.clock()
        spare.tend()
        assert not spare.lost
        assert spare.deadline >= before + LOOK


# The other side goes -------------------------------------------------------------------------------------


def is_noticed(bench: Bench, spare: WarmRsync, seen: str) -> None:
    if seen == "looked for":
        bench.ahead += LOOK
    bench.turn(spare, lambda: bool(spare.lost), "the end of the far side to be noticed")
    assert spare.take(str(bench.src)) is None


def test_death_of_its_child_is_noticed(bench: Bench, seen: str) -> None:
    spare = bench.ready()
    (child,) = process.children(spare.pid)
    os.kill(child, signal.SIGKILL)
    is_noticed(bench, spare, seen)


def test_death_of_the_far_side_of_ssh_is_noticed(bench: Bench, own_sshd: Sshd, seen: str) -> None:
    bench.rsh = own_sshd.rsh
    spare = bench.ready(own_sshd.node("a", bench.dst))
    own_sshd.drop()
    is_noticed(bench, spare, seen)


@pytest.mark.parametrize("ending", [Rsyncd.drop, Rsyncd.stop, Rsyncd.kill])
def test_end_of_the_daemon_is_noticed(
    bench: Bench, rsyncd: MakeRsyncd, seen: str, ending: Callable[[Rsyncd], None]
) -> None:
    server = rsyncd({"www": bench.dst})
    spare = bench.ready(server.url("www"))
    ending(server)
    is_noticed(bench, spare, seen)
    assert spare.lost == "the node has closed the connection"


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


def test_reset_connection_is_not_taken_for_an_unreachable_node(bench: Bench, rsyncd: MakeRsyncd) -> None:
    # A node, or a firewall, may end idle connections in this way again and again. That is no outage.
    server = rsyncd({"www": bench.dst})
    middle = Middle(server.port)
    try:
        spare = bench.ready(f"rsync://127.0.0.1:{middle.port}/www")
        middle.reset()
        is_noticed(bench, spare, "told by the kernel")
        assert not spare.broken
    finally:
        middle.close()


def test_timeout_of_the_daemon_is_noticed(bench: Bench, rsyncd: MakeRsyncd, seen: str) -> None:
    server = rsyncd({"www": bench.dst}, options={"timeout": "1"})
    spare = bench.ready(server.url("www"))
    until(lambda: not server.connections(), LIMIT, "the daemon to give up")
    is_noticed(bench, spare, seen)


def test_death_of_the_rsync_itself_is_noticed(bench: Bench, place: Place, seen: str) -> None:
    target, _ = place
    spare = bench.ready(target)
    os.kill(spare.pid, signal.SIGKILL)
    bench.turn(spare, lambda: bool(spare.lost), f"its own death to be noticed ({seen})")
    # Where the connection leads to a child, that may have had the last word.
    assert spare.code == -signal.SIGKILL
    assert spare.lost == "killed by SIGKILL" or "connection unexpectedly closed" in spare.lost
    assert spare.take(str(bench.src)) is None


def test_death_not_yet_noticed_is_noticed_when_the_rsync_is_taken(bench: Bench, rsyncd: MakeRsyncd) -> None:
    server = rsyncd({"www": bench.dst})
    spare = bench.ready(server.url("www"))
    server.kill()  # which waits until they are gone; the loop has not turned since
    assert not spare.lost
    assert spare.take(str(bench.src)) is None


# It does not get through ---------------------------------------------------------------------------------


def test_refused_connection_is_a_failure_in_the_words_of_rsync(bench: Bench, rsyncd: MakeRsyncd) -> None:
    server = rsyncd({"www": bench.dst})
    server.stop()
    spare = bench.spare(server.url("www"))
    bench.turn(spare, lambda: bool(spare.lost), "the failure")
    assert spare.code == 10
    assert "Connection refused" in spare.lost
    assert spare.ready_at is None


def test_unknown_module_is_a_failure_in_the_words_of_the_daemon(bench: Bench, rsyncd: MakeRsyncd) -> None:
    server = rsyncd({"www": bench.dst})
    spare = bench.spare(server.url("none"))
    bench.turn(spare, lambda: bool(spare.lost), "the failure")
    assert (spare.code, spare.ready_at) == (5, None)
    assert "Unknown module 'none'" in spare.lost


def test_second_connection_beyond_max_connections_says_why_it_failed(
    bench: Bench, rsyncd: MakeRsyncd
) -> None:
    server = rsyncd({"www": bench.dst}, options={"max connections": "1"})
    first = bench.ready(server.url("www"))
    second = bench.spare(server.url("www"))
    bench.turn(second, lambda: bool(second.lost), "the refusal")
    assert second.code == 5
    assert "max connections (1)" in second.lost  # what WarmPool looks for
    bench.finish(first.end())
    until(lambda: not server.connections(), LIMIT, "the daemon to notice")
    assert bench.ready(server.url("www"))


def test_server_that_never_answers_is_given_up(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        spare = bench.spare(f"rsync://127.0.0.1:{silent.getsockname()[1]}/www", patience=0.5)
        taken, _ = silent.accept()
        with taken:
            bench.turn(spare, lambda: bool(spare.lost), "the end of its patience")
            assert (spare.lost, spare.ready_at) == ("no answer for 0.5 s", None)
            bench.finish(spare.end())


def test_daemon_that_hangs_is_given_up_and_one_that_resumes_is_not(bench: Bench, rsyncd: MakeRsyncd) -> None:
    server = rsyncd({"www": bench.dst})
    server.pause()
    spare = bench.spare(server.url("www"), patience=0.5)
    bench.turn(spare, lambda: bool(spare.lost), "the end of its patience")
    assert spare.lost == "no answer for 0.5 s"
    bench.finish(spare.end())
    spare = bench.spare(server.url("www"))
    assert spare.ready_at is None
    server.resume()
    bench.turn(spare, lambda: spare.ready_at is not None, "the connection")


def test_answer_ends_the_time_limit_for_it(bench: Bench) -> None:
    spare = bench.ready()
    bench.ahead += FOR_EVER / 2
    spare.tend()
    assert not spare.lost
    assert spare.take(str(bench.src)) is not None


# What it reads from --------------------------------------------------------------------------------------


@pytest.mark.parametrize("successor", ["another", "none", "a file"])
def test_warm_rsync_of_a_replaced_source_is_not_taken(bench: Bench, place: Place, successor: str) -> None:
    target, _ = place
    spare = bench.ready(target)
    bench.src.rename(bench.home / "moved")
    if successor == "another":
        bench.src.mkdir()
    elif successor == "a file":
        bench.src.write_text("")
    assert spare.take(str(bench.src)) is None
    assert not spare.lost  # it is not its node's fault
    bench.finish(spare.end())


def test_warm_rsync_of_a_source_moved_and_put_back_is_taken(bench: Bench) -> None:
    spare = bench.ready()
    bench.src.rename(bench.home / "moved")
    assert spare.take(str(bench.src)) is None
    (bench.home / "moved").rename(bench.src)
    assert spare.take(str(bench.src)) is not None


def test_source_that_is_a_symlink_is_what_it_leads_to(bench: Bench) -> None:
    link = bench.home / "link"
    link.symlink_to(bench.src)
    spare = bench.ready()
    assert spare.take(str(link)) is not None
    spare = bench.ready()
    link.unlink()
    link.symlink_to(bench.dst)
    assert spare.take(str(link)) is None


def open_files() -> int:
    gc.collect()  # what other tests have left
    return len(os.listdir("/proc/self/fd"))


# Its end -------------------------------------------------------------------------------------------------


def test_warm_rsync_and_its_far_side_end_when_ended(bench: Bench, place: Place, seen: str) -> None:
    target, server = place
    before = open_files()
    spare = bench.ready(target)
    family = procs.family([spare.pid])
    assert len(family) >= (2 if server is None else 1)
    bench.finish(spare.end())
    until(lambda: not any(procs.alive(each) for each in family), LIMIT, f"their end ({seen})")
    if server is not None:
        until(lambda: not server.connections(), LIMIT, "the daemon to notice")
    assert open_files() <= before


def test_connection_is_not_held_open_after_the_rsync_was_taken(bench: Bench, place: Place) -> None:
    target, _ = place
    before = open_files()
    transfer = bench.ready(target).take(str(bench.src))
    assert transfer is not None
    transfer.send_names(b"")
    bench.finish(transfer)
    assert transfer.code == 0
    assert open_files() <= before


def test_stopped_warm_rsync_ends(bench: Bench) -> None:
    spare = bench.ready()
    os.kill(spare.pid, signal.SIGSTOP)
    bench.finish(spare.end())


def test_warm_rsync_is_old_at_its_age(bench: Bench) -> None:
    spare = bench.spare(age=100)
    assert not spare.old
    assert spare.deadline <= bench.clock() + 100
    bench.ahead += 100
    assert spare.old


def test_warm_rsync_is_a_child_with_its_command_line(bench: Bench) -> None:
    spare = bench.ready()
    shown = procs.look(spare.pid)
    assert shown is not None
    assert shown.ppid == os.getpid()
    assert str(bench.dst) in procs.title(spare.pid)
