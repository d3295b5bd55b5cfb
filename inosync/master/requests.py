"""What a running daemon can be asked, and told to do: the requests of the control socket."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inosync.config.nodes import display_name
from inosync.console import protocol
from inosync.console.control import Reply
from inosync.master.flush import Flushes
from inosync.master.once import Once
from inosync.master.reload import Reloader
from inosync.master.tree_events import TreeEvents
from inosync.master.verification import Verification
from inosync.master.worker_pool import KILL_SECONDS, KILLED_SECONDS, WorkerPool
from inosync.messages import Change, Kind
from inosync.nodes.lifecycle import Phase
from inosync.nodes.node import Node
from inosync.status.snapshot import SnapshotBuilder
from inosync.system import log as logs
from inosync.system.systemd import ServiceManager
from inosync.worker import worker

log = logging.getLogger(__name__)

Message = dict[str, Any]


@dataclass(slots=True)
class Commands:
    """What an operator can have done to the daemon and to single nodes."""

    pool: WorkerPool
    verification: Verification
    manager: ServiceManager
    once: Once | None

    def reopen_log(self) -> None:
        """Open the log file anew: it was rotated away."""
        logs.reopen()
        log.info("log file reopened")

    def stop(self, why: str, grace: float = worker.GRACE) -> None:
        """End the daemon; what runs gets ``grace`` seconds."""
        if self.pool.is_stopping:
            return
        log.info("%s: stopping", why)
        for node in self.pool.nodes.values():
            if node.paused:
                log.warning("%s: its pause ends with the daemon: pause it again after the start", node.name)
        if self.once is not None:
            self.once.conclude()
        self.manager.stopping(grace + KILL_SECONDS + 2 * KILLED_SECONDS)
        self.pool.stop(grace)

    def resync(self, node: Node) -> None:
        """Compare a node in full, at once, and send it what differs."""
        log.info("%s: all of it is compared, as was asked for", node.name)
        for tree in node.trees:
            node.retry(Change(tree, b"", Kind.TREE), self.pool.loop.clock())
        if node.worker.state.phase in (Phase.WAITING, Phase.AWAY) and not self.pool.is_stopping:
            self.pool.replace_worker(node)  # another worker does not wait for the time of the next try
        else:
            self.pool.offer_batch(node)

    def verify(self, node: Node) -> None:
        """Compare a node in full when it is ok, beside what it is sent."""
        log.info("%s: verification requested", node.name)
        self.verification.request(node.name)

    def pause(self, node: Node) -> None:
        """Send a node nothing, and connect to it no more. What runs has a moment to finish."""
        self._set_paused(node, True)

    def resume(self, node: Node) -> None:
        """Send a node again what it lacks."""
        self._set_paused(node, False)

    def _set_paused(self, node: Node, wanted: bool) -> None:
        if node.paused is not wanted and not self.pool.is_stopping:
            if wanted:  # no pause is kept over a restart, and an upgrade of the package is one
                log.warning("%s: paused until it is resumed, or until the daemon is started again", node.name)
            else:
                log.info("%s: resumed", node.name)
            node.set_paused(wanted)
            self.pool.replace_worker(node)


class _Refused(Exception):
    """A request that cannot be done: the text says why; ``code`` is the exit code for it."""

    def __init__(self, text: str, code: int = protocol.USAGE) -> None:
        super().__init__(text)
        self.code = code


class RequestHandler:
    """Takes requests (``protocol``), and has them done."""

    def __init__(
        self,
        commands: Commands,
        reloader: Reloader,
        events: TreeEvents,
        snapshots: SnapshotBuilder,
        flushes: Flushes,
    ) -> None:
        self._commands, self._reloader, self._snapshots, self._flushes = (
            commands,
            reloader,
            snapshots,
            flushes,
        )
        self._nodes: Mapping[str, Node] = commands.pool.nodes
        self._clock = commands.pool.loop.clock
        identity = protocol.identity(reloader.config.path)
        self._at_once: dict[str, Callable[[Message], Message]] = {
            protocol.IDENTIFY: lambda _request: identity,
            "status": self._status,
            "accept": lambda _request: {"accepted": events.accept_loss()},
            "reload": self._reload,
            "reopen": self._reopen,
            "stop": self._stop,
            "resync": lambda request: self._each(request, commands.resync),
            "verify": lambda request: self._each(request, commands.verify),
            "pause": lambda request: self._each(request, commands.pause),
            "resume": lambda request: self._each(request, commands.resume),
        }

    def handle(self, request: Message, reply: Reply) -> None:
        """Do what a request says, and reply to it, at once or when it is done."""
        try:
            command = request.get("command")
            if command == "flush":
                self._flush(request, reply)
            elif isinstance(command, str) and command in self._at_once:
                reply(self._at_once[command](request))
            else:
                raise _Refused(protocol.unknown_command(str(command)))
        except _Refused as refused:
            reply(protocol.error(str(refused), refused.code))
        except OSError as problem:
            where = f"{problem.filename}: " if problem.filename else ""
            reply(protocol.error(f"{where}{problem.strerror or problem}", protocol.BUSY))

    def _status(self, request: Message) -> Message:
        if request.get("node") is None:
            return self._snapshots.of_all()
        return self._snapshots.of_nodes(self._wanted_nodes(request))

    def _reload(self, _request: Message) -> Message:
        if refused := self._reloader.reload():
            text = "\n".join([*refused, "not reloaded: the old configuration stays in force"])
            raise _Refused(text, protocol.CONFIG)
        return {}

    def _reopen(self, _request: Message) -> Message:
        self._commands.reopen_log()
        return {}

    def _stop(self, _request: Message) -> Message:
        self._commands.stop("stop was asked for")
        return {"pid": os.getpid()}

    def _each(self, request: Message, do: Callable[[Node], None]) -> Message:
        if request.get("node") is None:
            raise _Refused(f"{request['command']} of which node? Say its name, or {protocol.ALL}")
        nodes = self._wanted_nodes(request)
        for node in nodes:
            do(node)
        return {"nodes": [node.name for node in nodes]}

    def _flush(self, request: Message, reply: Reply) -> None:
        timeout = request.get("timeout")
        if timeout is not None and not (isinstance(timeout, int | float) and 0 <= timeout < math.inf):
            raise _Refused("timeout: not a number of seconds")
        nodes = self._wanted_nodes(request)
        began = self._clock()

        def done(behind: Sequence[Node]) -> None:
            found = [self._snapshots.lag_of(node) for node in behind]
            reply({"behind": found, "nodes": len(nodes), "seconds": round(self._clock() - began, 3)})

        log.debug("flush was asked for: %s", ", ".join(node.name for node in nodes))
        flush = self._flushes.begin(nodes, math.inf if timeout is None else began + timeout, done)
        reply.defer(lambda: self._flushes.cancel(flush))

    def _wanted_nodes(self, request: Message) -> list[Node]:
        wanted = request.get("node")
        if wanted is None or (wanted == protocol.ALL and wanted not in self._nodes):
            return list(self._nodes.values())
        if not isinstance(wanted, str):
            raise _Refused("node: not a string")
        for node in self._nodes.values():
            if wanted in (node.name, node.spec.node):
                return [node]
        as_named = display_name(wanted)
        same = [node for node in self._nodes.values() if display_name(node.spec.node) == as_named]
        if len(same) == 1:
            return same
        raise _Refused(protocol.unknown_node(as_named, list(self._nodes)))
