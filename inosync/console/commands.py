"""``inosync -s COMMAND``: ask a running daemon, print what it says, and return an exit code."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from inosync.console import protocol, table, top
from inosync.console.client import Client, NotRunning, OtherConfiguration, Refused
from inosync.text import one_line

_TROUBLED = ("halted", "retrying", "degraded")
_LEVEL = ("ok", "syncing")


@dataclass(frozen=True, slots=True)
class Order:
    """What is wanted of the daemon."""

    command: str
    node: str | None = None
    as_json: bool = False
    timeout: float | None = None
    """Of ``flush``, in seconds."""
    tolerance: float = 0.0
    """Of ``status``: the lag, in seconds, that counts as level."""


def run(order: Order, paths: Iterable[str], config: str) -> int:
    """Have it done by the daemon of a configuration file, which listens at one of ``paths``."""
    try:
        with _connected(paths, config) as client:
            return _done(order, client)
    except NotRunning as problem:
        _complain(str(problem))
        return protocol.NOT_RUNNING
    except Refused as problem:
        _complain(str(problem))
        return problem.code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever reads has seen enough
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return protocol.BEHIND


def _connected(paths: Iterable[str], config: str) -> Client:
    problems: list[NotRunning] = []
    for path in paths:
        try:
            return Client(path, config=config)
        except NotRunning as problem:
            problems.append(problem)
    others = [problem for problem in problems if isinstance(problem, OtherConfiguration)]
    raise (others or problems or [NotRunning("not running: there is no run directory")])[0]


def _done(order: Order, client: Client) -> int:
    request = {"command": order.command, "node": order.node}
    match order.command:
        case "status":
            return _status(order, client.ask(request))
        case "top":
            if not (sys.stdin.isatty() and sys.stdout.isatty()):
                raise Refused("top needs a terminal; use status", protocol.USAGE)
            return top.run(client, {**request, "command": "status"})
        case "flush":
            wait = None if order.timeout is None else order.timeout + 10.0
            return _flushed(order, client.ask({**request, "timeout": order.timeout}, wait))
        case "stop":
            return _stopped(client, client.ask(request))
        case "reload":  # a configuration may take its time
            return _told(order, client.ask(request, None))
    return _told(order, client.ask(request))


def _status(order: Order, told: dict[str, Any]) -> int:
    if order.as_json:
        print(json.dumps(told, indent=1))
        sys.stdout.flush()
    else:
        _print_status(told)
    return verdict(told["nodes"], order.tolerance)


def _print_status(told: dict[str, Any]) -> None:
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    for line in table.lines(told["nodes"], time.time(), width):
        print(_printable(line))
    for line in [*table.worries(told["master"]), table.summary(told["master"])]:
        print(_printable(line))
    sys.stdout.flush()


def summarised(told: dict[str, Any]) -> int:
    """Print what has become of the nodes, and return the exit code for that, as of ``status``."""
    _print_status(told)
    return verdict(told["nodes"])


def verdict(nodes: Sequence[table.Told], tolerance: float = 0.0) -> int:
    """The exit code of ``status``: 2 if any has an error, 1 if any is behind, 0 if all are level."""
    if any(node["state"] in _TROUBLED for node in nodes):
        return protocol.TROUBLE
    if any(node["state"] not in _LEVEL or _is_behind(node, tolerance) for node in nodes):
        return protocol.BEHIND
    return protocol.OK


def _is_behind(node: table.Told, tolerance: float) -> bool:
    return bool(node["lag"] > tolerance if tolerance else node["pending"])


def _flushed(order: Order, told: dict[str, Any]) -> int:
    if order.as_json:
        print(json.dumps(told, indent=1))
    for node in told["behind"]:
        why = f": {one_line(node['reason'])}" if node["reason"] else ""
        name = one_line(node["name"])
        _complain(f"{name} is behind by {node['lag']:.1f} s, {node['pending']} changes, {node['state']}{why}")
    return protocol.BEHIND if told["behind"] else protocol.OK


def _stopped(client: Client, told: dict[str, Any]) -> int:
    try:
        process = os.pidfd_open(told["pid"])
    except (OSError, AttributeError):
        client.until_closed()
        return protocol.OK
    with open(process, "rb", buffering=0) as file:
        select.select([file], [], [])
    return protocol.OK


def _told(order: Order, told: dict[str, Any]) -> int:
    if order.as_json:
        print(json.dumps(told, indent=1))
    elif order.command == "accept" and not told["accepted"]:
        print("nothing is halted that could be accepted")
    elif order.command == "accept":
        for wpath in told["accepted"]:
            print(_printable(f"{one_line(wpath)}: is mirrored as it is"))
    return protocol.OK


def _printable(line: str) -> str:
    encoding = sys.stdout.encoding or "ascii"
    return line.encode(encoding, "replace").decode(encoding)


def _complain(text: str) -> None:
    for line in text.splitlines():
        print(f"inosync: {one_line(line)}", file=sys.stderr)
