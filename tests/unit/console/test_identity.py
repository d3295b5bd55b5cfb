"""Whose daemon a client has reached."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from inosync.console import protocol
from inosync.console.client import Client, OtherConfiguration


def test_identity_is_the_path_and_the_real_path(tmp_path: Path) -> None:
    (tmp_path / "real.py").touch()
    (tmp_path / "link.py").symlink_to("real.py")
    identity = protocol.identity(f"{tmp_path}/link.py")
    assert identity == {"path": f"{tmp_path}/link.py", "real": f"{tmp_path}/real.py"}


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ({"path": "/etc/a.py", "real": "/srv/1/a.py"}, True),
        ({"path": "/etc/a.py", "real": "/srv/2/a.py"}, True),
        ({"path": "/home/a.py", "real": "/srv/1/a.py"}, True),
        ({"path": "/home/a.py", "real": "/home/a.py"}, False),
        ({"path": "/srv/2/a.py", "real": "/srv/2/a.py"}, False),
        ({}, False),
    ],
)
def test_identity_is_the_same_by_its_path_or_its_real_path(other: dict[str, str], same: bool) -> None:
    assert protocol.is_same({"path": "/etc/a.py", "real": "/srv/1/a.py"}, other) is same


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[str]:
    """The socket of a daemon for ``own.py``, which answers one request."""
    path = str(tmp_path / "own.sock")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                assert protocol.decode(connection.recv(4096))["command"] == protocol.IDENTIFY
                connection.sendall(protocol.encode(protocol.identity(f"{tmp_path}/own.py")))

        thread = threading.Thread(target=answer)
        thread.start()
        yield path
        thread.join(10)


def test_client_accepts_the_daemon_of_its_configuration(daemon: str, tmp_path: Path) -> None:
    Client(daemon, config=f"{tmp_path}/own.py").close()


def test_client_refuses_the_daemon_of_another_configuration(daemon: str, tmp_path: Path) -> None:
    with pytest.raises(OtherConfiguration) as caught:
        Client(daemon, config=f"{tmp_path}/copy/own.py")
    expected = f"not running for {tmp_path}/copy/own.py: the daemon at {daemon} is that of {tmp_path}/own.py"
    assert str(caught.value) == expected
