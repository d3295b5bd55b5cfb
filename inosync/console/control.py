"""The control socket: clients ask a running daemon for its status and give it commands.

It runs in the loop of the master, so nothing here waits. A client that sends no request, or does not read its
reply, is disconnected after a while; clients beyond the limit wait in the kernel's backlog.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from inosync.console import protocol
from inosync.console.protocol import ProtocolError
from inosync.system.loop import Loop, Timer

MAX_CLIENTS = 64
"""Connections at once, beside those that wait for a deferred reply."""
PATIENCE_SECONDS = 5.0
"""How long a client may take to finish its request, and to read its reply."""
_BACKLOG = 128
_MAX_ACCEPTS = 16  # before something else gets its turn
_CHUNK_BYTES = 1 << 16
_PAUSE_SECONDS = 1.0  # without a descriptor for a connection, until connections are accepted again


Handler = Callable[[dict[str, Any], "Reply"], None]


@dataclass(eq=False, slots=True)
class Connection:
    """A client, which has one request at a time."""

    socket: socket.socket
    handle: Handler
    is_own: bool = False
    """Whether it is a process of the daemon's own, which stays connected."""
    timer: Timer | None = None
    """Disconnects it; None while it waits for a reply."""
    input: bytearray = field(default_factory=bytearray)
    output: memoryview = field(default_factory=lambda: memoryview(b""))
    is_waiting: bool = False
    """Whether it has sent a request, and has no reply yet."""
    on_leave: Callable[[], None] | None = None
    """To be called if it disconnects while it waits for a deferred reply."""
    is_refused: bool = False
    """Whether to disconnect it when it has its reply, because others need the room."""
    is_closed: bool = False


class Reply:
    """The one reply to a request, at once or later."""

    def __init__(self, control: Control, client: Connection) -> None:
        self._control, self._client = control, client

    def __call__(self, message: dict[str, Any]) -> None:
        """Send the reply; nothing happens if the client has left."""
        self._control.reply(self._client, message)

    def defer(self, on_leave: Callable[[], None]) -> None:
        """Let the client wait; ``on_leave`` is called if it disconnects before the reply."""
        self._control.defer_reply(self._client, on_leave)

    @property
    def can_wait(self) -> bool:
        """Whether the reply can be deferred: not too many clients wait already."""
        return self._control.waiting < protocol.MAX_WAITING


