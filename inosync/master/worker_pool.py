"""The workers of all nodes: forking them, listening to them, replacing them, and ending them all."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.context import ForkProcess

from inosync.config.hook import Place
from inosync.config.load import Config
from inosync.config.nodes import NodeSpec, most_warm
from inosync.journal.subscription import Subscription
from inosync.master.mirror import Mirror
from inosync.master.trees import TreeTable
from inosync.master.verification import Verification
from inosync.nodes.dispatch import Dispatcher
from inosync.nodes.messages import Batch, Compared, TooManyRemovals
from inosync.nodes.node import Node
from inosync.nodes.pace import Cost
from inosync.status.publisher import StatePublisher
from inosync.system import channel, process, spool
from inosync.system.channel import Endpoint
from inosync.system.loop import Loop
from inosync.worker import worker
from inosync.worker.job import Job

log = logging.getLogger(__name__)

KILL_SECONDS = 3.0
"""How long workers may outlive the grace that they give to transfers; then they are killed."""
KILLED_SECONDS = 2.0
"""A killed worker is not waited for longer at the end: it may hang in the kernel."""


@dataclass(slots=True)
class WorkerPool:
    """Does what nodes ask for (``node.Work``), and ends when there is no worker left."""

    mirror: Mirror
    verification: Verification
    publisher: StatePublisher
    job: Callable[[Node], Job]
    """What a new worker has to know."""
    inherited: Callable[[], list[int]]
    """The descriptors of the master, which a worker has to close."""
    directory: str
    """Where workers and the master leave what is too long for a message."""
    is_stopping: bool = False
    _leaving: set[Node] = field(default_factory=set)
    """Nodes whose worker is to end; those of ``nodes`` among them get another one."""

    @property
    def nodes(self) -> dict[str, Node]:
        """All nodes of the configuration, by name."""
        return self.mirror.nodes

    @property
    def dispatch(self) -> Dispatcher:
        return self.mirror.dispatch

    @property
    def loop(self) -> Loop:
        return self.mirror.loop

    # All nodes ---------------------------------------------------------------------------------------

    def add(
        self,
        spec: NodeSpec,
        subscription: Subscription,
        retry: tuple[float, float],
        restore: Callable[[Node], None] = lambda _node: None,
    ) -> Node:
        """Mirror to another node. ``restore`` gives it what is known of it."""
        node = self.enroll(spec, subscription, retry, restore)
        self.start(node)
        return node

    def enroll(
        self,
        spec: NodeSpec,
        subscription: Subscription,
        retry: tuple[float, float],
        restore: Callable[[Node], None],
    ) -> Node:
        """Have another node whose worker is still to be started."""
        head = self.dispatch.backlog.journal.head
        node = self.nodes[spec.name] = Node(spec, head, self, self.loop, random.random, retry)
        node.subscribe(subscription)
        restore(node)
        return node

    def remove(self, name: str) -> None:
        self.replace_worker(self.nodes.pop(name))

    def replace_worker(self, node: Node) -> None:
        """Have a node's worker end; another one follows, unless the node was removed."""
        self.dispatch.worker_died(node)
        self._leaving.add(node)
        node.worker.stop(worker.GRACE_SECONDS)
        if node.worker.process is None:
            self.worker_stopped(node)

    def alive(self) -> list[Node]:
        return [node for node in {*self.nodes.values(), *self._leaving} if node.worker.process is not None]

    def stop(self, grace: float) -> None:
        """Have all workers end; what they run may take ``grace`` seconds."""
        self.is_stopping = True
        for node in {*self.nodes.values(), *self._leaving}:
            node.worker.stop(grace)
        self.loop.call_at(self.loop.clock() + grace + KILL_SECONDS, self._kill_left)

    def _kill_left(self) -> None:
        for node in self.alive():
            node.worker.kill()
        self.loop.call_at(self.loop.clock() + KILLED_SECONDS / 4, self._kill_left)

    @property
    def has_ended(self) -> bool:
        """Whether all workers have ended, but for those that hang in the kernel."""
        too_long = self.loop.clock() - KILLED_SECONDS
        return self.is_stopping and all(
            node.worker.killed_at is not None and node.worker.killed_at <= too_long for node in self.alive()
        )

    def abandon(self) -> None:
        """Leave the workers that hang in the kernel to themselves."""
        for node in self.alive():
            log.error("%s: its worker hangs in the kernel, and ends when it wakes", node.name)
            process.abandon(node.worker.process)

    def start(self, node: Node) -> None:
        """Start a worker, but not while another one may still be writing to the same place."""
        if not any(left.worker.address == node.spec.node for left in self._leaving - {node}):
            node.worker.start()

    def descriptors(self) -> list[int]:
        nodes = (*self.nodes.values(), *self._leaving)
        return [
            fd for node in nodes if node.worker.queue is not None for fd in node.worker.queue.descriptors()
        ]

    # What a node asks for ----------------------------------------------------------------------------

    def fork_worker(self, node: Node) -> tuple[ForkProcess, Endpoint]:
        ours, theirs = channel.pair()
        job, master = self.job(node), os.getpid()
        inherited = [*self.inherited(), *ours.descriptors()]
        try:
            child = process.fork(lambda: worker.run(job, theirs, master, inherited), node.name)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self.loop.on_readable(ours, node.read_report)
        self.loop.on_readable(child.sentinel, node.collect_worker)
        log.debug("%s: worker started, pid %d", node.name, child.pid or 0)
        return child, ours

    def worker_died(self, node: Node) -> None:
        self.dispatch.worker_died(node)
        self.verification.worker_died(node)
        if node.worker.process is not None and node.worker.queue is not None:
            self.loop.drop(node.worker.process.sentinel)
            self.loop.drop(node.worker.queue)
            spool.sweep(self.directory, node.worker.process.pid or 0)
        if self._is_known(node):
            self.publisher.publish_node(node)
        self.publisher.publish_soon()

    def worker_stopped(self, node: Node) -> None:
        self._leaving.discard(node)
        if not self._is_known(node):
            self.dispatch.forget_node(node)
        if self.is_stopping:
            return
        if self._is_known(node):
            self.loop.call_at(self.loop.clock(), lambda: self._revive(node))
        for waiting in self.nodes.values():
            if waiting is not node and waiting.worker.process is None:
                self.start(waiting)  # no more than a look at the clock, if it waits for that

    def _revive(self, node: Node) -> None:
        # Meanwhile it may have been told to leave again, or the whole pool.
        if self._is_known(node) and not self.is_stopping:
            node.worker.allow_restart()
            self.start(node)

    def _is_known(self, node: Node) -> bool:
        return self.nodes.get(node.name) is node

    def offer_batch(self, node: Node) -> None:
        self.dispatch.offer_batch(node)
        self.publisher.publish_soon()

    def batch_finished(self, node: Node, batch: Batch, cost: Cost | None = None) -> None:
        self.dispatch.finish_batch(node, batch, cost)

    def try_failed(self, node: Node) -> None:
        self.dispatch.release_slot(node)
        self.publisher.publish_node(node)
        self.publisher.publish_soon()

    def big_file_advanced(self) -> None:
        self.publisher.publish_soon()

    def slot_requested(self, node: Node) -> None:
        self.dispatch.request_slot(node)
        self.publisher.publish_soon()

    def node_returned(self, node: Node) -> None:
        self.verification.hasten(node)

    def tree_held(self, node: Node, tree: int) -> None:
        log.debug("%s: held back: tree %d", node.name, tree)
        self.mirror.guard.send_refused(tree)

    def removals_counted(self, report: TooManyRemovals) -> None:
        self.mirror.guard.removals_counted(report.tree, report.count, report.place)

    def tree_compared(self, node: Node, report: Compared) -> None:
        self.verification.compared(node, report)


def make_job(node: Node, config: Config, table: TreeTable, directory: str) -> Job:
    """What a worker of a node has to know; batches that are too long for a message go to ``directory``."""
    spec = node.spec
    trees = {table.numbers[tree.wpath]: tree for tree in config.trees if spec.gets(tree)}
    return Job(
        name=spec.name,
        node=spec.node,
        trees={number: config.rsync_settings(spec, tree) for number, tree in trees.items()},
        rules=node.subscription.rules,
        rspeed=spec.rspeed,
        excluded={number: table.excluded[number] for number in trees},
        timeout=spec.rtimeout,
        retry=config.rretry,
        warm=0 if node.paused else most_warm(spec.rwarm, len(config.nodes)),
        spool=directory,
        places={number: Place(tree.wpath, tree.rpath) for number, tree in trees.items()},
        on_sync=config.on_sync,
        on_state=config.on_state,
        hooks_lost=node.worker.hooks_lost,
    )
