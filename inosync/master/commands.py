"""What an operator can have done to the daemon and to single nodes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inosync.changes import Change, Kind
from inosync.master.comparing import Comparing
from inosync.master.hold import Hold
from inosync.master.once import Once
from inosync.master.staging import Staging
from inosync.master.verification import Comparison, Verification
from inosync.master.worker_pool import KILL_SECONDS, KILLED_SECONDS, WorkerPool
from inosync.nodes.lifecycle import Phase
from inosync.nodes.node import Node
from inosync.system import log as logs
from inosync.system.systemd import ServiceManager
from inosync.worker import worker

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Commands:
    """What an operator can have done to the daemon and to single nodes."""

    pool: WorkerPool
    verification: Verification
    manager: ServiceManager
    hold: Hold
    staging: Staging
    once: Once | None

    def reopen_log(self) -> None:
        """Open the log file anew: it was rotated away."""
        logs.reopen()
        log.info("log file reopened")

    def stop(self, why: str, grace: float = worker.GRACE_SECONDS) -> None:
        """End the daemon; what runs gets ``grace`` seconds."""
        if self.pool.is_stopping:
            return
        log.info("%s: stopping", why)
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

    def compare(
        self,
        nodes: Sequence[Node],
        may_repair: bool,
        deadline: float,
        done: Callable[[Sequence[Comparison]], None],
    ) -> Comparing:
        """Have nodes compared when they are ok, and tell what was found; with ``may_repair`` it is sent."""
        comparing = Comparing(self.verification, self.pool.loop, done)
        comparing.begin(nodes, may_repair, deadline)
        for node in nodes if may_repair else ():
            self.verify(node)
        return comparing

    def pause(self, node: Node) -> None:
        """Send a node nothing, and connect to it no more. What runs has a moment to finish."""
        self._set_paused(node, True)

    def resume(self, node: Node) -> None:
        """Send a node again what it lacks."""
        self._set_paused(node, False)

    def _set_paused(self, node: Node, wanted: bool) -> None:
        if node.paused is not wanted and not self.pool.is_stopping:
            if wanted:
                log.warning("%s: paused until it is resumed", node.name)
            else:
                log.info("%s: resumed", node.name)
            node.set_paused(wanted)
            self.pool.replace_worker(node)
