"""The connections of another process, seen from here: their end is told, and nothing is taken from them."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator

import pytest
from support.wait import until

from inosync.system import peers as peers_module
from inosync.system.loop import Loop
from inosync.system.peers import KEEPALIVE, Peers

LIMIT = 60.0

Pair = tuple[socket.socket, socket.socket]


def _tcp(family: socket.AddressFamily, address: str) -> Pair:
    try:
        server = socket.create_server((address, 0), family=family)
    except OSError as error:
        pytest.skip(f"no {family.name} here: {error.strerror}")
    with server:
        near = socket.create_connection(server.getsockname()[:2], timeout=LIMIT)
        far, _ = server.accept()
    far.settimeout(LIMIT)
    return near, far


def tcp() -> Pair:
    return _tcp(socket.AF_INET, "127.0.0.1")


def tcp6() -> Pair:
    return _tcp(socket.AF_INET6, "::1")


def local() -> Pair:
    near, far = socket.socketpair()
    far.settimeout(LIMIT)
    return near, far


KINDS: list[Callable[[], Pair]] = [tcp, tcp6, local]


class Client:
    """A process that has sockets and does nothing with them, until it is told to end."""

    def __init__(self, *near: socket.socket) -> None:
        self.program = subprocess.Popen(
            ["cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=[each.fileno() for each in near],
        )
        self.pid = self.program.pid
        self.handle = os.pidfd_open(self.pid)

    def watched(self) -> Peers:
        return Peers(self.handle, self.pid)

    def end(self) -> None:
        self.program.send_signal(signal.SIGKILL)
        self.program.wait(LIMIT)

    def close(self) -> None:
        self.end()
        if self.program.stdin is not None:
            self.program.stdin.close()
        os.close(self.handle)


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as closing:
        yield closing


def client(stack: contextlib.ExitStack, *near: socket.socket) -> Client:
    made = Client(*near)
    stack.callback(made.close)
    return made


def watched(stack: contextlib.ExitStack, connect: Callable[[], Pair]) -> tuple[Peers, socket.socket, Client]:
    """A client with one connection, its far end, and what watches it; the client alone has the near end."""
    near, far = connect()
    stack.enter_context(far)
    with near:
        other = client(stack, near)
    found = other.watched()
    stack.callback(found.close)
    return found, far, other


def readable(found: Peers, seconds: float = 0.0) -> bool:
    return bool(select.select([found], [], [], seconds)[0])


def sees_the_end(far: socket.socket) -> bool:
    """Whether the far end is told by now that nobody has the near one any more."""
    far.setblocking(False)
    try:
        return far.recv(1) == b""
    except BlockingIOError:
        return False


def close(far: socket.socket) -> None:
    far.close()


def shut(far: socket.socket) -> None:
    far.shutdown(socket.SHUT_WR)


def reset(far: socket.socket) -> None:
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    far.close()


# Their end -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("connect", KINDS)
@pytest.mark.parametrize("ending", [close, shut, reset])
def test_peers_report_the_end_of_a_connection(
    stack: contextlib.ExitStack, connect: Callable[[], Pair], ending: Callable[[socket.socket], None]
) -> None:
    found, far, _ = watched(stack, connect)
    assert not found.ended
    assert not readable(found)
    ending(far)
    assert readable(found, LIMIT)
    assert found.ended
    assert found.ended, "it stays so"


@pytest.mark.parametrize(
    ("connect", "ending", "error"),
    [
        (tcp, close, ""),
        (tcp, shut, ""),
        # That is an answer.
        (tcp, reset, ""),
        (tcp6, reset, ""),
        (local, close, ""),
        (local, shut, ""),
    ],
)
def test_peers_say_why_a_connection_broke(
    stack: contextlib.ExitStack,
    connect: Callable[[], Pair],
    ending: Callable[[socket.socket], None],
    error: str,
) -> None:
    found, far, _ = watched(stack, connect)
    assert found.error == ""
    ending(far)
    assert readable(found, LIMIT)
    assert found.error == error
    assert found.ended


@pytest.mark.parametrize("connect", KINDS)
def test_peers_leave_data_for_the_process(stack: contextlib.ExitStack, connect: Callable[[], Pair]) -> None:
    near, far = connect()
    stack.enter_context(far)
    stack.enter_context(near)
    found = client(stack, near).watched()
    stack.callback(found.close)
    far.sendall(b"what the node says")
    assert select.select([near], [], [], LIMIT)[0]
    assert not readable(found)
    assert not found.ended
    assert near.recv(100) == b"what the node says"
    far.sendall(b"last words")
    far.close()
    assert readable(found, LIMIT), "the end, although something is unread"
    assert near.recv(100) == b"last words"


def test_peers_report_the_end_of_a_process_at_the_far_end(stack: contextlib.ExitStack) -> None:
    near, far = local()
    with near, far:
        carrier = client(stack, far)
        found = client(stack, near).watched()
    stack.callback(found.close)
    assert not found.ended
    carrier.end()
    assert readable(found, LIMIT)


def test_peers_report_the_first_end_of_several(stack: contextlib.ExitStack) -> None:
    pairs = [tcp(), local(), local()]
    for _, far in pairs:
        stack.enter_context(far)
    found = client(stack, *(near for near, _ in pairs)).watched()
    stack.callback(found.close)
    for near, _ in pairs:
        near.close()
    assert not found.ended
    pairs[1][1].close()
    assert readable(found, LIMIT)


def test_loop_calls_at_the_end_only(stack: contextlib.ExitStack) -> None:
    found, far, _ = watched(stack, tcp)
    loop, calls = Loop(), list[str]()
    loop.on_readable(found, lambda: calls.append("end"))
    far.sendall(b"x")
    loop.turn(0)
    assert calls == []
    far.close()
    assert readable(found, LIMIT)
    loop.turn(LIMIT)
    assert calls == ["end"]
    loop.drop(found)


def test_peers_ignore_pipes_and_files(stack: contextlib.ExitStack) -> None:
    found, _, other = watched(stack, local)
    assert other.program.stdin is not None
    other.program.stdin.close()
    other.program.wait(LIMIT)
    assert not found.ended


# What it does to them ------------------------------------------------------------------------------------


@pytest.mark.parametrize("connect", [tcp, tcp6])
def test_peers_probe_a_silent_far_end(stack: contextlib.ExitStack, connect: Callable[[], Pair]) -> None:
    near, far = connect()
    stack.enter_context(far)
    stack.enter_context(near)  # a descriptor of the same connection
    assert near.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
    found = client(stack, near).watched()
    stack.callback(found.close)
    assert near.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    for option, value in KEEPALIVE.items():
        assert near.getsockopt(socket.IPPROTO_TCP, option) == value


def test_peers_end_when_probes_of_a_dead_far_end_are_unanswered(
    stack: contextlib.ExitStack,
) -> None:
    # tcp(7): "when used with SO_KEEPALIVE, TCP_USER_TIMEOUT will override keepalive", its number of probes.
    near, far = tcp()
    stack.enter_context(far)
    stack.enter_context(near)
    stack.callback(client(stack, near).watched().close)
    probed = KEEPALIVE[socket.TCP_KEEPIDLE]
    probed += KEEPALIVE[socket.TCP_KEEPINTVL] * KEEPALIVE[socket.TCP_KEEPCNT]
    assert near.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 1_000 * probed


@pytest.mark.parametrize("connect", [tcp, tcp6])
def test_peers_set_no_limit_for_a_node_that_does_not_read(
    stack: contextlib.ExitStack, connect: Callable[[], Pair]
) -> None:
    # With TCP_USER_TIMEOUT the kernel ends a connection whose far end answers, but has had no room for so
    # long: a disk that stalls. How long a transfer may be without progress is for rtimeout to say.
    near, far = connect()
    stack.enter_context(far)
    stack.enter_context(near)
    found = client(stack, near).watched()
    found.close()
    assert near.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0


@pytest.mark.parametrize("connect", KINDS)
def test_peers_keep_the_connection_until_they_are_closed(
    stack: contextlib.ExitStack, connect: Callable[[], Pair]
) -> None:
    found, far, other = watched(stack, connect)
    other.end()
    assert not sees_the_end(far)
    found.close()
    until(lambda: sees_the_end(far), LIMIT, "the end of the connection")


@pytest.mark.parametrize("connect", KINDS)
def test_peers_closed_leave_the_process_its_connection(
    stack: contextlib.ExitStack, connect: Callable[[], Pair]
) -> None:
    near, far = connect()
    stack.enter_context(far)
    stack.enter_context(near)
    client(stack, near).watched().close()
    assert not sees_the_end(far)
    near.sendall(b"names")
    assert select.select([far], [], [], LIMIT)[0]
    assert far.recv(100) == b"names"


# What it needs -------------------------------------------------------------------------------------------


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_peers_leave_nothing_open(stack: contextlib.ExitStack) -> None:
    pairs = [tcp(), local()]
    for pair in pairs:
        for end in pair:
            stack.enter_context(end)
    other = client(stack, *(near for near, _ in pairs))
    before = open_files()
    for _ in range(3):
        found = other.watched()
        assert open_files() == before + 3
        found.close()
        assert open_files() == before


@pytest.mark.parametrize("allowed", [0, 1])
def test_peers_refused_by_the_kernel_raise_and_leave_nothing_open(
    stack: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch, allowed: int
) -> None:
    pairs = [local(), local()]
    for pair in pairs:
        for end in pair:
            stack.enter_context(end)
    other = client(stack, *(near for near, _ in pairs))
    real, calls = peers_module._duplicate, list[int]()

    def duplicate(process: int, number: int) -> int:
        calls.append(number)
        if len(calls) > allowed:
            raise PermissionError(1, "Operation not permitted")
        return real(process, number)

    monkeypatch.setattr(peers_module, "_duplicate", duplicate)
    before = open_files()
    with pytest.raises(PermissionError):
        other.watched()
    assert len(calls) == allowed + 1
    assert open_files() == before


def test_peers_report_an_error_of_the_kernel(stack: contextlib.ExitStack) -> None:
    other = client(stack)
    with pytest.raises(OSError, match="Bad file descriptor"):
        peers_module._duplicate(other.handle, 9_999)


def test_peers_of_a_process_without_connections_raise(stack: contextlib.ExitStack) -> None:
    before = open_files()
    with pytest.raises(OSError, match="not connected"):
        client(stack).watched()
    assert open_files() <= before + 2  # the client's own two


def test_peers_of_an_ended_process_raise(stack: contextlib.ExitStack) -> None:
    near, far = local()
    with near, far:
        other = client(stack, near)
        other.end()
        with pytest.raises(OSError, match=r"No such (file|process)"):
            other.watched()


def test_peers_of_a_zombie_raise(stack: contextlib.ExitStack) -> None:
    near, far = local()
    with near, far:
        other = client(stack, near)
        os.kill(other.pid, signal.SIGKILL)
        assert select.select([other.handle], [], [], LIMIT)[0]
        with pytest.raises(OSError, match=r"not connected|[Pp]ermission|No such"):
            other.watched()
