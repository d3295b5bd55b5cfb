"""``inosync -s COMMAND``: ask a running daemon, print its reply, and return an exit code."""

from __future__ import annotations

import json
import os
import select
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from inosync.console import protocol, table, top
from inosync.console.client import Client, NotRunning, OtherConfiguration, Refused
from inosync.system import descriptors
from inosync.text import one_line, plural

MAX_BEHIND = 10
"""Nodes that ``flush`` names; of more it says how many."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command for the daemon."""

    name: str
    node: str | None = None
    as_json: bool = False
    timeout: float | None = None
    """The longest wait, in seconds; None: for ever."""
    max_lag: float = 0.0
    """Of ``status``: the lag, in seconds, that counts as in sync."""
    stage: int | None = None
    """Of ``flush``: only the nodes of this stage."""
    wait: bool = False
    """Of ``verify`` and ``resync``: whether to wait for what comes of it."""


def run(command: Command, paths: Iterable[str], config: str) -> int:
    """Give a command to the daemon of a configuration file, which listens at one of ``paths``."""
    try:
        with _connect(paths, config) as client:
            return _run(command, client)
    except NotRunning as problem:
        _complain(str(problem))
        return protocol.NOT_RUNNING
    except Refused as problem:
        _complain(str(problem))
        return problem.code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader has seen enough
        descriptors.lead_standard_streams_nowhere()
        return protocol.BEHIND


def _connect(paths: Iterable[str], config: str) -> Client:
    problems: list[NotRunning] = []
    for path in paths:
        try:
            return Client(path, config=config)
        except NotRunning as problem:
            problems.append(problem)
    others = [problem for problem in problems if isinstance(problem, OtherConfiguration)]
    raise (others or problems or [NotRunning("not running: there is no run directory")])[0]


def _run(command: Command, client: Client) -> int:
    request: dict[str, Any] = {"command": command.name, "node": command.node}
    match command.name:
        case "status":
            snapshot = client.ask(request)
            if command.as_json:
                _print_json(snapshot)
            else:
                print_status(snapshot)
            return status_code(snapshot["nodes"], command.max_lag)
        case "top":
            if not (sys.stdin.isatty() and sys.stdout.isatty()):
                raise Refused("top needs a terminal; use status", protocol.USAGE)
            return top.run(client, {**request, "command": "status"})
        case "flush":
            if command.stage is not None:
                request["stage"] = command.stage
            return _print_flush(command, _ask_and_wait(client, request, command))
        case "resync" if command.wait:
            return _resync_and_wait(client, request, command)
        case "diff" | "verify" if command.wait or command.name == "diff":
            wait = {"wait": True} if command.wait else {}
            return _print_comparisons(command, _ask_and_wait(client, {**request, **wait}, command))
        case "hold":
            request["timeout"] = command.timeout
        case "stop":
            _wait_for_end(client, client.ask(request)["pid"])
            return protocol.OK
    # A configuration may take any time to be read.
    reply = client.ask(request, None) if command.name == "reload" else client.ask(request)
    if command.as_json:
        _print_json(reply)
        return protocol.OK
    for line in _reply_lines(command.name, reply):
        print(_printable(line))
    if command.name == "senders" and not all(one["ready"] for one in reply["senders"]):
        return protocol.BEHIND
    return protocol.OK


def _reply_lines(name: str, reply: dict[str, Any]) -> Iterator[str]:
    """Yield what is printed of a reply; nothing, where it is enough that the command was done."""
    match name:
        case "senders":
            yield from table.sender_lines(reply["senders"])
        case "events":
            yield from map(_event_line, reply["events"])
        case "resync" | "verify":
            for node in reply["paused"]:
                yield f"{one_line(node)} is paused: it is compared when it is resumed"
        case "release" if not reply["held"]:
            yield "nothing is held"
        case "accept":
            for wpath in reply["accepted"]:
                yield f"{one_line(wpath)}: is mirrored as it is"
            for stage in reply["stages"]:
                yield f"stage {stage}: what was not let pass goes on"
            if not (reply["accepted"] or reply["stages"]):
                yield "nothing is halted or refused that could be accepted"
        case "retry":
            for stage in reply["stages"]:
                yield f"stage {stage}: is checked again"
            if not reply["stages"]:
                yield "no stage was refused"


def _ask_and_wait(client: Client, request: dict[str, Any], command: Command) -> dict[str, Any]:
    """Ask for what the daemon replies to when it is done."""
    patience = None if command.timeout is None else command.timeout + 10.0
    return client.ask({**request, "timeout": command.timeout}, patience)