class Control:
    """Listens at ``path``, for our user only; OSError if that is not possible.

    ``handle`` is called with each request and its reply.
    """

    def __init__(self, path: str, loop: Loop, handle: Handler) -> None:
        self.path = path
        self._loop, self._handle = loop, handle
        self._clients: set[Connection] = set()
        self._is_listening = False
        self._socket = _listening(path)
        self._listen()

    def descriptors(self) -> list[int]:
        return [self._socket.fileno(), *(client.socket.fileno() for client in self._clients)]

    @property
    def waiting(self) -> int:
        return sum(client.on_leave is not None for client in self._clients)

    def defer_reply(self, client: Connection, on_leave: Callable[[], None]) -> None:
        client.on_leave = on_leave
        self._listen()  # it leaves room for another client

    def restore_socket(self) -> None:
        """Listen anew if the socket is gone because the run directory was cleared."""
        if os.path.lexists(self.path):
            return
        try:
            os.makedirs(os.path.dirname(self.path), 0o700, exist_ok=True)
            made = _listening(self.path)
        except OSError:
            return  # no room, for instance: the next call tries again
        self._stop_listening()
        self._socket.close()
        self._socket = made
        self._listen()

    def close(self) -> None:
        """Listen no more. Connected clients see the end of this process when it comes."""
        self._stop_listening()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        self._socket.close()

    def _listen(self) -> None:
        if not self._is_listening and self._socket.fileno() >= 0:
            self._loop.on_readable(self._socket.fileno(), self._accept)
            self._is_listening = True

    def _stop_listening(self) -> None:
        if self._is_listening:
            self._loop.drop(self._socket.fileno())
            self._is_listening = False

    def _accept(self) -> None:
        for _ in range(_MAX_ACCEPTS):
            if len(self._clients) - self.waiting >= MAX_CLIENTS:
                self._stop_listening()
                return
            try:
                connection, _address = self._socket.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            except OSError:  # no descriptors left
                self._stop_listening()
                self._loop.call_at(self._loop.clock() + _PAUSE_SECONDS, self._listen)
                return
            self._add(Connection(connection, self._handle))

    def attach(self, connection: socket.socket, handle: Handler) -> None:
        """Serve a process of our own over a connection to it, until it leaves."""
        self._add(Connection(connection, handle, is_own=True))

    def _add(self, client: Connection) -> None:
        client.socket.setblocking(False)
        self._clients.add(client)
        self._restart_timer(client)
        self._wait_for(client)

    def _restart_timer(self, client: Connection) -> None:
        self._stop_timer(client)
        if client.is_own:
            return
        when = self._loop.clock() + PATIENCE_SECONDS
        client.timer = self._loop.call_at(when, lambda: self._disconnect(client))

    def _stop_timer(self, client: Connection) -> None:
        if client.timer is not None:
            client.timer.cancel()
            client.timer = None

    def _read(self, client: Connection) -> None:
        try:
            data = client.socket.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or client.is_waiting:  # a second request before the first reply is not served
            self._disconnect(client)
            return
        client.input += data
        line, end, rest = client.input.partition(b"\n")
        if rest or len(line) >= protocol.MAX_REQUEST_BYTES:
            problem = "one request at a time" if end else "this request is too long"
            client.is_waiting = True
            self.reply(client, protocol.error(problem, protocol.USAGE))
            self._disconnect(client)
        elif end:
            client.input.clear()
            self._serve(client, bytes(line))

    def _serve(self, client: Connection, line: bytes) -> None:
        client.is_waiting = True
        self._stop_timer(client)
        if _has_left(client.socket):  # what it has given up is not begun
            self._disconnect(client)
            return
        try:
            request = protocol.decode(line)
        except ProtocolError as problem:
            self.reply(client, protocol.error(str(problem), protocol.USAGE))
        else:
            client.handle(request, Reply(self, client))

    def reply(self, client: Connection, message: dict[str, Any]) -> None:
        if client.is_closed or not client.is_waiting:
            return
        client.is_waiting, client.on_leave = False, None
        client.is_refused = message.get("code") == protocol.BUSY
        self._restart_timer(client)
        client.output = memoryview(protocol.encode(message))
        self._write(client)

    def _write(self, client: Connection) -> None:
        try:
            sent = client.socket.send(client.output)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._disconnect(client)
            return
        client.output = client.output[sent:]
        if sent:
            self._restart_timer(client)
        if client.is_refused and not client.output:
            self._disconnect(client)
            return
        # A descriptor is registered for one thing at a time: nothing is read while a reply is written.
        self._loop.drop(client.socket.fileno())
        self._wait_for(client)

    def _wait_for(self, client: Connection) -> None:
        if client.output:
            self._loop.on_writable(client.socket.fileno(), lambda: self._write(client))
        else:
            self._loop.on_readable(client.socket.fileno(), lambda: self._read(client))

    def _disconnect(self, client: Connection) -> None:
        if client.is_closed:
            return
        client.is_closed = True
        self._stop_timer(client)
        self._clients.discard(client)
        self._loop.drop(client.socket.fileno())
        client.socket.close()
        if client.on_leave is not None:
            client.on_leave()
        self._listen()


def _has_left(client: socket.socket) -> bool:
    """Return whether a client has closed its socket, and not only its writing half (poll(2), POLLHUP)."""
    poll = select.poll()
    poll.register(client, 0)
    return bool(poll.poll(0))


def _listening(path: str) -> socket.socket:
    """Return a socket that only our user can connect to, in place of one that an earlier process has left."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path, follow_symlinks=False).st_mode):
            raise FileExistsError(errno.EEXIST, "exists and is no socket: remove it", path)
    # Bound under a hidden name first: a client that sees the socket can connect to it.
    hidden = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(hidden)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        with protocol.address(hidden) as name:
            before = os.umask(0o177)
            try:
                made.bind(name)
            finally:
                os.umask(before)
        made.listen(_BACKLOG)
        os.rename(hidden, path)
    except OSError:
        made.close()
        raise
    return made
