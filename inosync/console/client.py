"""Asking a running daemon, over its control socket."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import Any

from inosync.console import protocol
from inosync.console.protocol import Unusable

_CHUNK = 1 << 16
_PAUSE = 0.02  # seconds until a full backlog is tried again


class NotRunning(Exception):
    """Nobody listens: there is no daemon for that configuration."""


class OtherConfiguration(NotRunning):
    """The daemon that listens belongs to another configuration file."""


class Refused(Exception):
    """The daemon, or the system, does not do what it is asked; ``code`` is the exit code for that."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class Client:
    """A connection to the daemon that listens at ``path``; NotRunning or Refused if there is none.

    ``config``: the configuration file that it must belong to; "" is any. ``timeout``: seconds for each
    connection, and for each request unless it says otherwise.
    """

    def __init__(self, path: str, timeout: float = 10.0, config: str = "") -> None:
        self._path, self._timeout = path, timeout
        self._rest = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._connect()
            if config:
                self._identify(config)
        except BaseException:
            self._socket.close()
            raise

    def _connect(self) -> None:
        until = time.monotonic() + self._timeout
        self._socket.settimeout(self._timeout)
        try:
            with protocol.address(self._path) as name:
                while True:
                    try:
                        self._socket.connect(name)
                        return
                    except BlockingIOError:  # its backlog is full: many ask at once (connect(2), EAGAIN)
                        if time.monotonic() >= until:
                            raise
                        time.sleep(_PAUSE)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            raise NotRunning(f"not running: nobody listens at {self._path}") from None
        except PermissionError:
            who = _owner(self._path)
            text = f"{self._path}: only {who} may ask this daemon"
            raise Refused(text, protocol.NO_PERMISSION) from None
        except (BlockingIOError, TimeoutError):
            raise Refused(f"the daemon at {self._path} does not answer", protocol.BUSY) from None
        except OSError as problem:
            raise Refused(f"{self._path}: {problem.strerror}", protocol.BUSY) from None

    def _identify(self, config: str) -> None:
        found = self.ask({"command": protocol.IDENTIFY})
        if not protocol.is_same(protocol.identity(config), found):
            text = f"not running for {config}: the daemon at {self._path} is that of {found['path']}"
            raise OtherConfiguration(text)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Ask nothing more."""
        self._socket.close()

    def ask(self, request: Mapping[str, Any], timeout: float | None = -1.0) -> dict[str, Any]:
        """What the daemon replies; Refused if that is an error, or nothing within ``timeout`` seconds.

        None is without an end; a negative one is that of the connection.
        """
        self._socket.settimeout(self._timeout if timeout is not None and timeout < 0 else timeout)
        try:
            self._socket.sendall(protocol.encode(request))
            reply = protocol.decode(self._line())
        except TimeoutError:
            raise Refused(f"the daemon at {self._path} does not answer", protocol.BUSY) from None
        except (OSError, Unusable):
            raise NotRunning(f"the daemon at {self._path} has ended before it replied") from None
        if "error" in reply:
            raise Refused(str(reply["error"]), int(reply.get("code", protocol.TROUBLE)))
        return reply

    def until_closed(self) -> None:
        """Wait until the daemon has ended, however long that takes."""
        self._socket.settimeout(None)
        try:
            while self._socket.recv(_CHUNK):
                pass
        except OSError:
            return

    def _line(self) -> bytes:
        while b"\n" not in self._rest:
            data = self._socket.recv(_CHUNK)
            if not data:
                raise ConnectionResetError
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line


def ask(path: str, request: Mapping[str, Any], timeout: float = 10.0) -> dict[str, Any]:
    """What the daemon that listens at ``path`` replies; NotRunning, or Refused."""
    with Client(path, timeout) as client:
        return client.ask(request)


def _owner(path: str) -> str:
    import pwd  # what hardly ever happens need not be loaded

    for place in (path, os.path.dirname(path)):
        try:
            uid = os.stat(place).st_uid
            return pwd.getpwuid(uid).pw_name
        except (OSError, KeyError):
            continue
    return "its owner"
