"""The control socket: where a running daemon is asked and steered.

It belongs to the loop of the master, so nothing here waits: whoever connects and says nothing, or does not
read what he asked for, is let go after a while, and those that are too many wait outside.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from inosync.console import protocol
from inosync.console.protocol import Unusable
from inosync.system.loop import Loop, Timer

MAX_CLIENTS = 64
"""Connections at once; the next ones wait in the kernel's backlog."""
PATIENCE = 5.0
"""Seconds that a client has to finish its request, and to begin with the next one, and to take its reply."""
_BACKLOG = 128
_AT_ONCE = 16  # connections that are accepted before something else gets its turn
_CHUNK = 1 << 16
_PAUSE = 1.0  # seconds until connections are accepted again, after there was no descriptor for one


@dataclass(eq=False, slots=True)
class Connection:
    """Somebody who is connected, and has asked for one thing at a time."""

    socket: socket.socket
    timer: Timer | None = None
    """Lets it go if it does nothing."""
    input: bytearray = field(default_factory=bytearray)
    output: memoryview = field(default_factory=lambda: memoryview(b""))
    waits: bool = False
    """Whether it has asked for something that takes its time."""
    gone: Callable[[], None] | None = None
    """What to call if it leaves while it ``waits``."""
    closed: bool = False


Handler = Callable[[dict[str, Any], "Reply"], None]


class Reply:
    """The one answer to a request, at once or later."""

    def __init__(self, control: Control, client: Connection) -> None:
        self._control, self._client = control, client

    def __call__(self, message: dict[str, Any]) -> None:
        """Send it; nothing happens if the client has left."""
        self._control.reply(self._client, message)

    def later(self, gone: Callable[[], None]) -> None:
        """It will take its time; ``gone`` is called if the client leaves before."""
        self._client.gone = gone


class Control:
    """Listens at ``path``, for its owner alone; OSError if that cannot be.

    ``handle`` is given each request and how to reply to it.
    """

    def __init__(self, path: str, loop: Loop, handle: Handler) -> None:
        self.path = path
        self._loop, self._handle = loop, handle
        self._clients: set[Connection] = set()
        self._listens = False
        self._socket = _listening(path)
        self._listen(True)

    def descriptors(self) -> list[int]:
        """What a forked child has to close."""
        return [self._socket.fileno(), *(client.socket.fileno() for client in self._clients)]

    def look(self) -> None:
        """Listen anew if the socket has gone: somebody has cleared the run directory."""
        if os.path.lexists(self.path):
            return
        try:
            os.makedirs(os.path.dirname(self.path), 0o700, exist_ok=True)
            made = _listening(self.path)
        except OSError:
            return  # there is no room, for instance: at the next look, perhaps
        self._listen(False)
        self._socket.close()
        self._socket = made
        self._listen(True)

    def close(self) -> None:
        """Listen no more. Who is connected sees our end when it has come."""
        self._listen(False)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        self._socket.close()

    def _listen(self, wanted: bool) -> None:
        if self._socket.fileno() < 0:  # it was closed
            return
        if wanted and not self._listens:
            self._loop.on_readable(self._socket.fileno(), self._accept)
        elif self._listens and not wanted:
            self._loop.drop(self._socket.fileno())
        self._listens = wanted

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            if len(self._clients) >= MAX_CLIENTS:
                self._listen(False)
                return
            try:
                connection, _address = self._socket.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            except OSError:  # no descriptors left: the caller waits, and so do we
                self._listen(False)
                self._loop.call_at(self._loop.clock() + _PAUSE, lambda: self._listen(True))
                return
            connection.setblocking(False)
            client = Connection(connection)
            self._clients.add(client)
            self._expect(client)
            self._wait_for(client)

    def _expect(self, client: Connection) -> None:
        """Let a client go if it does nothing in time, from now on."""
        if client.timer is not None:
            client.timer.cancel()
        client.timer = self._loop.call_at(self._loop.clock() + PATIENCE, lambda: self._let_go(client))

    def _read(self, client: Connection) -> None:
        try:
            data = client.socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or client.waits:  # whoever asks again before he has his reply is not served
            self._let_go(client)
            return
        client.input += data
        line, end, rest = client.input.partition(b"\n")
        if rest or len(line) >= protocol.MAX_REQUEST:
            wrong = "one request at a time" if end else "this request is too long"
            client.waits = True
            self.reply(client, protocol.error(wrong, protocol.USAGE))
            self._let_go(client)
        elif end:
            client.input.clear()
            self._serve(client, bytes(line))

    def _serve(self, client: Connection, line: bytes) -> None:
        client.waits = True
        if client.timer is not None:
            client.timer.cancel()
        try:
            request = protocol.decode(line)
        except Unusable as problem:
            self.reply(client, protocol.error(str(problem), protocol.USAGE))
        else:
            self._handle(request, Reply(self, client))

    def reply(self, client: Connection, message: dict[str, Any]) -> None:
        """Answer the request that a client waits for."""
        if client.closed or not client.waits:
            return
        client.waits, client.gone = False, None
        self._expect(client)
        client.output = memoryview(protocol.encode(message))
        self._write(client)

    def _write(self, client: Connection) -> None:
        try:
            sent = client.socket.send(client.output)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._let_go(client)
            return
        client.output = client.output[sent:]
        if sent:
            self._expect(client)
        # One descriptor is registered for one thing at a time: nothing is read meanwhile.
        self._loop.drop(client.socket.fileno())
        self._wait_for(client)

    def _wait_for(self, client: Connection) -> None:
        if client.output:
            self._loop.on_writable(client.socket.fileno(), lambda: self._write(client))
        else:
            self._loop.on_readable(client.socket.fileno(), lambda: self._read(client))

    def _let_go(self, client: Connection) -> None:
        if client.closed:
            return
        client.closed = True
        if client.timer is not None:
            client.timer.cancel()
        self._clients.discard(client)
        self._loop.drop(client.socket.fileno())
        client.socket.close()
        if client.gone is not None:
            client.gone()
        self._listen(True)


def _listening(path: str) -> socket.socket:
    """A socket for us alone, in place of what an earlier process has left there."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path, follow_symlinks=False).st_mode):
            raise FileExistsError(errno.EEXIST, "is there, and is no socket: remove it", path)
    # Under another name at first: whoever sees it can connect to it.
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
