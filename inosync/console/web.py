"""A small HTTP server for the metrics and the page: GET and HEAD, one request a connection.

It runs in a process of its own and trusts no client. A loop reads the requests, so that slow clients cost
nothing; one thread makes the answers, because it has to wait for the daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.utils import formatdate
from types import ModuleType
from typing import Any

from inosync.config.listen import Address, is_local
from inosync.console import metrics
from inosync.console.client import NotRunning, StatusLink
from inosync.console.history import INTERVAL_SECONDS, Snapshot, StatusSource

MAX_CLIENTS = 256
"""Connections at once; further ones get 503."""
MAX_REQUEST_BYTES = 16 << 10
PATIENCE_SECONDS = 10.0
"""For a client to send its request, and to take each piece of the answer."""
DAEMON_PATIENCE_SECONDS = 3.0
"""For the daemon to answer."""
_LINGER_SECONDS = 1.0  # for a client to close its side after the answer to a HEAD
_BACKLOG = 128
_REQUEST = re.compile(rb"(?P<method>[A-Z]{1,20}) (?P<path>/[!-~]*) HTTP/1\.(?P<minor>[01])")
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
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


def _page() -> ModuleType | None:
    try:
        from inosync.console import page
    except ModuleNotFoundError as problem:
        if problem.name not in ("jinja2", "markupsafe"):
            raise
        return None
    return page


PAGE = _page()
"""Makes the page. None without jinja2: metrics are served all the same.

