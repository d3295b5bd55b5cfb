"""The control socket against clients of every kind, over a real socket and the real loop."""

from __future__ import annotations

import json
import os
import resource
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from inosync.console import control, protocol
from inosync.console.control import Control, Reply
from inosync.system.loop import Loop


class Bench:
    """A control socket, its loop, a clock that the test sets, and the requests."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = 0.0
        self.loop = Loop(lambda: self.now)
        self.asked: list[dict[str, Any]] = []
        self.later: list[Reply] = []
        self.left: list[str] = []
        self.control = Control(str(path), self.loop, self.handle)
        self.clients: list[socket.socket] = []

    def handle(self, request: dict[str, Any], reply: Reply) -> None:
        self.asked.append(request)
        if request.get("command") == "later":
            self.later.append(reply)
            reply.defer(lambda: self.left.append(str(request.get("who"))))
        elif request.get("command") == "busy":
            reply(protocol.error("not now", protocol.BUSY))
        else:
            reply({"you said": request, "pad": "x" * int(request.get("size", 0))})

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.setblocking(False)
        try:
            client.connect(str(self.path))
        except BlockingIOError:
            client.close()
            raise
        self.clients.append(client)
        return client

    def turn(self, times: int = 5) -> None:
        for _ in range(times):
            self.loop.turn(0)

    def read(self, client: socket.socket) -> bytes | None:
        """Return what has arrived; b"" is the end, None is nothing."""
        self.turn()
        try:
            return client.recv(1 << 20)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            return b""

    def until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not done():
            assert time.monotonic() < deadline
            self.turn(1)

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.now += 10 * control.PATIENCE_SECONDS
        self.until(lambda: len(self.control.descriptors()) == 1)
        self.control.close()

    def ask(self, client: socket.socket, line: bytes) -> dict[str, Any]:
        client.send(line)
        data = self.read(client)
        assert data
        reply: dict[str, Any] = json.loads(data)
        return reply


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "x.sock")
    yield made
    made.close()


def test_socket_is_for_its_owner_only_and_removed_at_the_end(bench: Bench) -> None:
    status = bench.path.stat()
    assert stat.S_ISSOCK(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o600
    bench.control.close()
    assert not bench.path.exists()
    bench.control = Control(str(bench.path), bench.loop, bench.handle)


def test_umask_is_not_changed(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        Control(str(tmp_path / "y"), Loop(), lambda _request, _reply: None).close()
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


def test_connection_serves_several_requests(bench: Bench) -> None:
    client = bench.connect()
    for number in range(3):
        assert bench.ask(client, b'{"command": %d}\n' % number)["you said"] == {"command": number}


def test_request_may_arrive_in_pieces(bench: Bench) -> None:
    client = bench.connect()
    for piece in (b'{"com', b'mand"', b": 1}"):
        client.send(piece)
        assert bench.read(client) is None
    assert bench.ask(client, b"\n")["you said"] == {"command": 1}


@pytest.mark.parametrize(
    "garbage",
    [
        b"\n",
        b"\0\n",
        b"GET / HTTP/1.1\r\n",
        b"\xff\xfe\n",
        b"[1]\n",
        b'"x"\n',
        b"[" * 60_000 + b"\n",
        b"1e999\n",
    ],
)
def test_garbage_gets_one_clear_line(bench: Bench, garbage: bytes) -> None:
    reply = bench.ask(bench.connect(), garbage)
    assert reply["code"] == protocol.USAGE
    assert reply["error"].startswith("this is no ")
    assert bench.asked == []
    assert bench.ask(bench.connect(), b"{}\n")["you said"] == {}


def test_endless_request_is_refused_and_the_client_disconnected(bench: Bench) -> None:
    client = bench.connect()
    data = b""
    for _ in range(100):
        try:
            client.send(b"x" * 4096)
        except (BrokenPipeError, ConnectionResetError):
            break
        data += bench.read(client) or b""
    assert b"too long" in data
    assert bench.read(client) == b""


def test_two_requests_at_once_are_refused(bench: Bench) -> None:
    client = bench.connect()
    assert bench.ask(client, b"{}\n{}\n")["error"] == "one request at a time"
    assert bench.read(client) == b""
    assert bench.asked == []


def test_client_that_asks_again_before_its_reply_is_disconnected(bench: Bench) -> None:
    client = bench.connect()
    client.send(b'{"command": "later", "who": "a"}\n')
    bench.turn()
    client.send(b"{}\n")
    assert bench.read(client) == b""
    assert bench.left == ["a"]
    bench.later[0]({"too": "late"})  # nothing happens


def test_deferred_reply_keeps_no_other_client_waiting(bench: Bench) -> None:
    slow, other = bench.connect(), bench.connect()
    slow.send(b'{"command": "later"}\n')
    assert bench.ask(other, b"{}\n")
    bench.now += 10 * control.PATIENCE_SECONDS
    assert bench.read(slow) is None
    bench.later[0]({"done": 1})
    assert bench.read(slow) == b'{"done":1}\n'
    bench.later[0]({"twice": 1})
    assert bench.read(slow) is None


def test_handler_learns_that_a_waiting_client_has_left(bench: Bench) -> None:
    client = bench.connect()
    client.send(b'{"command": "later", "who": "b"}\n')
    bench.turn()
    client.close()
    bench.turn()
    assert bench.left == ["b"]


def test_silent_client_is_disconnected(bench: Bench) -> None:
    client = bench.connect()
    bench.turn()
    assert bench.loop.next_timer == control.PATIENCE_SECONDS
    bench.now = control.PATIENCE_SECONDS - 0.1
    assert bench.read(client) is None
    bench.now = control.PATIENCE_SECONDS
    assert bench.read(client) == b""
    assert bench.loop.next_timer == float("inf")


def test_client_that_does_not_read_is_disconnected(bench: Bench) -> None:
    client, other = bench.connect(), bench.connect()
    client.send(b'{"size": 5000000}\n')
    bench.turn()
    assert bench.ask(other, b"{}\n")
    bench.now += control.PATIENCE_SECONDS
    bench.turn()
    assert len(bench.control.descriptors()) == 1
    received = b""
    while data := bench.read(client):
        received += data
    assert len(received) < 5_000_000


def test_long_reply_arrives_whole(bench: Bench) -> None:
    client = bench.connect()
    client.send(b'{"size": 3000000}\n')
    received = b""

    def whole() -> bool:
        nonlocal received
        received += bench.read(client) or b""
        return received.endswith(b"\n")

    bench.until(whole)
    assert len(json.loads(received)["pad"]) == 3_000_000
    assert bench.ask(client, b"{}\n")["you said"] == {}


def test_thousand_clients_are_served_within_the_limit(bench: Bench) -> None:
    waiting, served, made = [], 0, 0
    for _ in range(100_000):
        if made < 1_000:
            try:
                client = bench.connect()
            except BlockingIOError:  # the backlog is full
                pass
            else:
                made += 1
                client.send(b"{}\n")
                waiting.append(client)
        bench.turn(1)
        assert len(bench.control.descriptors()) <= control.MAX_CLIENTS + 1
        for client in waiting[:]:
            try:
                assert client.recv(1 << 16).endswith(b"\n")
            except BlockingIOError:
                continue
            client.close()
            waiting.remove(client)
            served += 1
        if served == 1_000:
            break
    assert served == 1_000


def test_too_many_silent_clients_delay_the_next_one_only_for_a_while(bench: Bench) -> None:
    for _ in range(control.MAX_CLIENTS):
        bench.connect()
        bench.turn()
    late = bench.connect()
    late.send(b"{}\n")
    assert bench.read(late) is None
    bench.now += control.PATIENCE_SECONDS
    bench.turn()
    assert bench.read(late)


def test_waiting_clients_leave_room_for_others(bench: Bench) -> None:
    for number in range(protocol.MAX_WAITING):
        bench.connect().send(b'{"command": "later", "who": %d}\n' % number)
        bench.turn()
    assert len(bench.later) == protocol.MAX_WAITING
    assert not bench.later[0].can_wait
    assert bench.ask(bench.connect(), b"{}\n")
    assert bench.control.waiting == protocol.MAX_WAITING
    bench.later[0]({})
    assert bench.later[1].can_wait


def test_client_that_is_told_to_try_later_is_disconnected(bench: Bench) -> None:
    client = bench.connect()
    client.send(b'{"command": "busy"}\n')
    data = bench.read(client)
    assert data is not None
    assert json.loads(data)["code"] == protocol.BUSY
    assert bench.read(client) == b""


def test_request_whose_client_has_left_is_not_begun(bench: Bench) -> None:
    client = bench.connect()
    bench.turn()
    client.send(b'{"command": "accept"}\n')
    client.close()
    bench.turn()
    assert bench.asked == []
    assert len(bench.control.descriptors()) == 1


def test_client_that_only_stops_sending_has_its_reply(bench: Bench) -> None:
    client = bench.connect()
    client.send(b"{}\n")
    client.shutdown(socket.SHUT_WR)
    assert bench.read(client)


def test_missing_descriptors_make_no_busy_loop(bench: Bench) -> None:
    client = bench.connect()
    client.send(b"{}\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))), hard))
    try:
        taken = []
        while True:
            try:
                taken.append(os.dup(0))
            except OSError:
                break
        bench.turn(1)
        assert bench.loop.next_timer == 1.0
        for fd in taken:
            os.close(fd)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert bench.read(client) is None
    bench.now = 1.0
    assert bench.read(client)


def test_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "z.sock"
    left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    left.bind(str(path))
    left.close()
    bench = Bench(path)
    assert bench.ask(bench.connect(), b"{}\n")
    bench.close()


def test_path_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "z.sock"
    path.write_text("mine")
    with pytest.raises(OSError, match="is no socket"):
        Bench(path)
    assert path.read_text() == "mine"


def test_path_may_be_longer_than_an_address(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    made = Control(str(deep / "x.sock"), Loop(), lambda _request, _reply: None)
    with (
        protocol.address(str(deep / "x.sock")) as name,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client,
    ):
        client.connect(name)
    made.close()
    assert not (deep / "x.sock").exists()


def test_own_process_is_served_by_its_handler_and_never_disconnected(bench: Bench) -> None:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    bench.clients.append(theirs)
    bench.control.attach(ours, lambda request, reply: reply({"own": request}))
    for command in ("a", "stop"):
        assert bench.ask(theirs, protocol.encode({"command": command})) == {"own": {"command": command}}
        bench.now += 10 * control.PATIENCE_SECONDS
        bench.turn()
    assert bench.read(theirs) is None
    assert bench.asked == []
    assert ours.fileno() in bench.control.descriptors()
