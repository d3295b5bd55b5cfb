"""The client of the control socket against daemons that answer, refuse, hang and end."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inosync.console import protocol
from inosync.console.client import Client, NotRunning, Refused, StatusLink

LIMIT_SECONDS = 30.0


def serve(path: Path, answer: Callable[[socket.socket], object]) -> threading.Thread:
    """Let one client connect, answer it, and close the connection."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    listening.listen(1)
    listening.settimeout(LIMIT_SECONDS)

    def run() -> None:
        with listening:
            connection, _ = listening.accept()
            with connection:
                connection.settimeout(LIMIT_SECONDS)
                answer(connection)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_replies_are_told_apart_however_they_arrive(tmp_path: Path) -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(1000)
        for piece in (b'{"numb', b'er": 1}\n{"number"', b": 2}\n"):
            connection.sendall(piece)
        connection.recv(1000)

    thread = serve(tmp_path / "s", answer)
    with Client(str(tmp_path / "s"), LIMIT_SECONDS) as connected:
        assert connected.ask({"command": "a"}) == {"number": 1}
        assert connected.ask({"command": "b"}) == {"number": 2}
    thread.join()


@pytest.mark.parametrize(
    ("reply", "problem", "text"),
    [
        (b'{"error": "no", "code": 78}\n', Refused, "no"),
        (b"garbage\n", NotRunning, "has ended before it replied"),
        (b"", NotRunning, "has ended before it replied"),
    ],
)
def test_failure_is_an_exception(tmp_path: Path, reply: bytes, problem: type[Exception], text: str) -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(reply)

    thread = serve(tmp_path / "s", answer)
    with Client(str(tmp_path / "s"), LIMIT_SECONDS) as client, pytest.raises(problem, match=text) as raised:
        client.ask({"command": "a"})
    if isinstance(raised.value, Refused):
        assert raised.value.code == protocol.CONFIG
    thread.join()


def test_daemon_that_does_not_answer_is_busy(tmp_path: Path) -> None:
    thread = serve(tmp_path / "s", lambda connection: connection.recv(1000) and connection.recv(1000))
    with (
        Client(str(tmp_path / "s"), 0.1) as client,
        pytest.raises(Refused, match="does not answer") as raised,
    ):
        client.ask({"command": "a"})
    assert raised.value.code == protocol.BUSY
    thread.join()


def test_missing_socket_is_not_running(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "none", tmp_path / "no" / "none", tmp_path / "file", tmp_path / "file" / "none"):
        with pytest.raises(NotRunning, match="no daemon listens"):
            Client(str(path))


def test_wait_for_end_returns_when_the_connection_is_closed(tmp_path: Path) -> None:
    thread = serve(tmp_path / "s", lambda connection: connection.sendall(b"rest"))
    with Client(str(tmp_path / "s"), LIMIT_SECONDS) as connected:
        connected.wait_for_end()
    thread.join()


@pytest.fixture
def pair() -> Iterator[tuple[StatusLink, socket.socket]]:
    """A link, and the end of it that the daemon has."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(LIMIT_SECONDS)
        yield StatusLink(ours, 0.1), theirs


def test_status_comes_over_the_link_in_pieces(pair: tuple[StatusLink, socket.socket]) -> None:
    link, daemon = pair
    for number in range(2):
        daemon.sendall(b'{"num')
        daemon.sendall(b'ber": %d}\n' % number)
        assert link.status() == {"number": number}
        assert daemon.recv(1000) == b'{"command":"status","seen":-1}\n'


def test_late_status_is_waited_for_and_not_asked_for_again(pair: tuple[StatusLink, socket.socket]) -> None:
    link, daemon = pair
    for _ in range(3):
        with pytest.raises(Refused, match="does not answer"):
            link.status()
    daemon.sendall(b'{"number": 1}\n')
    assert link.status() == {"number": 1}
    assert daemon.recv(1000) == b'{"command":"status","seen":-1}\n'


def test_link_to_a_daemon_that_has_ended_is_not_running(pair: tuple[StatusLink, socket.socket]) -> None:
    link, daemon = pair
    daemon.close()
    with pytest.raises(NotRunning):
        link.status()
