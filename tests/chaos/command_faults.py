"""Commands of an operator, and hostile clients of the control socket."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from support.daemon import ANSWER

from chaos.faults import Draw, Happened, Impossible, Kind, Lasting, Once, free
from chaos.markers import DIRECTORY
from chaos.testbed import Testbed
from inosync.console.client import Refused

LONGEST = 3.0
"""The most seconds to wait for a flush, during which no fault begins or is healed."""
CLIENTS = 60
NONSENSE = [
    b"",
    b"\n",
    b"{",
    b"\0" * 5000,
    b'{"command": "status"',
    b"GET / HTTP/1.1\r\n\r\n",
    b"\xff\n" * 200,
]


def _of_a_node(testbed: Testbed, command: str, draw: Draw, **more: object) -> tuple[str, dict[str, Any]]:
    """Send a command for a random node; return its name and the reply. A removed node is Impossible."""
    node = draw.among(sorted(testbed.nodes))
    try:
        return node, testbed.daemon.ask(command, node=node, **more)
    except Refused as why:
        raise Impossible(str(why)) from None


def paused(testbed: Testbed, draw: Draw) -> Happened:
    """Pause a node for a while."""
    resource = free(testbed, f"pause of {draw.among(sorted(testbed.nodes))}")
    node, _ = _of_a_node(testbed, "pause", draw)

    def resume() -> None:
        with contextlib.suppress(Refused):  # it may have been taken out
            testbed.daemon.ask("resume", node=node)

    return Lasting(resource, resume, frozenset({node}), node)


def flushed(testbed: Testbed, draw: Draw) -> Happened:
    """Change a file in each tree and flush: if the reply says that a node has it, it must be there."""
    content = f"{draw.which:.12f}{draw.how:.12f}"
    for tree in {tree for node in testbed.nodes.values() for tree in node.trees}:
        directory = testbed.tree(tree) / DIRECTORY
        directory.mkdir(exist_ok=True)
        (directory / "flushed").write_text(content)
    node, reply = _of_a_node(testbed, "flush", draw, timeout=min(draw.seconds, LONGEST))
    if reply["behind"]:
        return Once(frozenset(), f"{node} is behind: {reply['behind'][0]['state']}")
    for tree in testbed.nodes[node].trees:
        copy = testbed.nodes[node].place / tree / DIRECTORY / "flushed"
        found = copy.read_text() if copy.exists() else None
        assert found == content, (
            f"flush said that {node} has {tree}/{DIRECTORY}/flushed, but it has {found!r}"
        )
    return Once(frozenset(), f"{node} has it after {reply['seconds']} s")


def compared(testbed: Testbed, draw: Draw) -> Happened:
    node, _ = _of_a_node(testbed, draw.one_of(["resync", "verify"]), draw)
    return Once(frozenset({node}), node)


def asked(testbed: Testbed, draw: Draw) -> Happened:
    """Send a command that changes nothing."""
    command = draw.one_of(["status", "reopen", "accept", "reload"])
    if command == "reload":
        free(testbed, "configuration")
    testbed.daemon.ask(command)
    return Once(frozenset(), command)


def strangers(testbed: Testbed, draw: Draw) -> Happened:
    """Connect clients that send garbage or nothing, and stay."""
    resource = free(testbed, "strangers")
    held: list[socket.socket] = []
    for number in range(CLIENTS):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        client.settimeout(ANSWER)
        held.append(client)
        with contextlib.suppress(BlockingIOError, ConnectionError):  # there are too many, or it was nonsense
            client.connect(testbed.daemon.socket)
            client.sendall(NONSENSE[(number + int(draw.how * CLIENTS)) % len(NONSENSE)])

    def leave() -> None:
        for client in held:
            client.close()
        status = testbed.daemon.ask("status")
        assert status["master"]["pid"] == testbed.daemon.pid

    return Lasting(resource, leave, description=f"{CLIENTS} of them")


KINDS = [
    Kind("pause", 4, paused),
    Kind("flush", 8, flushed),
    Kind("resync or verify", 2, compared, compares=True),
    Kind("ask", 2, asked),
    Kind("strangers", 2, strangers),
]
