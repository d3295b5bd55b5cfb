"""What a running daemon can be asked, and told to do: the requests of the control socket."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from inosync.config.nodes import display_name
from inosync.console import protocol
from inosync.console.control import Reply
from inosync.master.commands import Commands
from inosync.master.flush import Behind
from inosync.master.hold import DEFAULT_SECONDS
from inosync.master.reload import Reloader
from inosync.master.tree_events import TreeEvents
from inosync.master.verification import Comparison
from inosync.nodes.node import Node
from inosync.state.document import NodeEvent
from inosync.status.events import MAX_BRIEF_EVENTS, NodeEvents
from inosync.status.far_node import FarNode
from inosync.status.snapshot import SnapshotBuilder
from inosync.text import format_value

if TYPE_CHECKING:  # loaded where there is a fleet
    from inosync.master.fleet_orders import FleetOrders
    from inosync.master.fleet_wiring import OriginGroup

log = logging.getLogger(__name__)

Message = dict[str, Any]
T = TypeVar("T")

MAX_TIMEOUT_SECONDS = 1e9
"""The longest time that a flush can be told to wait, 31 years."""
MAX_NODE_CHARACTERS = 8_192


@dataclass(frozen=True, slots=True)
class Request:
    """A request without mistakes."""

    command: str
    node: str | None
    """As it is written in ``rnodes``, its name, or ``all``; None: all."""
    timeout: float
    """How long it may wait, in seconds; infinite if it has no limit."""
    until: float
    """When the client gives up, by CLOCK_MONOTONIC, which is one for all processes."""
    stage: int | None = None
    """Of ``flush``: only the nodes of this stage, from 1 on."""
    wait: bool = False
    """Whether to reply only when it is known what the comparison finds."""


class RequestRefused(Exception):
    """A request that is not done: the text says why; ``code`` is the exit code for it."""

    def __init__(self, text: str, code: int = protocol.USAGE) -> None:
        super().__init__(text)
        self.code = code


def checked(message: Message) -> Request:
    """The request in a message, checked as a whole; RequestRefused if anything about it is wrong."""
    command, node = message.get("command"), message.get("node")
    if not isinstance(command, str) or not (command == protocol.IDENTIFY or command in protocol.COMMANDS):
        raise RequestRefused(protocol.unknown_command(str(command)[:80]))
    if unknown := sorted(message.keys() - {"command", "node", "timeout", "until", "wait", "stage"}):
        raise RequestRefused(f"{format_value(unknown[0])} is not known in a request")
    if node is not None and not isinstance(node, str):
        raise RequestRefused("node: not a string")
    if node is not None and len(node) > MAX_NODE_CHARACTERS:
        raise RequestRefused(f"node: longer than {MAX_NODE_CHARACTERS} characters")
    if node is not None and command not in protocol.NODE_ALLOWED:
        raise RequestRefused(f"{command} takes no node")
    if node is None and command in protocol.NODE_REQUIRED:
        raise RequestRefused(f"{command} of which node? Say its name, or {protocol.ALL}")
    if message.get("timeout") is not None and command not in protocol.HAVE_TIMEOUT:
        raise RequestRefused(f"{command} takes no timeout")
    stage = message.get("stage")
    if stage is not None and (command != "flush" or node is not None):
        raise RequestRefused("stage: only flush takes one, and then no node")
    if stage is not None and (isinstance(stage, bool) or not isinstance(stage, int)):
        raise RequestRefused("stage: not a whole number")
    wait = message.get("wait", False)
    if not isinstance(wait, bool) or (wait and command not in protocol.CAN_WAIT):
        raise RequestRefused(
            "wait: not true or false" if not isinstance(wait, bool) else f"{command} takes no wait"
        )
    timeout = _seconds(message, "timeout", MAX_TIMEOUT_SECONDS)
    return Request(command, node, timeout, _seconds(message, "until"), stage, wait or command == "diff")


def _seconds(message: Message, key: str, longest: float = math.inf) -> float:
    value = message.get(key)
    if value is None:
        return math.inf
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= longest:
        raise RequestRefused(
            f"{key}: not a number of seconds" + (f" up to {longest:g}" if longest < math.inf else "")
        )
    return min(value, MAX_TIMEOUT_SECONDS * 10)


class RequestHandler:
    """Takes requests (``protocol``), and has them done."""

    def __init__(
        self,
        commands: Commands,
        reloader: Reloader,
        events: TreeEvents,
        snapshots: SnapshotBuilder,
        node_events: NodeEvents,
        origin: OriginGroup | None = None,
    ) -> None:
        self._commands, self._reloader = commands, reloader
        self._snapshots, self._node_events = snapshots, node_events
        self._far = None if origin is None else origin.far
        self._orders = None if origin is None else origin.orders
        self._nodes: Mapping[str, Node] = commands.pool.nodes
        self._clock = commands.pool.loop.clock
        identity = protocol.identity(reloader.config.path)
        self._at_once: dict[str, Callable[[Request], Message]] = {
            protocol.IDENTIFY: lambda _request: identity,
            "status": self._status,
            "senders": self._senders,
            "events": self._events,
            "accept": lambda _request: {
                "stages": commands.staging.accept(),
                "accepted": events.accept_loss(),
            },
            "retry": lambda _request: {"stages": commands.staging.retry()},
            "reopen": self._reopen,
            "stop": self._stop,
            "hold": self._hold,
            "release": lambda _request: {"held": commands.hold.release()},
            "resync": lambda request: self._each(request, commands.resync),
            "verify": lambda request: self._each(request, commands.verify),
            "pause": lambda request: self._each(request, commands.pause),
            "resume": lambda request: self._each(request, commands.resume),
        }

    def handle(self, message: Message, reply: Reply) -> None:
        """Do what a request says, and reply to it, at once or when it is done."""
        self._guarded(reply, lambda: self._serve(checked(message), reply))

    def tell_status(self, message: Message, reply: Reply) -> None:
        """Reply with the status, whatever is asked, and with events unless just ``seen`` are recorded."""
        self._guarded(reply, lambda: reply({**self._snapshots.of_all(), **self._events_beyond(message)}))

    def _events_beyond(self, message: Message) -> Message:
        far, recorded = self._far, self._node_events.recorded
        recorded += 0 if far is None else far.facts.recorded
        if message.get("seen") == recorded:
            return {}
        events = {name: self._node_events.brief(name) for name in self._nodes}
        if far is not None:
            events |= {spec.name: far.events(spec.name)[-MAX_BRIEF_EVENTS:] for spec in far.specs}
        return {"recorded": recorded, "events": events}

    def _guarded(self, reply: Reply, do: Callable[[], None]) -> None:
        """Serve one client. A fault in that costs this client only."""
        try:
            do()
        except RequestRefused as refused:
            reply(protocol.error(str(refused), refused.code))
        except OSError as problem:
            where = f"{problem.filename}: " if problem.filename else ""
            reply(protocol.error(f"{where}{problem.strerror or problem}", protocol.BUSY))
        except Exception:
            log.exception("a request over the control socket could not be served; the daemon goes on")
            reply(protocol.error("a fault of inosync's own: see its log", protocol.FAULT))

    def _serve(self, request: Request, reply: Reply) -> None:
        if self._clock() > request.until:
            raise RequestRefused("asked for too late: not done", protocol.BUSY)
        if request.command == "flush":
            self._flush(request, reply)
        elif request.wait and request.command != "resync":
            self._compare(request, reply)
        elif request.command == "reload":
            self._reload(reply)
        elif request.command in self._at_once:
            reply(self._at_once[request.command](request))
        else:  # a command of the client's own
            raise RequestRefused(protocol.unknown_command(request.command))

    def _reload(self, reply: Reply) -> None:
        def done(refused: Sequence[str]) -> None:
            text = "\n".join([*refused, "not reloaded: the old configuration stays in force"])
            reply(protocol.error(text, protocol.CONFIG) if refused else {})

        self._reloader.reload(done)

    def _reopen(self, _request: Request) -> Message:
        self._commands.reopen_log()
        return {}

    def _hold(self, request: Request) -> Message:
        self._commands.hold.begin(request.timeout if request.timeout < math.inf else DEFAULT_SECONDS)
        return {}

    def _stop(self, _request: Request) -> Message:
        self._commands.stop("stop was asked for")
        return {"pid": os.getpid()}

    def _status(self, request: Request) -> Message:
        if request.node is None:
            return self._snapshots.of_all()
        return self._snapshots.of_nodes(self._wanted(request.node)[0], self._far_nodes(request.node))

    def _senders(self, _request: Request) -> Message:
        if self._far is None:
            raise RequestRefused("this is not the origin of a fleet")
        return {"senders": self._far.senders()}

    def _events(self, request: Request) -> Message:
        nodes, far = self._wanted(request.node)
        found = [
            {"node": node.name, **asdict(one)} for node in nodes for one in self._node_events.of(node.name)
        ]
        if self._far is not None:
            told = ((name, NodeEvent(*one)) for name in far for one in self._far.events(name))
            found += [{"node": name, **asdict(one)} for name, one in told]
        return {"events": sorted(found, key=lambda one: one["at"])}

    def _each(self, request: Request, do: Callable[[Node], None]) -> Message:
        nodes, far = self._wanted(request.node)
        fleet = self._reloader.config.fleet
        if fleet is not None and fleet.me and request.command in ("pause", "resume"):
            raise RequestRefused(f"{request.command} of a node is ordered at the origin, without --sender")
        if far and self._orders is not None:
            self._guard_orders(lambda orders: orders.give(far, request.command))
        for node in nodes:
            do(node)
        paused = [node.name for node in nodes if node.paused]
        paused += [] if self._orders is None else sorted({*far} & {*self._orders.paused})
        return {"nodes": [*(node.name for node in nodes), *far], "paused": paused}

    def _guard_orders(self, do: Callable[[FleetOrders], T]) -> T:
        from inosync.master.fleet_orders import NotReached

        assert self._orders is not None
        try:
            return do(self._orders)
        except NotReached:
            raise RequestRefused("Redis cannot be used: senders cannot be told", protocol.BUSY) from None

    def _wanted(self, wanted: str | None) -> tuple[list[Node], list[str]]:
        """Return the wanted nodes of this machine, and the names of those that other machines serve."""
        far = self._far_nodes(wanted)
        is_one = bool(far) and wanted not in (None, protocol.ALL)
        return [] if is_one else self._wanted_nodes(wanted), [node.name for node in far]

    def _far_nodes(self, wanted: str | None) -> list[FarNode]:
        """Return the wanted nodes that other machines serve."""
        if self._far is None:
            return []
        return self._far.all() if wanted in (None, protocol.ALL) else self._far.find(str(wanted))

    def _flush(self, request: Request, reply: Reply) -> None:
        names: list[str] = []
        if request.stage is not None:
            nodes = self._of_stage(request.stage)
        else:
            nodes, names = self._wanted(request.node)
        if not reply.can_wait:
            raise RequestRefused(
                f"{protocol.MAX_WAITING} flushes wait already: try again later", protocol.BUSY
            )
        began = self._clock()

        count = len(nodes) + len(names)

        def done(behind: Behind) -> None:
            self._guarded(reply, lambda: reply(self._flushed(count, behind, self._clock() - began)))

        log.debug("flush was asked for: %s", ", ".join([*(node.name for node in nodes), *names]))
        flush = self._commands.hold.flushes.begin(nodes, began + request.timeout, done, names)
        reply.defer(lambda: self._commands.hold.flushes.cancel(flush))

    def _compare(self, request: Request, reply: Reply) -> None:
        nodes, far = self._wanted(request.node)
        if not reply.can_wait:
            raise RequestRefused(
                f"{protocol.MAX_WAITING} clients wait already: try again later", protocol.BUSY
            )
        repairs, deadline = request.command == "verify", self._clock() + request.timeout
        found: list[Comparison] = []
        left = bool(nodes) + bool(far)

        def done(more: Sequence[Comparison]) -> None:
            nonlocal left
            left -= 1
            found.extend(more)
            if not left:
                self._guarded(reply, lambda: reply({"comparisons": [asdict(one) for one in found]}))

        cancels: list[Callable[[], None]] = []
        if far and (orders := self._orders) is not None:
            waiting = self._guard_orders(lambda known: known.compare(far, request.command, deadline, done))
            cancels.append(lambda: orders.cancel(waiting))
        if nodes or not far:
            left = max(left, 1)
            cancels.append(self._commands.compare(nodes, repairs, deadline, done).cancel)

        def cancel_all() -> None:
            for cancel in cancels:
                cancel()

        reply.defer(cancel_all)

    def _flushed(self, count: int, behind: Behind, seconds: float) -> Message:
        found = [self._snapshots.lag_of(node) for node in behind]
        return {"behind": found, "nodes": count, "seconds": round(seconds, 3)}

    def _of_stage(self, number: int) -> list[Node]:
        stages = self._commands.staging.roll_out.plan.stages
        if not 1 <= number <= len(stages):
            there = f"there are {len(stages)}" if stages else "rstages is not set"
            raise RequestRefused(f"there is no stage {number}; {there}")
        return [self._nodes[name] for name in stages[number - 1] if name in self._nodes]

    def _wanted_nodes(self, wanted: str | None) -> list[Node]:
        if wanted is None or (wanted == protocol.ALL and wanted not in self._nodes):
            return list(self._nodes.values())
        for node in self._nodes.values():
            if wanted in (node.name, node.spec.node):
                return [node]
        as_named = display_name(wanted)
        same = [node for node in self._nodes.values() if display_name(node.spec.node) == as_named]
        if len(same) == 1:
            return same
        raise RequestRefused(protocol.unknown_node(as_named, list(self._nodes)))