def _resync_and_wait(client: Client, request: dict[str, Any], command: Command) -> int:
    """Compare in full, wait until the nodes are level, and say what was sent for it."""
    before = _bytes_of(client, request)
    client.ask(request)
    reply = _ask_and_wait(client, {"command": "flush", "node": command.node}, command)
    after = _bytes_of(client, request)
    if command.as_json:
        _print_json({**reply, "bytes": {name: after[name] - before.get(name, 0) for name in after}})
    else:
        late = {node["name"] for node in reply["behind"]}
        for name in sorted(after.keys() - late):
            sent = table.size(after[name] - before.get(name, 0))
            print(_printable(f"{one_line(name)}: compared in full, and level; {sent} for it"))
    _complain("\n".join(behind_lines(reply["behind"])))
    return protocol.BEHIND if reply["behind"] else protocol.OK


def _bytes_of(client: Client, request: dict[str, Any]) -> dict[str, int]:
    snapshot = client.ask({**request, "command": "status"})
    return {node["name"]: node["bytes"] for node in snapshot["nodes"]}


def _print_comparisons(command: Command, reply: dict[str, Any]) -> int:
    """Print what differs, by node; 0: nothing, 1: something, 2: a node could not be compared."""
    found = reply["comparisons"]
    if command.as_json:
        _print_json(reply)
    else:
        for one in found:
            for line in _comparison_lines(one, command.name == "verify"):
                print(_printable(line))
    if any(one["reason"] for one in found):
        return protocol.TROUBLE
    return protocol.BEHIND if any(one["count"] for one in found) else protocol.OK


def _comparison_lines(found: dict[str, Any], are_sent: bool) -> Iterator[str]:
    name = one_line(found["node"])
    if found["reason"]:
        yield f"{name}: not compared: {one_line(found['reason'])}"
        return
    sent = ", sent again" if are_sent and found["count"] else ""
    yield f"{name}: {plural(found['count'], 'difference')} in {found['seconds']:.1f} s{sent}"
    for path, what in found["differences"]:
        yield f"  {what:<10}  {one_line(path)}"
    if more := found["count"] - len(found["differences"]):
        yield f"  and {more} more"


def _event_line(event: dict[str, Any]) -> str:
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["at"]))
    times = f" ({event['count']} times)" if event["count"] > 1 else ""
    return f"{at}  {one_line(event['node'])}: {one_line(event['text'])}{times}"


def _print_json(reply: dict[str, Any]) -> None:
    print(json.dumps(reply, indent=1))
    sys.stdout.flush()


def print_status(snapshot: dict[str, Any]) -> None:
    """Print the table of nodes, and what there is to say of the daemon."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    master = snapshot["master"]
    lines = table.lines(snapshot["nodes"], time.time(), width)
    for line in [*lines, *table.warnings(master), table.summary(master)]:
        print(_printable(line))
    sys.stdout.flush()


def status_code(nodes: Sequence[table.Description], max_lag: float = 0.0) -> int:
    """Return the exit code of ``status``: 2 if a node has an error, 1 if one is behind, 0 otherwise."""
    if any(node["state"] in table.BAD_STATES for node in nodes):
        return protocol.TROUBLE
    if any(node["state"] not in table.GOOD_STATES or _is_behind(node, max_lag) for node in nodes):
        return protocol.BEHIND
    return protocol.OK


def _is_behind(node: table.Description, max_lag: float) -> bool:
    return bool(node["lag"] > max_lag if max_lag else node["pending"])


def _print_flush(command: Command, reply: dict[str, Any]) -> int:
    if command.as_json:
        _print_json(reply)
    _complain("\n".join(behind_lines(reply["behind"])))
    return protocol.BEHIND if reply["behind"] else protocol.OK


def behind_lines(nodes: Sequence[table.Description]) -> list[str]:
    """Return a line for each node that lags most, and one for all others."""
    ordered = sorted(nodes, key=lambda node: -node["lag"])
    lines = []
    for node in ordered[:MAX_BEHIND]:
        why = f": {one_line(node['reason'])}" if node["reason"] else ""
        lag = f"is behind by {node['lag']:.1f} s, {node['pending']} changes"
        lines.append(f"{one_line(node['name'])} {lag}, {node['state']}{why}")
    if rest := ordered[MAX_BEHIND:]:
        states = Counter(node["state"] for node in rest)
        counts = ", ".join(f"{count} {state}" for state, count in states.most_common())
        nodes_are = "node is" if len(rest) == 1 else "nodes are"
        lines.append(f"{len(rest)} more {nodes_are} behind by up to {rest[0]['lag']:.1f} s: {counts}")
    return lines


def _wait_for_end(client: Client, pid: int) -> None:
    try:
        process = os.pidfd_open(pid)
    except (OSError, AttributeError):
        client.wait_for_end()
        return
    with open(process, "rb", buffering=0) as file:
        select.select([file], [], [])


def _printable(line: str) -> str:
    encoding = sys.stdout.encoding or "ascii"
    return line.encode(encoding, "replace").decode(encoding)


def _complain(text: str) -> None:
    for line in text.splitlines():
        print(f"inosync: {one_line(line)}", file=sys.stderr)
