"""A small HTTP server for the metrics and the page: GET and HEAD, one request a connection, nothing to trust.

It runs in a process of its own. The requests are read by a loop, so that a hundred slow clients cost nothing;
the answers are made by one thread, which asks the daemon, and waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

from inosync.config.listen import Address, is_local
from inosync.console import metrics, page
from inosync.console.client import ask
from inosync.console.history import EVERY, Snapshot, StatusSource

MAX_CLIENTS = 256
"""Connections at once; the next ones are told to come later."""
MAX_REQUEST = 16 << 10
"""Bytes of a request."""
PATIENCE = 10.0
"""Seconds that a client has for its request, and as many for each taking of the answer."""
ANSWER = 3.0
"""Seconds that the daemon has to answer."""
_LINGER = 1.0  # seconds in which a client takes notice of the end
_BACKLOG = 128
_REQUEST = re.compile(rb"(?P<method>[A-Z]{1,20}) (?P<path>/[!-~]*) HTTP/1\.(?P<minor>[01])")
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": page.POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_PHRASES = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    421: "Misdirected Request",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
_TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Answer:
    code: int
    body: bytes
    type: str = _TEXT
    more: Mapping[str, str] = field(default_factory=dict)

    def encode(self, body: bool) -> bytes:
        """As it travels; without its body for a HEAD."""
        head = [
            f"HTTP/1.1 {self.code} {_PHRASES[self.code]}",
            f"Date: {formatdate(usegmt=True)}",
            f"Content-Type: {self.type}",
            f"Content-Length: {len(self.body)}",
            "Connection: close",
        ]
        head += [f"{name}: {value}" for name, value in {**_HEADERS, **self.more}.items()]
        return "\r\n".join([*head, "", ""]).encode("ascii") + (self.body if body else b"")


class Refusal(Exception):
    """A request that is not served."""

    def __init__(self, code: int, text: str, more: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.answer = Answer(code, f"{text}\n".encode(), more=more or {})


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    """Without its query."""
    accept: str = ""


def parse(head: bytes, local: bool) -> Request:
    """The request in these lines, or Refusal. ``local``: only who asks for this machine by name is served."""
    first, *lines = head.split(b"\r\n")
    match = _REQUEST.fullmatch(first)
    if match is None:
        raise Refusal(400, "this is no request of HTTP/1.1")
    fields: dict[str, list[str]] = {}
    for line in filter(None, lines):
        name, colon, value = line.partition(b":")
        if not colon or not name or name != name.strip():
            raise Refusal(400, "this is no header of HTTP/1.1")
        fields.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1").strip())
    hosts = fields.get("host", [])
    if len(hosts) > 1 or (not hosts and match["minor"] == b"1"):
        raise Refusal(400, "a request has one Host")
    if local and hosts and not is_local(hosts[0]):
        raise Refusal(421, "only this machine is served here: ask for 127.0.0.1, [::1] or localhost")
    if match["method"] not in (b"GET", b"HEAD"):
        raise Refusal(405, "only GET and HEAD", {"Allow": "GET, HEAD"})
    path = match["path"].decode("ascii").partition("?")[0]
    return Request(match["method"].decode("ascii"), path, ", ".join(fields.get("accept", [])))


class Site:
    """What is to be seen, by path. To be used by one thread at a time."""

    def __init__(self, source: StatusSource) -> None:
        self._source = source
        self._made: dict[tuple[str, str], Answer] = {}
        self._of: Snapshot | None = None
        """What ``_made`` shows: of a hundred who ask at once, all are given the same."""
        self._paths: Mapping[str, Callable[[Snapshot, str], Answer]] = {
            "/": self._page,
            "/metrics": self._metrics,
            "/status.json": self._status,
            "/healthz": self._health,
        }

    def answer(self, request: Request) -> Answer:
        """The answer to a request, or Refusal."""
        make = self._paths.get(request.path)
        if make is None:
            raise Refusal(404, f"there are {', '.join(self._paths)}")
        told = self._source.look()
        if told is not self._of:
            self._made.clear()
            self._of = told
        key = request.path, request.accept if request.path == "/metrics" else ""
        if key not in self._made:
            if len(self._made) > MAX_CLIENTS:
                self._made.clear()
            self._made[key] = make(told, request.accept)
        return self._made[key]

    def _page(self, told: Snapshot, _accept: str) -> Answer:
        text = page.render(told, self._source.history)
        return Answer(200 if told.up else 503, text.encode("utf-8", "backslashreplace"), page.TYPE)

    def _metrics(self, told: Snapshot, accept: str) -> Answer:
        return Answer(200, *metrics.expose(told, accept))

    def _status(self, told: Snapshot, _accept: str) -> Answer:
        found: dict[str, Any] = {"error": told.why}
        if told.up:
            found = {"master": told.master, "nodes": told.nodes}
        body = json.dumps(found, indent=1).encode("ascii") + b"\n"
        return Answer(200 if told.up else 503, body, "application/json")

    def _health(self, told: Snapshot, _accept: str) -> Answer:
        return Answer(200, b"ok\n") if told.up else Answer(503, b"the daemon does not answer\n")


class Server:
    """Serves a site until its process is ended. ``local``: see ``parse``."""

    def __init__(self, site: Site, tick: Callable[[], None], local: bool) -> None:
        self._site, self._tick, self._local = site, tick, local
        self._clients = 0
        self._thread = ThreadPoolExecutor(1)

    async def run(self, listening: socket.socket) -> None:
        server = await asyncio.start_server(self._client, sock=listening, limit=MAX_REQUEST, backlog=_BACKLOG)
        async with server:
            loop = asyncio.get_running_loop()
            due = loop.time()
            while True:
                await loop.run_in_executor(self._thread, self._tick)
                due = max(due + EVERY, loop.time())
                await asyncio.sleep(due - loop.time())

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients += 1
        try:
            await self._serve(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # it is gone, or too slow
        finally:
            self._clients -= 1
            writer.transport.abort()  # nothing that it has not taken by now is waited for

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = True
        try:
            if self._clients > MAX_CLIENTS:
                raise Refusal(503, "too many connections")
            request = parse(await _head(reader), self._local)
            body = request.method != "HEAD"
            loop = asyncio.get_running_loop()
            answer = await loop.run_in_executor(self._thread, self._site.answer, request)
        except Refusal as refusal:
            answer = refusal.answer
        data = memoryview(answer.encode(body))
        while data:
            writer.write(data[:MAX_REQUEST])
            data = data[MAX_REQUEST:]
            async with asyncio.timeout(PATIENCE):
                await writer.drain()
        # What is closed with something unread takes back what was written (RFC 9112, 9.6).
        writer.write_eof()
        async with asyncio.timeout(PATIENCE if body else _LINGER):
            while await reader.read(MAX_REQUEST):
                pass


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        async with asyncio.timeout(PATIENCE):
            return (await reader.readuntil(b"\r\n\r\n"))[:-4]
    except asyncio.LimitOverrunError:
        raise Refusal(431, f"a request has {MAX_REQUEST} bytes at most") from None
    except TimeoutError:
        raise Refusal(408, f"a request is finished within {PATIENCE:.0f} s") from None


def serve(listening: socket.socket, address: Address, control: str) -> None:
    """Serve what the daemon at the socket ``control`` tells, for ever."""
    source = StatusSource(lambda: ask(control, {"command": "status"}, ANSWER), time.monotonic, time.time)
    server = Server(Site(source), source.tick, address.is_loopback)
    with contextlib.closing(listening):
        asyncio.run(server.run(listening))
