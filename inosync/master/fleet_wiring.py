"""How a daemon of a fleet differs from one that sends everything itself."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

from inosync.config.fleet import Fleet
from inosync.config.load import Config
from inosync.config.nodes import NodeSpec, Tree
from inosync.fleet import copies, told
from inosync.fleet.orders import orders_of
from inosync.journal.subscription import Subscription, subscriptions
from inosync.master.fleet_orders import FleetOrders
from inosync.master.trees import TreeTable
from inosync.master.worker_pool import WorkerPool
from inosync.nodes.node import Node
from inosync.state.document import State
from inosync.status.events import NodeEvents
from inosync.status.snapshot import SnapshotBuilder
from inosync.system.loop import Loop

log = logging.getLogger(__name__)


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


def event_teller(fleet: Fleet, events: NodeEvents) -> Callable[[], bytes]:
    """Return what makes the text about events of nodes that the origin shows."""
    names = [node.name for node in fleet.nodes]

    def tell() -> bytes:
        found = ((name, events.brief(name)) for name in names)
        return told.encode_events({name: some for name, some in found if some})

    return tell


def node_teller(snapshots: SnapshotBuilder) -> Callable[[Iterable[Node]], bytes]:
    """Return what makes the text about nodes that the origin shows."""
    return lambda nodes: told.encode(snapshots.described(nodes), time.time())
