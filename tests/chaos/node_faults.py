"""Faults of nodes: down, hung, read-only, full, and an rsync that fails on the way to them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from functools import partial

from support.procs import Server
from support.rsyncd import Rsyncd

from chaos.faults import Draw, Happened, Impossible, Kind, Lasting, Once, free
from chaos.orphans import end_orphans
from chaos.testbed import Node, Testbed

FAILURES = {
    **{f"exits with {code}": f"exit {code}" for code in (1, 2, 5, 10, 11, 12, 23, 24, 25, 30, 35, 99, 255)},
    "hangs": "exec sleep 1000",
    "hangs and ignores SIGTERM": "trap '' TERM; exec sleep 1000",
    "dies by SIGKILL": "kill -KILL $$",
    "stops itself": "kill -STOP $$",
    "leaves a child": "sleep 1000 & exit 12",
    "reads its names and forgets them": "cat | head -c 10; exit 23",
    "is slow": "sleep 1",
    "fails half of the time": "[ $(($$ % 2)) = 0 ] || exit 12",
}


def _with_server(testbed: Testbed, draw: Draw, kind: type[Server] = Server) -> tuple[Node, Server]:
    node = draw.among([node for node in testbed.nodes.values() if isinstance(node.server, kind)])
    assert node.server is not None
    return node, node.server


def down(testbed: Testbed, draw: Draw) -> Happened:
    """Stop a server."""
    node, server = _with_server(testbed, draw)
    resource = free(testbed, f"server of {node.name}")
    way, end = draw.one_of([("politely", server.stop), ("by a power failure", server.kill)])
    end()
    return _of(node, resource, server.start, way)


def hung(testbed: Testbed, draw: Draw) -> Happened:
    """Let a server hang: the kernel accepts connections and no process answers."""
    node, server = _with_server(testbed, draw)
    resource = free(testbed, f"server of {node.name}")
    server.pause()

    def resume() -> None:
        if not testbed.late_writers:
            end_orphans(server)
        server.resume()

    return _of(node, resource, resume)


def drop(testbed: Testbed, draw: Draw) -> Happened:
    """Cut all connections of a server that goes on listening."""
    node, server = _with_server(testbed, draw)
    if not server.running:
        raise Impossible(f"{node.name} is down")
    server.drop()
    return Once(frozenset({node.name}), node.name)


def read_only(testbed: Testbed, draw: Draw) -> Happened:
    """Make a module read-only from the next connection on."""
    node, server = _with_server(testbed, draw, Rsyncd)
    assert isinstance(server, Rsyncd)
    return _changed(testbed, node, server, "read only = no", "read only = yes")


def refused_beside_warm(testbed: Testbed, draw: Draw) -> Happened:
    """Let an rsync daemon refuse a second connection."""
    node, server = _with_server(testbed, draw, Rsyncd)
    assert isinstance(server, Rsyncd)
    return _changed(testbed, node, server, "max connections = 0", "max connections = 1")


def _changed(testbed: Testbed, node: Node, server: Rsyncd, before: str, after: str) -> Happened:
    def write(text: str) -> None:
        fresh = server.config.with_name("new")
        fresh.write_text(text)
        fresh.rename(server.config)

    resource = free(testbed, f"module of {node.name}")
    text = server.config.read_text()
    assert before in text, text
    write(text.replace(before, after))
    return _of(node, resource, partial(write, text))


def failing(testbed: Testbed, draw: Draw) -> Happened:
    """Let every start of rsync for a node fail in one way."""
    node = draw.among(list(testbed.nodes.values()))
    resource = free(testbed, f"rsync of {node.name}")
    name, shell = draw.one_of(list(FAILURES.items()))
    testbed.rsync.fault(node.name, shell)
    return _of(node, resource, partial(testbed.rsync.mend, node.name), name)


def full(testbed: Testbed, _draw: Draw) -> Happened:
    """Fill the small disk."""
    if not testbed.mounted:
        raise Impossible("nobody may mount here")
    resource = free(testbed, "disk")
    filler = testbed.disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        # This fills the rest, too, because a write without room for all writes a part.
        while True:
            file.write(bytes(1 << 20))
    state = os.statvfs(testbed.disk)
    assert state.f_bavail * state.f_frsize < 1 << 20, state
    return Lasting(resource, filler.unlink, frozenset({"small"}))


def _of(node: Node, resource: str, heal: Callable[[], None], description: str = "") -> Lasting:
    name = node.name
    return Lasting(resource, heal, frozenset({name}), f"{name}: {description}" if description else name)


KINDS = [
    Kind("node down", 8, down),
    Kind("node hung", 6, hung),
    Kind("connections cut", 5, drop),
    Kind("module read-only", 3, read_only),
    Kind("module crowded", 2, refused_beside_warm),
    Kind("rsync fails", 10, failing),
    Kind("disk full", 4, full),
]
