"""How a daemon of a fleet differs from one that sends everything itself."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from inosync.config.fleet import Fleet
from inosync.config.load import Config
from inosync.config.nodes import NodeSpec, Tree
from inosync.fleet import copies
from inosync.fleet.link import Link
from inosync.fleet.orders import orders_of
from inosync.journal.subscription import Subscription, subscriptions
from inosync.master.commands import Commands
from inosync.master.fleet_orders import FleetOrders
from inosync.master.fleet_origin import FleetOrigin
from inosync.master.fleet_sender import FleetSender
from inosync.master.fleet_state import FleetState
from inosync.master.fleet_tasks import SenderTasks
from inosync.master.fleet_texts import StatusTexts
from inosync.master.groups import Given, Status, Watching
from inosync.master.held_nodes import HeldNodes
from inosync.master.sender_copies import SenderCopies
from inosync.master.trees import TreeTable
from inosync.master.worker_pool import WorkerPool
from inosync.nodes.node import Node
from inosync.state.document import State
from inosync.status.far_nodes import FarNodes
from inosync.system.loop import Loop

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OriginGroup:
    """What only the origin of a fleet has."""

    origin: FleetOrigin
    orders: FleetOrders
    far: FarNodes
    state: FleetState


def make_origin(given: Given, watching: Watching, stop: Callable[[str], None]) -> OriginGroup:
    """The origin goes on where an earlier process has ended. ``stop`` ends the daemon, and says why."""
    config, loop, mirror = given.config, given.loop, watching.mirror
    fleet = config.fleet
    assert fleet is not None
    orders = fleet_orders(fleet, loop, given.past.state)
    sharing = tuple(node.name for node in fleet.shared)

    def proof() -> str:
        return copies.proof(tree.wpath for tree in given.in_force().trees)

    sender_copies = SenderCopies(mirror, sharing, watching.watcher, proof)
    link = Link(fleet.redis, loop, given.inherited)
    origin = FleetOrigin(fleet, config.path, sender_copies, stop, link, orders)
    state = FleetState(origin, watching.resume.fleet())
    state.go_on()
    far = FarNodes(fleet.senders, fleet.nodes, origin, mirror.journal, config.edelay, loop)
    return OriginGroup(origin, orders, far, state)


def make_sender(
    given: Given, watching: Watching, status: Status, pool: WorkerPool, commands: Callable[[], Commands]
) -> FleetSender:
    config, table, fleet = given.config, watching.mirror.table, given.config.fleet
    assert fleet is not None
    holdings = HeldNodes(
        pool,
        node_adder(config, table, pool),
        lambda: watching.verification.configure(given.in_force().rdelete),
    )
    texts = StatusTexts(status.snapshots, status.events, tuple(node.name for node in fleet.nodes))
    link = Link(fleet.redis, given.loop, given.inherited)
    tasks = SenderTasks(watching.mirror.nodes, commands)
    return FleetSender(fleet, tuple(tree.wpath for tree in config.trees), holdings, texts, link, tasks)


def fleet_orders(fleet: Fleet, loop: Loop, state: State | None) -> FleetOrders:
    """Return what was ordered for the nodes of senders, as far as this machine has kept it."""
    kept = None if state is None else state.far_orders
    wanted = orders_of({name: text.encode() for name, text in (kept or {}).items()})
    return FleetOrders(tuple(node.name for node in fleet.nodes), loop, wanted, kept is not None)


def prepare_copy(fleet: Fleet, tree: Tree) -> None:
    """Make the root of a copy, if its place is there; the origin can send nothing before."""
    if fleet.shares_storage:
        return
    try:
        copies.prepare(tree.wpath)
    except OSError as error:
        log.error("%s: %s: waiting for the place of the copy", error.filename, error.strerror)


def node_adder(
    config: Config, table: TreeTable, pool: WorkerPool
) -> Callable[[NodeSpec, str, Callable[[Node], None]], Node]:
    """Return what has a sender serve a node, in an epoch.

    Nodes share subscriptions, and so batches; in another epoch positions mean something else.
    """
    known: dict[str, dict[str, Subscription]] = {}

    def add(spec: NodeSpec, epoch: str, restore: Callable[[Node], None]) -> Node:
        assert config.fleet is not None
        if epoch not in known:
            known.clear()
            known[epoch] = subscriptions(config.fleet.nodes, config.trees, table.numbers)
        return pool.add(spec, known[epoch][spec.name], config.rretry, restore)

    return add
