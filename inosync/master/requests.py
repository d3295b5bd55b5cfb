"""What a running daemon can be asked, and told to do: the requests of the control socket."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from inosync.config.nodes import display_name
from inosync.console import protocol
from inosync.console.control import Reply
from inosync.master.flush import Flush, Flushes
from inosync.nodes.node import Node
from inosync.status.snapshot import SnapshotBuilder

log = logging.getLogger(__name__)

Message = dict[str, Any]


class Commands(Protocol):
    """Who does it."""

    def accept(self) -> Sequence[str]:
        """Mirror what the guard halted; the wpaths."""

    def reload(self) -> Sequence[str]:
        """Read the configuration again; why it was refused."""

    def reopen(self) -> None:
        """Open the log file anew."""

    def stop(self, why: str) -> None:
        """End."""

    def resync(self, node: Node) -> None:
        """Compare a node in full, and send it what differs."""

    def verify(self, node: Node) -> None:
        """Compare a node in full beside what it is sent."""

    def pause(self, node: Node) -> None:
        """Send a node nothing."""

    def resume(self, node: Node) -> None:
        """Send it again what it lacks."""


class _Wrong(Exception):
    """A request that cannot be done: the text says why; ``code`` is the exit code for it."""

    def __init__(self, text: str, code: int = protocol.USAGE) -> None:
        super().__init__(text)
        self.code = code


class RequestHandler:
    """Takes requests (``protocol``), and has them done. ``nodes`` is the master's own, by name."""

    def __init__(
        self,
        office: Commands,
        nodes: Mapping[str, Node],
        snapshots: SnapshotBuilder,
        flushes: Flushes,
        clock: Callable[[], float],
    ) -> None:
        self._office, self._nodes, self._snapshots = office, nodes, snapshots
        self._flushes, self._clock = flushes, clock
        self._commands: dict[str, Callable[[Message], Message]] = {
            "status": self._status,
            "accept": lambda _request: {"accepted": list(office.accept())},
            "reload": self._reload,
            "reopen": self._reopen,
            "stop": self._stop,
            "resync": lambda request: self._each(request, office.resync),
            "verify": lambda request: self._each(request, office.verify),
            "pause": lambda request: self._each(request, office.pause),
            "resume": lambda request: self._each(request, office.resume),
        }

    def handle(self, request: Message, reply: Reply) -> None:
        """Do what a request says, and reply to it, at once or when it is done."""
        try:
            command = request.get("command")
            if command == "flush":
                self._flush(request, reply)
            elif isinstance(command, str) and command in self._commands:
                reply(self._commands[command](request))
            else:
                raise _Wrong(protocol.unknown_command(str(command)))
        except _Wrong as wrong:
            reply(protocol.error(str(wrong), wrong.code))
        except OSError as problem:
            where = f"{problem.filename}: " if problem.filename else ""
            reply(protocol.error(f"{where}{problem.strerror or problem}", protocol.BUSY))

    # One by one --------------------------------------------------------------------------------------

    def _status(self, request: Message) -> Message:
        if request.get("node") is None:
            return self._snapshots.of_all()
        return self._snapshots.of_nodes(self._wanted(request))

    def _reload(self, _request: Message) -> Message:
        if refused := self._office.reload():
            text = "\n".join([*refused, "not reloaded: the old configuration stays in force"])
            raise _Wrong(text, protocol.CONFIG)
        return {}

    def _reopen(self, _request: Message) -> Message:
        self._office.reopen()
        return {}

    def _stop(self, _request: Message) -> Message:
        self._office.stop("stop was asked for")
        return {"pid": os.getpid()}

    def _each(self, request: Message, do: Callable[[Node], None]) -> Message:
        if request.get("node") is None:
            raise _Wrong(f"{request['command']} of which node? Say its name, or {protocol.ALL}")
        nodes = self._wanted(request)
        for node in nodes:
            do(node)
        return {"nodes": [node.name for node in nodes]}

    def _flush(self, request: Message, reply: Reply) -> None:
        timeout = request.get("timeout")
        if timeout is not None and not (isinstance(timeout, int | float) and 0 <= timeout < math.inf):
            raise _Wrong("timeout: not a number of seconds")
        nodes = self._wanted(request)
        began = self._clock()

        def done(behind: Sequence[Node]) -> None:
            told = [self._snapshots.lag_of(node) for node in behind]
            reply({"behind": told, "nodes": len(nodes), "seconds": round(self._clock() - began, 3)})

        log.debug("flush was asked for: %s", ", ".join(node.name for node in nodes))
        until = math.inf if timeout is None else began + timeout
        flush: Flush = self._flushes.begin(nodes, until, done)
        reply.later(lambda: self._flushes.forget(flush))

    # Which nodes -------------------------------------------------------------------------------------

    def _wanted(self, request: Message) -> list[Node]:
        wanted = request.get("node")
        if wanted is None or (wanted == protocol.ALL and wanted not in self._nodes):
            return list(self._nodes.values())
        if not isinstance(wanted, str):
            raise _Wrong("node: not a string")
        for node in self._nodes.values():
            if wanted in (node.name, node.spec.node):
                return [node]
        as_named = display_name(wanted)
        same = [node for node in self._nodes.values() if display_name(node.spec.node) == as_named]
        if len(same) == 1:
            return same
        raise _Wrong(protocol.unknown_node(as_named, list(self._nodes)))
