"""The nodes that a sender of a fleet holds the leases of, and serves: between the leases and the pool."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field

from inosync.changes import Change, Kind
from inosync.config.nodes import NodeSpec
from inosync.fleet import leases, service
from inosync.fleet.leases import Lease, LeasePhase
from inosync.fleet.records import NodeRecord
from inosync.fleet.rounds import SenderOrder, SenderReport
from inosync.master.worker_pool import WorkerPool
from inosync.nodes.node import Node

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Holding:
    """A node that this sender holds the lease of."""

    lease: Lease
    question: int
    """The number of the question to the origin that has to be answered first."""
    record: NodeRecord | None
    """How far the node was when the lease was taken."""
    is_untidy: bool
    """Whether a transfer of another sender may have been cut off."""
    is_served: bool = False
    is_leaving: bool = False
    """Whether the lease is given up, as soon as nothing runs."""
    confirmed: int = -1
    """The cursor that Redis knows."""


@dataclass(slots=True)
class HeldNodes:
    """All of them. Times are by the clock of leases."""

    pool: WorkerPool
    add: Callable[[NodeSpec, str, Callable[[Node], None]], Node]
    """Has the pool mirror to a node, in an epoch; the function gives it what is known of it."""
    changed: Callable[[], object]
    """Is called when other nodes are served than before."""
    held: dict[str, Holding] = field(default_factory=dict)
    _release: dict[str, tuple[bytes, bool]] = field(default_factory=dict)
    """Leases to be given up in the next round: their values, and whether all is tidy."""

    def values(self) -> dict[str, bytes]:
        """Return the values of all leases."""
        return {name: one.lease.value for name, one in self.held.items()}

    def served(self) -> dict[str, bytes]:
        """Return the values of the leases of the nodes that are served."""
        return {name: one.lease.value for name, one in self.held.items() if one.is_served}

    def due(self, now: float) -> dict[str, bytes]:
        """Return the values of the leases that are to be renewed."""
        renewed = (LeasePhase.RENEW,)
        return {name: one.lease.value for name, one in self.held.items() if one.lease.phase(now) in renewed}

    def nodes(self) -> Iterator[Node]:
        """Yield those that the pool has."""
        yield from (self.pool.nodes[name] for name in self.held if name in self.pool.nodes)

    def released(self) -> dict[str, tuple[bytes, bool]]:
        """Take the leases that are to be given up."""
        release, self._release = self._release, {}
        return release

    # The end of a lease ------------------------------------------------------------------------------

    def end_late(self, now: float) -> None:
        """End what runs for nodes whose leases are about to end."""
        for name, holding in list(self.held.items()):
            if holding.lease.phase(now) in (LeasePhase.STOP, LeasePhase.OVER):
                log.warning("%s: its lease could not be renewed in time: what runs is ended", name)
                self.drop(name)

    def hand_over(self, names: Iterable[str]) -> None:
        """Give these up, as soon as nothing runs for them."""
        for name in names:
            if name in self.held and not self.held[name].is_leaving:
                log.info("%s: is handed over", name)
                self.held[name].is_leaving = True

    def leave(self, epoch: str) -> None:
        """Give up leases of nodes at which nothing runs any more, between two batches."""
        alive = None
        for name, holding in list(self.held.items()):
            if not holding.is_leaving:
                continue
            node = self.pool.nodes.get(name)
            if holding.is_served and node is not None:
                if node.outstanding is not None or node.second is not None:
                    continue
                self._note_cursor(name, holding, epoch)
                holding.is_served, holding.is_untidy = False, _is_untidy(node)
                self._remove(name)
            if alive is None:
                alive = {one.name for one in self.pool.alive()}
            if name not in alive:
                self._release[name] = (holding.lease.value, not holding.is_untidy)
                del self.held[name]

    def drop(self, name: str) -> None:
        """Serve a node no longer, at once: another sender may have it."""
        del self.held[name]
        node = self.pool.nodes.get(name)
        if node is not None:
            self._remove(name)
            node.worker.kill()

    def drop_all(self) -> None:
        """Serve none any more, and give up all leases."""
        for name, holding in list(self.held.items()):
            self._release[name] = (holding.lease.value, False)
            self.drop(name)

    def drop_others(self, begun: Collection[str]) -> None:
        """Serve no longer what Redis does not let be sent more."""
        for name in self.served().keys() - begun:
            log.warning("%s: Redis does not let it be served: what runs is ended", name)
            self.drop(name)

    def release_all(self) -> None:
        """Give up all leases: no worker is left."""
        for name, holding in self.held.items():
            node = self.pool.nodes.get(name)
            is_untidy = holding.is_untidy if node is None else _is_untidy(node)
            self._release[name] = (holding.lease.value, not is_untidy)

    def _remove(self, name: str) -> None:
        self.pool.remove(name)
        self.changed()

    # Cursors -----------------------------------------------------------------------------------------

    def cursors(self, epoch: str) -> dict[str, tuple[bytes, int]]:
        """Return the cursors that Redis does not know yet, with the values of leases."""
        found = {}
        for name, holding in self.held.items():
            if holding.is_served:
                self._note_cursor(name, holding, epoch)
            record = holding.record
            if record is None or record.epoch != epoch or record.cursor is None:
                continue
            if record.cursor > holding.confirmed:
                found[name] = (holding.lease.value, record.cursor)
        return found

    def _note_cursor(self, name: str, holding: Holding, epoch: str) -> None:
        """Note how far a node is: it has everything up to there, and is owed nothing."""
        node = self.pool.nodes.get(name)
        if node is None or node.retries.count:
            return
        known = holding.record
        if known is None or known.epoch != epoch:
            known = NodeRecord(epoch)
        if known.cursor is None or node.cursor > known.cursor:
            holding.record = service.confirmed(known, node.cursor)

    def forget_confirmed(self) -> None:
        """Redis may have lost the cursors that it knew."""
        for holding in self.held.values():
            holding.confirmed = -1

    # What Redis says ---------------------------------------------------------------------------------

    def note(
        self, report: SenderReport, order: SenderOrder, asked_at: float, now: float, has_changed: bool
    ) -> None:
        """Take over what a round has done about leases; ``has_changed``: whether Redis may have lost some."""
        for name, value in order.renew.items():
            holding = self.held.get(name)
            if holding is None or holding.lease.value != value:
                continue
            lease = holding.lease.renewed(asked_at, now) if name in report.renewed else None
            if lease is None:
                log.warning("%s: another sender may have its lease: what runs is ended", name)
                self.drop(name)
            else:
                holding.lease = lease
        for name, (value, cursor) in order.confirm.items():
            holding = self.held.get(name)
            if name in report.confirmed and holding is not None and holding.lease.value == value:
                holding.confirmed = max(holding.confirmed, cursor)
        for name, (question, record) in report.taken.items():
            lease = leases.taken(order.take[name], asked_at, now)
            if lease is None or self.pool.is_stopping:
                self._release[name] = (order.take[name], False)
                continue
            untidy = service.is_untidy(record, has_changed)
            self.held[name] = Holding(lease, question, record, untidy)
        if report.question is not None:
            for holding in self.held.values():
                if not holding.is_served:
                    holding.question = max(holding.question, report.question)

    # Serving -----------------------------------------------------------------------------------------

    def waiting(self) -> Iterator[tuple[str, Holding]]:
        """Yield those that are held, and neither served nor given up."""
        for name, holding in self.held.items():
            if not (holding.is_served or holding.is_leaving):
                yield name, holding

    def serve(
        self, spec: NodeSpec, epoch: str, span: tuple[int, int], now: float, prepare: Callable[[Node], None]
    ) -> None:
        """Send a node from now on what it lacks.

        ``span``: where the journal begins and ends; ``now``: by the clock of the loop; ``prepare``: does what
        has to be done first.
        """
        floor, head = span
        holding = self.held[spec.name]
        record = holding.record
        is_known = record is not None and record.epoch == epoch and record.cursor is not None
        cursor = record.cursor if is_known and record is not None else None
        is_full = cursor is None or cursor < floor

        def restore(node: Node) -> None:
            prepare(node)
            if is_full or cursor is None:
                node.skip_to(head)
                for tree in node.trees:
                    node.retry(Change(tree, b"", Kind.TREE), now)
                return
            node.skip_to(cursor)
            node.take_over({}, "", now if holding.is_untidy else None, hooks_lost=False)
            node.take_over_times(now, None, 0)

        how = "it is compared in full" if is_full else f"it goes on where it was, at {cursor}"
        log.info("%s: is served from here: %s", spec.name, how)
        holding.is_served = True
        if not is_known:
            holding.record = None
        elif cursor is not None:
            holding.confirmed = cursor
        self.add(spec, epoch, restore)
        self.changed()


def _is_untidy(node: Node) -> bool:
    """Whether something of a node was to be looked at once more."""
    return node.untidy_since is not None or any(True for _ in node.retries)