It is imported at once, because later this process may not be able to read its files.
"""


@dataclass(frozen=True, slots=True)
class Answer:
    code: int
    body: bytes
    type: str = _TEXT
    more: Mapping[str, str] = field(default_factory=dict)

    def encode(self, body: bool) -> bytes:
        """Return the bytes of the answer; without the body for a HEAD."""
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
    """A request that is answered with an error."""

    def __init__(self, code: int, text: str, more: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.answer = Answer(code, f"{text}\n".encode(), more=more or {})


@dataclass(frozen=True, slots=True)
class HttpRequest:
    method: str
    path: str
    """Without its query."""
    accept: str = ""


def parse(head: bytes, local: bool) -> HttpRequest:
    """Return the request in these lines, or Refusal; ``local`` requires a Host that names this machine."""
    first, *lines = head.split(b"\r\n")
    match = _REQUEST.fullmatch(first)
    if match is None:
        raise Refusal(400, "not a request of HTTP/1.1")
    fields: dict[str, list[str]] = {}
    for line in filter(None, lines):
        name, colon, value = line.partition(b":")
        if not colon or not name or name != name.strip():
            raise Refusal(400, "not a header of HTTP/1.1")
        fields.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1").strip())
    hosts = fields.get("host", [])
    if len(hosts) > 1 or (not hosts and match["minor"] == b"1"):
        raise Refusal(400, "a request needs exactly one Host")
    if local and hosts and not is_local(hosts[0]):
        raise Refusal(421, "only local requests are served: ask for 127.0.0.1, [::1] or localhost")
    if match["method"] not in (b"GET", b"HEAD"):
        raise Refusal(405, "only GET and HEAD", {"Allow": "GET, HEAD"})
    path = match["path"].decode("ascii").partition("?")[0]
    return HttpRequest(match["method"].decode("ascii"), path, ", ".join(fields.get("accept", [])))


class Site:
    """The pages by path. To be used by one thread at a time."""

    def __init__(self, source: StatusSource) -> None:
        self._source = source
        self._answers: dict[tuple[str, str], Answer] = {}
        """Made from ``_snapshot``, by path and accepted types: many clients at once cost one answer."""
        self._snapshot: Snapshot | None = None
        self._paths: Mapping[str, Callable[[Snapshot, str], Answer]] = {
            "/": self._page,
            "/metrics": self._metrics,
            "/status.json": self._status,
            "/healthz": self._health,
        }

    def answer(self, request: HttpRequest) -> Answer:
        make = self._paths.get(request.path)
        if make is None:
            raise Refusal(404, f"the paths are {', '.join(self._paths)}")
        snapshot = self._source.snapshot()
        if snapshot is not self._snapshot:
            self._answers.clear()
            self._snapshot = snapshot
        key = request.path, request.accept if request.path == "/metrics" else ""
        if key not in self._answers:
            if len(self._answers) > MAX_CLIENTS:
                self._answers.clear()
            self._answers[key] = make(snapshot, request.accept)
        return self._answers[key]

    def _page(self, snapshot: Snapshot, _accept: str) -> Answer:
        if PAGE is None:
            hint = "pip install 'inosync[metrics]', or apt install python3-jinja2"
            raise Refusal(503, f"the page needs jinja2, which is not installed: {hint}")
        text = PAGE.render(snapshot, self._source.history).encode("utf-8", "backslashreplace")
        more = {"Content-Security-Policy": PAGE.POLICY}
        return Answer(200 if snapshot.up else 503, text, PAGE.TYPE, more)

    def _metrics(self, snapshot: Snapshot, accept: str) -> Answer:
        return Answer(200, *metrics.expose(snapshot, accept))

    def _status(self, snapshot: Snapshot, _accept: str) -> Answer:
        found: dict[str, Any] = {"error": snapshot.why}
        if snapshot.up:
            found = {"master": snapshot.master, "nodes": snapshot.nodes}
        body = json.dumps(found, indent=1).encode("ascii") + b"\n"
        return Answer(200 if snapshot.up else 503, body, "application/json")

    def _health(self, snapshot: Snapshot, _accept: str) -> Answer:
        return Answer(200, b"ok\n") if snapshot.up else Answer(503, b"the daemon does not answer\n")


class Server:
    """Serves a site until the process ends. ``tick`` is called regularly; ``local``: see ``parse``."""

    def __init__(self, site: Site, tick: Callable[[], None], local: bool) -> None:
        self._site, self._tick, self._local = site, tick, local
        self._clients = 0
        self._thread = ThreadPoolExecutor(1)

    async def run(self, listening: socket.socket) -> None:
        server = await asyncio.start_server(
            self._client, sock=listening, limit=MAX_REQUEST_BYTES, backlog=_BACKLOG
        )
        async with server:
            loop = asyncio.get_running_loop()
            due = loop.time()
            while True:
                await loop.run_in_executor(self._thread, self._tick)
                due = max(due + INTERVAL_SECONDS, loop.time())
                await asyncio.sleep(due - loop.time())

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients += 1
        try:
            await self._answer(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # the client is gone, or too slow
        finally:
            self._clients -= 1
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = True
        try:
            if self._clients > MAX_CLIENTS:
                raise Refusal(503, "too many connections")
            request = parse(await _read_head(reader), self._local)
            body = request.method != "HEAD"
            loop = asyncio.get_running_loop()
            answer = await loop.run_in_executor(self._thread, self._site.answer, request)
        except Refusal as refusal:
            answer = refusal.answer
        data = memoryview(answer.encode(body))
        while data:
            writer.write(data[:MAX_REQUEST_BYTES])
            data = data[MAX_REQUEST_BYTES:]
            async with asyncio.timeout(PATIENCE_SECONDS):
                await writer.drain()
        # Closing with something unread would reset the connection, and lose the answer (RFC 9112, 9.6).
        writer.write_eof()
        async with asyncio.timeout(PATIENCE_SECONDS if body else _LINGER_SECONDS):
            while await reader.read(MAX_REQUEST_BYTES):
                pass


async def _read_head(reader: asyncio.StreamReader) -> bytes:
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return (await reader.readuntil(b"\r\n\r\n"))[:-4]
    except asyncio.LimitOverrunError:
        raise Refusal(431, f"a request has at most {MAX_REQUEST_BYTES} bytes") from None
    except TimeoutError:
        raise Refusal(408, f"a request has to arrive within {PATIENCE_SECONDS:.0f} s") from None


def serve(listening: socket.socket, address: Address, daemon: socket.socket) -> None:
    """Serve the status of the daemon at the other end of a ``StatusLink``, until that is gone."""
    link = StatusLink(daemon, DAEMON_PATIENCE_SECONDS)

    def ask(seen: int) -> Mapping[str, Any]:
        try:
            return link.status(seen)
        except NotRunning:
            os._exit(1)  # the daemon is gone, or starts another process like us

    source = StatusSource(ask, time.monotonic, time.time)
    server = Server(Site(source), source.add_points, address.is_loopback)
    with contextlib.closing(listening):
        asyncio.run(server.run(listening))
