"""``-s``: what is printed of a reply, and the exit codes."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.descriptions import master, node

from inosync.console import commands, protocol
from inosync.console.commands import MAX_BEHIND, Command, behind_lines
from inosync.console.control import Control, Reply
from inosync.system.loop import Loop

CONFIG = "/etc/inosync/test.py"


class FakeDaemon:
    """Answers each request with ``reply``."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.reply: dict[str, Any] = {}
        self.requests: list[dict[str, Any]] = []
        self._loop = Loop()
        self._control = Control(self.path, self._loop, self._handle)
        self._is_ended = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _handle(self, request: dict[str, Any], reply: Reply) -> None:
        assert request.pop("until", math.inf) > time.monotonic()
        if request == {"command": protocol.IDENTIFY}:
            reply(protocol.identity(CONFIG))
            return
        self.requests.append(request)
        reply(self.reply)

    def _run(self) -> None:
        while not self._is_ended:
            self._loop.turn(0.01)
        self._loop.turn(0.0)  # closes the connections of clients that have left
        self._control.close()
        for client in self._control._clients:  # whose end may not have been read yet
            client.socket.close()

    def close(self) -> None:
        self._is_ended = True
        self._thread.join()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    made = FakeDaemon(tmp_path / "x.sock")
    yield made
    made.close()


@pytest.fixture
def run(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(command: Command, reply: dict[str, Any]) -> tuple[int, str, str]:
        daemon.reply = reply
        code = commands.run(command, ["/nonexistent/x.sock", daemon.path], CONFIG)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.mark.parametrize(
    ("nodes", "max_lag", "code"),
    [
        ([node()], 0, 0),
        ([node(), node(state="syncing", pending=1, lag=0.1)], 0, 1),
        ([node(), node(state="syncing", pending=1, lag=0.1)], 5, 0),
        ([node(), node(state="syncing", pending=1, lag=6)], 5, 1),
        ([node(state="lagging", pending=1, lag=1)], 5, 1),
        ([node(state="paused")], 0, 1),
        ([node(state="starting")], 0, 1),
        ([node(state="full")], 0, 1),
        ([node(state="starting"), node(state="degraded")], 0, 2),
        ([node(state="retrying")], 9, 2),
        ([node(state="halted")], 0, 2),
        ([], 0, 0),
    ],
)
def test_status_code_follows_from_the_worst_node(
    nodes: list[dict[str, Any]], max_lag: float, code: int
) -> None:
    assert commands.status_code(nodes, max_lag) == code


def test_request_goes_to_the_first_daemon_that_listens(
    daemon: FakeDaemon, run: Callable[..., tuple[int, str, str]]
) -> None:
    assert run(Command("pause", "a"), {"nodes": ["a"]}) == (0, "", "")
    assert daemon.requests == [{"command": "pause", "node": "a"}]


def test_missing_daemon_is_not_running(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.run(Command("status"), ["/nonexistent/x.sock"], CONFIG) == protocol.NOT_RUNNING
    assert capsys.readouterr().err.startswith("inosync: not running: ")
    assert commands.run(Command("status"), [], CONFIG) == protocol.NOT_RUNNING


def test_error_is_printed_line_by_line_with_its_code(run: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = run(Command("reload"), protocol.error("line 3: \x1b\nnot reloaded", protocol.CONFIG))
    assert (code, out, err) == (protocol.CONFIG, "", "inosync: line 3: \\x1b\ninosync: not reloaded\n")


def test_status_is_a_table_or_json(run: Callable[..., tuple[int, str, str]]) -> None:
    snapshot = {"master": master(), "nodes": [node(state="paused")]}
    code, out, _ = run(Command("status"), snapshot)
    assert code == protocol.BEHIND
    assert [line.split()[0] for line in out.splitlines()] == ["NODE", "a", "1"]
    code, out, _ = run(Command("status", as_json=True), snapshot)
    assert (code, json.loads(out)) == (protocol.BEHIND, snapshot)


@pytest.mark.parametrize(
    ("accepted", "stages", "text"),
    [
        ([], [], "nothing is halted or refused that could be accepted\n"),
        (["/srv/\x1b"], [], "/srv/\\x1b: is mirrored as it is\n"),
        ([], [1, 2], "stage 1: what was not let pass goes on\nstage 2: what was not let pass goes on\n"),
    ],
)
def test_accept_names_the_trees_and_the_stages(
    run: Callable[..., tuple[int, str, str]], accepted: list[str], stages: list[int], text: str
) -> None:
    assert run(Command("accept"), {"accepted": accepted, "stages": stages}) == (0, text, "")


@pytest.mark.parametrize(
    ("stages", "text"), [([], "no stage was refused\n"), ([2], "stage 2: is checked again\n")]
)
def test_retry_names_the_stages(
    run: Callable[..., tuple[int, str, str]], stages: list[int], text: str
) -> None:
    assert run(Command("retry"), {"stages": stages}) == (0, text, "")


def test_flush_names_the_nodes_that_are_behind(
    daemon: FakeDaemon, run: Callable[..., tuple[int, str, str]]
) -> None:
    assert run(Command("flush", timeout=5.0), {"behind": []}) == (0, "", "")
    assert daemon.requests[-1]["timeout"] == 5.0
    behind = {"name": "a", "state": "paused", "lag": 1.25, "pending": 2, "reason": "by the operator"}
    code, _, err = run(Command("flush"), {"behind": [behind]})
    assert code == protocol.BEHIND
    assert err == "inosync: a is behind by 1.2 s, 2 changes, paused: by the operator\n"


def test_flush_names_the_worst_of_many_nodes_and_counts_the_others() -> None:
    nodes = [
        {"name": f"n{number}", "state": "retrying", "lag": float(number), "pending": 1, "reason": "refused"}
        for number in range(72)
    ]
    nodes[0]["state"] = "paused"
    lines = behind_lines(nodes)
    assert len(lines) == MAX_BEHIND + 1
    assert lines[0] == "n71 is behind by 71.0 s, 1 changes, retrying: refused"
    assert lines[-1] == "62 more nodes are behind by up to 61.0 s: 61 retrying, 1 paused"
    assert len(behind_lines(nodes[:10])) == 10
    assert behind_lines(nodes[:11])[-1] == "1 more node is behind by up to 0.0 s: 1 paused"
    assert behind_lines([]) == []


def test_top_needs_a_terminal(run: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = run(Command("top"), {})
    assert (code, err) == (protocol.USAGE, "inosync: top needs a terminal; use status\n")


def test_events_are_lines_with_time_node_and_count(run: Callable[..., tuple[int, str, str]]) -> None:
    at = time.mktime((2026, 11, 30, 8, 5, 9, 0, 0, -1))
    events = [
        {"node": "a", "at": at, "kind": "failed", "text": "refused\n\x1b[2J", "count": 12},
        {"node": "b", "at": at + 1.5, "kind": "state", "text": "is ok", "count": 1},
    ]
    code, out, err = run(Command("events"), {"events": events})
    assert (code, err) == (protocol.OK, "")
    assert out.splitlines() == [
        "2026-11-30 08:05:09  a: refused\\n\\x1b[2J (12 times)",
        "2026-11-30 08:05:10  b: is ok",
    ]
    code, out, _ = run(Command("events", as_json=True), {"events": events})
    assert json.loads(out) == {"events": events}
