"""What the operator wants of the daemon meanwhile, and clients of its control socket that mean no good."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from support.daemon import ANSWER

from chaos.faults import Draw, Happened, Impossible, Kind, Lasting, Once, free
from chaos.markers import DIRECTORY
from chaos.testbed import World
from inosync.console.client import Refused

LONGEST = 3.0
"""Seconds that a flush is waited for: nothing else is begun or healed meanwhile."""
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


def _of_a_node(world: World, command: str, draw: Draw, **more: object) -> tuple[str, dict[str, Any]]:
    """Say a command of some node; its name and the reply. One that was taken out is not known."""
    node = draw.among(sorted(world.nodes))
    try:
        return node, world.daemon.ask(command, node=node, **more)
    except Refused as why:
        raise Impossible(str(why)) from None


def paused(world: World, draw: Draw) -> Happened:
    """A node is sent nothing for a while."""
    resource = free(world, f"pause of {draw.among(sorted(world.nodes))}")
    node, _ = _of_a_node(world, "pause", draw)

    def resume() -> None:
        with contextlib.suppress(Refused):  # it may have been taken out
            world.daemon.ask("resume", node=node)

    return Lasting(resource, resume, frozenset({node}), node)


def flushed(world: World, draw: Draw) -> Happened:
    """Change a file in each tree and ask for a flush: if that says that a node has it, it does."""
    content = f"{draw.which:.12f}{draw.how:.12f}"
    for tree in {tree for node in world.nodes.values() for tree in node.trees}:
        directory = world.tree(tree) / DIRECTORY
        directory.mkdir(exist_ok=True)
        (directory / "flushed").write_text(content)
    node, reply = _of_a_node(world, "flush", draw, timeout=min(draw.seconds, LONGEST))
    if reply["behind"]:
        return Once(frozenset(), f"{node} is behind: {reply['behind'][0]['state']}")
    for tree in world.nodes[node].trees:
        copy = world.nodes[node].place / tree / DIRECTORY / "flushed"
        found = copy.read_text() if copy.exists() else None
        assert found == content, (
            f"flush said that {node} has {tree}/{DIRECTORY}/flushed, but it has {found!r}"
        )
    return Once(frozenset(), f"{node} has it after {reply['seconds']} s")


def compared(world: World, draw: Draw) -> Happened:
    node, _ = _of_a_node(world, draw.one_of(["resync", "verify"]), draw)
    return Once(frozenset({node}), node)


def asked(world: World, draw: Draw) -> Happened:
    """What changes nothing."""
    command = draw.one_of(["status", "reopen", "accept", "reload"])
    if command == "reload":
        free(world, "configuration")
    world.daemon.ask(command)
    return Once(frozenset(), command)


def strangers(world: World, draw: Draw) -> Happened:
    """Clients that say nonsense, or nothing, and stay."""
    resource = free(world, "strangers")
    held: list[socket.socket] = []
    for number in range(CLIENTS):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        client.settimeout(ANSWER)
        held.append(client)
        with contextlib.suppress(BlockingIOError, ConnectionError):  # there are too many, or it was nonsense
            client.connect(world.daemon.socket)
            client.sendall(NONSENSE[(number + int(draw.how * CLIENTS)) % len(NONSENSE)])

    def leave() -> None:
        for client in held:
            client.close()
        told = world.daemon.ask("status")
        assert told["master"]["pid"] == world.daemon.pid

    return Lasting(resource, leave, told=f"{CLIENTS} of them")


KINDS = [
    Kind("pause", 4, paused),
    Kind("flush", 8, flushed),
    Kind("resync or verify", 2, compared, compares=True),
    Kind("ask", 2, asked),
    Kind("strangers", 2, strangers),
]
