"""Requests of HTTP, and the answers to them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from support import statuses

from inosync.console import web
from inosync.console.client import NotRunning
from inosync.console.history import StatusSource
from inosync.console.web import Answer, HttpRequest, Refusal, Server, Site, parse


@pytest.mark.parametrize(
    ("head", "request_"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost", HttpRequest("GET", "/")),
        (b"HEAD /metrics?x=1 HTTP/1.0", HttpRequest("HEAD", "/metrics")),
        (b"GET /a HTTP/1.1\r\nhost:[::1]:9\r\nAccept: b\r\naccept: c", HttpRequest("GET", "/a", "b, c")),
    ],
)
def test_parse_returns_method_path_and_accepted_types(head: bytes, request_: HttpRequest) -> None:
    assert parse(head, local=True) == request_


@pytest.mark.parametrize(
    ("head", "code"),
    [
        (b"", 400),
        (b"GET / HTTP/2", 400),
        (b"GET http://x/ HTTP/1.1\r\nHost: localhost", 400),
        (b"GET /\x1b HTTP/1.1\r\nHost: localhost", 400),
        (b"GET / HTTP/1.1", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost", 400),
        (b"GET / HTTP/1.1\r\nHost : localhost", 400),
        (b"GET / HTTP/1.1\r\nno header", 400),
        (b"GET / HTTP/1.1\r\nHost: evil.example", 421),
        (b"POST / HTTP/1.1\r\nHost: localhost", 405),
    ],
)
def test_parse_refuses_everything_else(head: bytes, code: int) -> None:
    with pytest.raises(Refusal) as raised:
        parse(head, local=True)
    assert raised.value.answer.code == code


def test_any_host_may_be_asked_for_where_the_address_is_public() -> None:
    assert parse(b"GET / HTTP/1.1\r\nHost: mirror.example", local=False) == HttpRequest("GET", "/")


class FakeDaemon:
    def __init__(self, nodes: int = 1) -> None:
        self.now = 0.0
        self.is_running = True
        self.asked = 0
        self._nodes = [statuses.node("a" if number == 0 else f"n{number}") for number in range(nodes)]
        self.site = Site(StatusSource(self.ask, lambda: self.now, lambda: statuses.NOW))

    def ask(self, _seen: int) -> Mapping[str, Any]:
        if not self.is_running:
            raise NotRunning("not running")
        self.asked += 1
        return statuses.status(self._nodes)


@pytest.mark.parametrize(
    ("path", "code_without_daemon"), [("/", 503), ("/metrics", 200), ("/status.json", 503), ("/healthz", 503)]
)
def test_site_says_by_code_whether_the_daemon_answers(path: str, code_without_daemon: int) -> None:
    daemon = FakeDaemon()
    assert daemon.site.answer(HttpRequest("GET", path)).code == 200
    daemon.is_running = False
    assert daemon.site.answer(HttpRequest("GET", path)).code == 200, "the last snapshot is fresh"
    daemon.now += 10
    assert daemon.site.answer(HttpRequest("GET", path)).code == code_without_daemon


def test_site_makes_one_answer_of_one_snapshot() -> None:
    daemon = FakeDaemon()
    page = daemon.site.answer(HttpRequest("GET", "/"))
    assert daemon.site.answer(HttpRequest("GET", "/", "text/html")) is page
    daemon.now += 10
    assert daemon.site.answer(HttpRequest("GET", "/")) is not page


def test_metrics_are_served_without_what_the_page_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "PAGE", None)
    site = FakeDaemon().site
    with pytest.raises(Refusal, match="the page needs jinja2, which is not installed: pip") as raised:
        site.answer(HttpRequest("GET", "/"))
    assert raised.value.answer.code == 503
    assert site.answer(HttpRequest("GET", "/metrics")).code == 200


def test_policy_of_the_page_is_that_of_the_page_only() -> None:
    site = FakeDaemon().site
    assert b"script-src 'sha256-" in site.answer(HttpRequest("GET", "/")).encode(body=False)
    head = site.answer(HttpRequest("GET", "/healthz")).encode(body=False)
    assert b"\r\nContent-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n" in head


def test_site_names_its_paths() -> None:
    with pytest.raises(Refusal, match=r"/, /metrics, /status\.json, /healthz") as raised:
        FakeDaemon().site.answer(HttpRequest("GET", "/other"))
    assert raised.value.answer.code == 404


def test_status_is_that_of_the_daemon() -> None:
    answer = FakeDaemon().site.answer(HttpRequest("GET", "/status.json"))
    assert [node["name"] for node in json.loads(answer.body)["nodes"]] == ["a"]


def test_encode_leaves_out_the_body_for_head() -> None:
    answer = Answer(200, b"body")
    assert answer.encode(body=True) == answer.encode(body=False) + b"body"
    assert b"\r\nContent-Length: 4\r\n" in answer.encode(body=False)


@contextlib.asynccontextmanager
async def serving(site: Site) -> AsyncIterator[int]:
    """Serve a site over HTTP; the value is the port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        running = asyncio.create_task(Server(site, lambda: None, local=True).run(listening))
        try:
            yield listening.getsockname()[1]
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


async def get(port: int, path: str = "/healthz") -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
    writer.write_eof()
    with contextlib.closing(writer):
        return await reader.read()


def test_more_clients_than_there_is_room_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MAX_CLIENTS", 2)

    async def found() -> tuple[bytes, bytes]:
        async with serving(FakeDaemon().site) as port:
            silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
            refused = (await get(port))[:13]
            for _, writer in silent:
                writer.close()
            async with asyncio.timeout(60):
                while (served := (await get(port))[:13]) == refused:  # until it knows that they have left
                    await asyncio.sleep(0.01)
            return refused, served

    assert asyncio.run(found()) == (b"HTTP/1.1 503 ", b"HTTP/1.1 200 ")


@pytest.mark.parametrize("path", ["/metrics", "/status.json", "/"])
def test_answer_costs_ten_times_as_much_for_ten_times_the_nodes(path: str) -> None:
    async def cost(nodes: int) -> float:
        """Return the least processor time of an answer to a request over HTTP."""
        daemon, costs = FakeDaemon(nodes), []
        async with serving(daemon.site) as port:
            for _ in range(3):
                daemon.now += 10  # the last answer is of no use any more
                began = time.thread_time()
                answer = await get(port, path)
                costs.append(time.thread_time() - began)
                assert answer.startswith(b"HTTP/1.1 200 ")
                assert answer.count(f"n{nodes - 1}".encode()) > 0, "the last node is in it"
        assert daemon.asked == 3, "the daemon is asked once for each"
        return min(costs)

    few, many = asyncio.run(cost(50)), asyncio.run(cost(500))
    assert many < 20 * few, f"{many / few:.1f} times"
