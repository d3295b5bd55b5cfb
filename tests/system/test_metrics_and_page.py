"""Metrics and the page (``rlisten``) over HTTP."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from support import procs, statuses
from support.daemon import Daemon, MakeDaemon
from support.wait import until

from inosync.console.history import Snapshot
from inosync.console.page import render

NODES = ("a", "b<i>&\"'", "c")
ACCEPT = {"Accept": "application/openmetrics-text;version=1.0.0"}
TITLE = "inosync: metrics "
ROW = r'<details class="node '


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port


@dataclass
class Site:
    """A daemon with three local nodes, and an HTTP client."""

    home: Path
    daemon: Daemon
    port: int

    @property
    def tree(self) -> Path:
        return self.home / "tree"

    def configure(self, **settings: object) -> None:
        for number in range(len(NODES)):
            (self.home / f"node{number}").mkdir(exist_ok=True)
        self.daemon.configure(
            {
                "wpaths": [str(self.tree)],
                "rpaths": ["tree"],
                "rnodes": [
                    {"node": f"{self.home}/node{number}/", "name": name} for number, name in enumerate(NODES)
                ],
                "edelay": 0.2,
                "equiet": 0.02,
                "rlisten": f"127.0.0.1:{self.port}",
                **settings,
            }
        )

    def request(
        self, path: str = "/", method: str = "GET", headers: dict[str, str] | None = None, port: int = 0
    ) -> tuple[int, dict[str, str], str]:
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=30)
        try:
            connection.request(method, path, headers=headers or {})
            reply = connection.getresponse()
            return (
                reply.status,
                {name.lower(): value for name, value in reply.getheaders()},
                reply.read().decode(),
            )
        finally:
            connection.close()

    def raw(self, data: bytes) -> bytes:
        """Return the whole reply to these bytes."""
        with socket.create_connection(("127.0.0.1", self.port), 30) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            found = b""
            with contextlib.suppress(ConnectionResetError):
                while more := connection.recv(65536):
                    found += more
            return found

    def samples(self) -> dict[tuple[str, str], float]:
        """Return the samples by name and node."""
        code, _, text = self.request("/metrics", headers=ACCEPT)
        assert code == 200
        return {
            (sample.name, sample.labels.get("node", "")): sample.value
            for family in openmetrics(text)  # type: ignore[no-untyped-call]
            for sample in family.samples
            if set(sample.labels) <= {"node"}
        }

    def child(self) -> int | None:
        """Return the pid of the metrics process, if there is one."""
        pids = [pid for pid in self.daemon.descendants() if procs.title(pid).startswith(TITLE)]
        return pids[0] if len(pids) == 1 else None

    def is_level(self) -> bool:
        try:
            return self.request("/status.json")[0] == 200 and self.states() == {"ok"}
        except OSError:
            return False

    def is_refused(self) -> bool:
        """Whether the port is closed. A process that ends loses its title before its sockets."""
        try:
            self.request("/healthz")
        except ConnectionRefusedError:
            return True
        except OSError:
            pass
        return False

    def states(self) -> set[str]:
        return {node["state"] for node in json.loads(self.request("/status.json")[2])["nodes"]}


@pytest.fixture
def site(tmp_path: Path, daemon: MakeDaemon) -> Site:
    made = Site(tmp_path, daemon({}), free_port())
    made.tree.mkdir()
    (made.tree / "file").write_text("content")
    made.configure()
    return made


@pytest.fixture
def running(site: Site) -> Site:
    site.daemon.start()
    until(site.is_level, 60, "all nodes to be level")
    return site


def test_server_serves_page_status_and_health(running: Site) -> None:
    code, headers, text = running.request("/")
    assert (code, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'sha256-")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert len(re.findall(ROW, text)) == len(NODES)
    assert "b&lt;i&gt;&amp;&#34;&#39;" in text
    assert "<i>" not in text
    answer = json.loads(running.request("/status.json")[2])
    assert {node["name"] for node in answer["nodes"]} == set(NODES)
    assert running.request("/healthz")[::2] == (200, "ok\n")
    child = running.child()
    assert child
    assert procs.title(child) == f"inosync: metrics 127.0.0.1:{running.port}"
    assert len(running.daemon.workers()) == 3
    assert f"http://127.0.0.1:{running.port}/metrics" in running.daemon.log()


def test_metrics_are_true_and_rise(running: Site) -> None:
    before = running.samples()
    assert before["inosync_up", ""] == 1
    assert before["inosync_watched_directories", ""] == 1
    rss = psutil.Process(running.daemon.pid).memory_info().rss
    assert before["inosync_resident_memory_bytes", ""] == pytest.approx(rss, rel=0.3)
    for name in NODES:
        assert before["inosync_node_lag_seconds", name] == 0
    rss = psutil.Process(running.daemon.workers()["a"]).memory_info().rss
    assert before["inosync_node_worker_resident_memory_bytes", "a"] == pytest.approx(rss, rel=0.3)
    (running.tree / "new").write_text("new")
    until(
        lambda: running.samples()["inosync_events_total", ""] > before["inosync_events_total", ""],
        60,
        "events",
    )
    counter = "inosync_node_batches_total"
    if (counter, "a") in before:
        until(lambda: all(running.samples()[counter, n] > before[counter, n] for n in NODES), 60, "batches")


def test_promtool_accepts_the_metrics(running: Site) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (apt install prometheus)")
    text = running.request("/metrics")[2]
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


REQUESTS = {
    b"GET /nothing HTTP/1.0\r\n\r\n": 404,
    b"GET /../../etc/passwd HTTP/1.0\r\n\r\n": 404,
    b"POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc": 405,
    b"TRACE / HTTP/1.0\r\n\r\n": 405,
    b"GET / HTTP/1.1\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: evil.example.com\r\n\r\n": 421,
    b"GET / HTTP/1.1\r\nHost: localhost:1\r\n\r\n": 200,
    b"GET / HTTP/2.0\r\n\r\n": 400,
    b"GET http://localhost/ HTTP/1.0\r\n\r\n": 400,
    b"\x16\x03\x01\x02\x00\x01\r\n\r\n": 400,
    b"GET / HTTP/1.0\r\nbad header\r\n\r\n": 400,
    b"GET / HTTP/1.0\r\nX: " + b"x" * 100_000 + b"\r\n\r\n": 431,
    b"GET /?x=%3Cscript%3E HTTP/1.0\r\n\r\n": 200,
    b"": 0,
    b"GET / HTT": 0,
}
"""What clients send, and the status code of the reply; 0: there is no reply."""


def test_requests_of_all_kinds_get_their_status_code(running: Site) -> None:
    for data, code in REQUESTS.items():
        reply = running.raw(data)
        if code == 431 and not reply:
            continue  # the connection was closed while the client still wrote
        assert reply[:13] == (b"HTTP/1.1 %d " % code if code else b""), data[:80]
        assert code in (0, 200) or len(reply.partition(b"\r\n\r\n")[2]) < 200, data[:80]


def test_head_request_gets_no_body(running: Site) -> None:
    reply = running.raw(b"HEAD / HTTP/1.0\r\n\r\n")
    head, _, body = reply.partition(b"\r\n\r\n")
    assert body == b""
    length = re.search(rb"Content-Length: (\d+)", head)
    assert length
    assert int(length[1]) > 1000


def test_slow_and_many_clients_delay_no_request_and_no_node(running: Site) -> None:
    with contextlib.ExitStack() as stack:

        def connect(data: bytes) -> socket.socket:
            made = stack.enter_context(socket.create_connection(("127.0.0.1", running.port), 30))
            made.sendall(data)
            return made

        slow = [connect(b"GET / HTTP/1.1\r\nHost: local") for _ in range(200)]
        assert running.request("/")[0] == 200
        (running.tree / "meanwhile").write_text("x")
        for number in range(len(NODES)):
            copy = running.home / f"node{number}" / "tree" / "meanwhile"
            until(copy.exists, 60, f"the change on node {number}")
        for connection in [connect(b"GET /status.json HTTP/1.0\r\n\r\n") for _ in range(50)]:
            assert connection.recv(12) == b"HTTP/1.1 200"
        for connection in slow:  # an unfinished request times out
            said = connection.recv(100)
            assert said.startswith(b"HTTP/1.1 408 ")
    until(lambda: running.request("/healthz")[0] == 200, 60, "an answer afterwards")


def test_metrics_process_that_dies_is_replaced(running: Site) -> None:
    child = running.child()
    assert child
    os.kill(child, signal.SIGKILL)
    assert running.request("/healthz")[0] == 200  # the master holds the socket, so a request waits
    other = until(running.child, 60, "another one")
    assert other != child
    assert "the process that serves metrics was killed by signal 9" in running.daemon.log()
    assert len(running.daemon.workers()) == 3


def test_metrics_process_ends_with_its_master(running: Site) -> None:
    child = running.child()
    assert child
    running.daemon.kill9()
    until(lambda: not psutil.pid_exists(child), 60, "its end")


def test_port_that_is_taken_is_tried_again(site: Site) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", site.port))
        other.listen()
        site.daemon.start()
        site.daemon.until_logged(f"rlisten: 127.0.0.1:{site.port}: Address already in use; tried again")
        copy = site.home / "node0" / "tree" / "file"
        until(copy.exists, 60, "mirroring all the same")
    until(site.is_level, 60, "an answer once it is free")


def test_reload_turns_rlisten_off_and_on_at_another_port(running: Site) -> None:
    running.configure(rlisten=None)
    running.daemon.hup()
    until(lambda: running.child() is None, 60, "its end")
    until(running.is_refused, 60, "the port to be closed")
    running.port = free_port()
    running.configure()
    running.daemon.hup()
    until(running.is_level, 60, "an answer at another port")
    child = running.child()
    running.configure(rlisten=f"[::1]:{running.port}")
    running.daemon.hup()
    until(lambda: running.child() not in (None, child), 60, "the next one")
    until(running.is_refused, 60, "the port to be closed")
    assert procs.title(running.child() or 0) == f"inosync: metrics [::1]:{running.port}"


def test_master_that_hangs_is_reported_as_down(running: Site) -> None:
    running.daemon.signal(signal.SIGSTOP)
    try:
        until(lambda: running.request("/healthz")[0] == 503, 60, "that to be noticed")
        text = running.request("/")[2]
        assert "inosync does not answer" in text
        assert "Last known state" in text
        assert len(re.findall(ROW, text)) == len(NODES)
        assert running.samples() == {("inosync_up", ""): 0.0}
    finally:
        running.daemon.signal(signal.SIGCONT)
    until(lambda: running.request("/healthz")[0] == 200, 60, "it to be back")


# In a browser --------------------------------------------------------------------------------------------


@pytest.fixture
def chromium(tmp_path: Path) -> list[str]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium is installed (apt install chromium)")
    options = ["--headless", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    options += ["--disable-component-update", "--disable-extensions", f"--user-data-dir={tmp_path}/chromium"]
    options += [f"--log-net-log={tmp_path}/net.json", "--enable-logging=stderr"]
    return [program, *options, *(["--no-sandbox"] if os.geteuid() == 0 else [])]


def browse(command: list[str], url: str) -> tuple[str, list[str], str]:
    """Return the page as the browser renders it, the messages on its console, and its network log."""
    browser = subprocess.Popen(
        [*command, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        page, errors = browser.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):  # it has many processes
            os.killpg(browser.pid, signal.SIGKILL)
        browser.wait()
    assert browser.returncode == 0, errors
    said = [line for line in errors.splitlines() if "CONSOLE" in line]
    net = next(word.partition("=")[2] for word in command if word.startswith("--log-net-log"))
    return page, said, Path(net).read_text(errors="replace")


def is_asked_only(url: str, net: str) -> bool:
    """Whether the browser loads only this page, apart from requests to its own vendor."""
    asked = set(re.findall(r'"url":"(https?://[^"]*)"', net))
    own = re.compile(r"https?://[^/]*(google|gvt1|chrom)[^/]*/")
    return url in asked and all(one.startswith(url) or own.match(one) for one in asked)


def test_page_in_a_browser_updates_itself(running: Site, chromium: list[str]) -> None:
    url = f"http://127.0.0.1:{running.port}/"
    page, said, net = browse([*chromium, "--virtual-time-budget=12000", "--dump-dom"], url)
    assert len(re.findall(ROW, page)) == len(NODES)
    assert said == []
    assert 'type="search"' in page  # the script has been at work
    assert "updated every 5 s" in page
    assert len(re.findall(r">copy</button>", page)) == 2 * len(NODES)
    assert "is ok" in page  # an event
    assert 'data-key="ok " open' in page
    assert is_asked_only(url, net)


def test_page_in_a_browser_without_scripts_shows_the_nodes(
    running: Site, chromium: list[str], tmp_path: Path
) -> None:
    preferences = tmp_path / "chromium" / "Default" / "Preferences"
    preferences.parent.mkdir(parents=True)
    # As a user turns them off.
    preferences.write_text('{"profile": {"default_content_setting_values": {"javascript": 2}}}')
    url = f"http://127.0.0.1:{running.port}/"
    page, _, net = browse([*chromium, "--dump-dom"], url)
    assert len(re.findall(ROW, page)) == len(NODES)
    assert 'type="search"' not in page
    assert is_asked_only(url, net)


CLICKS = """
const one = s => document.querySelector(s), all = s => [...document.querySelectorAll(s)], found = {};
const shown = () => all(".node").filter(node => node.checkVisibility()).map(node => node.dataset.key);
const input = one("#tools input");
const type = text => { input.value = text; input.dispatchEvent(new Event("input")); };
found.fits = document.documentElement.scrollWidth <= innerWidth;
found.first = shown();
one(".group.retrying > summary").click();
found.unfolded = shown();
one(".group.retrying .node > summary").click();
found.details = one(".group.retrying .node .more").checkVisibility();
found.chart = one(".node[open] .chart").getBoundingClientRect().height > 50;
type("n17");
found.filtered = shown();
type("");
found.again = shown();
found.open = all("#nodes details[open]").map(details => details.dataset.key);
const lag = () => all(".head button")[2].click();
lag();
found.sorted = shown().slice(0, 3);
lag();
found.reversed = shown().slice(-1);
lag();
found.unsorted = shown();
document.body.replaceChildren(JSON.stringify(found));
"""


def test_clicks_on_the_page_unfold_filter_and_sort(chromium: list[str], tmp_path: Path) -> None:
    refused = [statuses.node(name, "retrying", 9, reason=f"{name}: refused") for name in "ab"]
    nodes = [*refused, statuses.node("c", "lagging", 70), *(statuses.node(f"n{n}") for n in range(55))]
    snapshot = Snapshot(statuses.NOW, statuses.status(nodes)["master"], nodes)
    text = render(snapshot, statuses.lived(nodes)).replace("</body>", f"<script>{CLICKS}</script></body>")
    (tmp_path / "page.html").write_text(text)
    sizes = ["--window-size=500,900", "--dump-dom"]
    shown, said, _ = browse([*chromium, *sizes], (tmp_path / "page.html").as_uri())
    assert said == []
    found = json.loads(re.findall(r"<body>(.*)</body>", shown, re.DOTALL)[0])
    assert found == {
        "fits": True,
        "first": ["c"],
        "unfolded": ["a", "b", "c"],
        "details": True,
        "chart": True,
        "filtered": ["n17"],
        "again": ["a", "b", "c"],
        "open": ["retrying …: refused", "a"],
        "sorted": ["c", "a", "b"],
        "reversed": ["c"],
        "unsorted": ["a", "b", "c"],
    }


def test_master_is_asked_at_most_once_a_second(running: Site) -> None:
    until(lambda: running.request("/status.json")[0] == 200, 60, "an answer")
    began = time.monotonic()
    uptimes = {json.loads(running.request("/status.json")[2])["master"]["uptime"] for _ in range(40)}
    assert len(uptimes) <= (time.monotonic() - began) + 2
