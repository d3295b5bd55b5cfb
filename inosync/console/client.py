"""A client of the control socket of a running daemon."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import Any

from inosync.console import protocol
from inosync.console.protocol import ProtocolError

_CHUNK_BYTES = 1 << 16
_MAX_TIMEOUT_SECONDS = 1e9  # more does not fit into a struct timeval everywhere
_PAUSE_SECONDS = 0.02  # until a full backlog is tried again


class NotRunning(Exception):
    """No daemon runs for that configuration."""


class OtherConfiguration(NotRunning):
    """The daemon that listens belongs to another configuration file."""


class Refused(Exception):
    """The daemon refuses a request, or cannot be asked; ``code`` is the exit code for that."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class Client:
    """A connection to the daemon that listens at ``path``; NotRunning or Refused if it cannot be made.

    ``config`` is the configuration file that it must belong to; "" is any. ``timeout``, in seconds, is for
    the connection and for each request that does not say otherwise.
    """

    def __init__(self, path: str, timeout: float = 10.0, config: str = "") -> None:
        self._path, self._timeout = path, timeout
        self._unread = b""
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
                    except BlockingIOError:  # the backlog is full: connect(2), EAGAIN
                        if time.monotonic() >= until:
                            raise
                        time.sleep(_PAUSE_SECONDS)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            raise NotRunning(f"not running: no daemon listens at {self._path}") from None
        except PermissionError:
            text = f"{self._path}: only {_owner(self._path)} may ask this daemon"
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
        self._socket.close()

    def ask(self, request: Mapping[str, Any], timeout: float | None = -1.0) -> dict[str, Any]:
        """Return the reply; Refused if it is an error, or if there is none within ``timeout`` seconds.

        None waits for ever; a negative timeout stands for that of the connection.
        """
        if timeout is not None:
            timeout = min(self._timeout if timeout < 0 else timeout, _MAX_TIMEOUT_SECONDS)
            # What we give up must not be done later. CLOCK_MONOTONIC is the same in all processes.
            request = {**request, "until": time.monotonic() + timeout}
        self._socket.settimeout(timeout)
        try:
            self._socket.sendall(protocol.encode(request))
            reply = protocol.decode(self._read_line())
        except TimeoutError:
            raise Refused(f"the daemon at {self._path} does not answer", protocol.BUSY) from None
        except (OSError, ProtocolError):
            raise NotRunning(f"the daemon at {self._path} has ended before it replied") from None
        if "error" in reply:
            raise Refused(str(reply["error"]), int(reply.get("code", protocol.TROUBLE)))
        return reply

    def wait_for_end(self) -> None:
        self._socket.settimeout(None)
        try:
            while self._socket.recv(_CHUNK_BYTES):
                pass
        except OSError:
            return

    def _read_line(self) -> bytes:
        while b"\n" not in self._unread:
            data = self._socket.recv(_CHUNK_BYTES)
            if not data:
                raise ConnectionResetError
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line


class StatusLink:
    """A connection over which the daemon tells its status (``Control.attach``); ``timeout`` in seconds."""

    def __init__(self, connection: socket.socket, timeout: float) -> None:
        self._socket = connection
        self._socket.settimeout(timeout)
        self._unread = b""
        self._is_asked = False  # and has not answered yet

    def status(self, seen: int = -1) -> dict[str, Any]:
        """Return the status; Refused if the daemon is too slow, NotRunning if it has left.

        It includes the events of the nodes if not just ``seen`` have been recorded.
        """
        try:
            if not self._is_asked:  # what was asked before will be answered, however late
                self._socket.sendall(protocol.encode({"command": "status", "seen": seen}))
                self._is_asked = True
            while not self._unread.endswith(b"\n"):
                data = self._socket.recv(_CHUNK_BYTES)
                if not data:
                    raise NotRunning("the daemon has ended")
                self._unread += data
        except TimeoutError:
            raise Refused("the daemon does not answer", protocol.BUSY) from None
        except OSError as problem:
            raise NotRunning(f"the daemon has ended: {problem.strerror}") from None
        line, self._unread, self._is_asked = self._unread, b"", False
        return protocol.decode(line)


def _owner(path: str) -> str:
    import pwd  # rarely needed

    for place in (path, os.path.dirname(path)):
        try:
            uid = os.stat(place).st_uid
            return pwd.getpwuid(uid).pw_name
        except (OSError, KeyError):
            continue
    return "its owner"
