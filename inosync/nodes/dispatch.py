"""Sends each node its next batch, when it can take one, the pace allows it, and it has a slot if needed."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable, Mapping

from inosync.changes import Change, Kind, Lane
from inosync.guard.guard import Guard
from inosync.journal.journal import Journal
from inosync.nodes.backlog import Backlog
from inosync.nodes.batches import BatchCutter, TreeHalted, next_id
from inosync.nodes.lifecycle import Phase
from inosync.nodes.messages import Batch
from inosync.nodes.node import Node
from inosync.nodes.pace import Cost, Pace
from inosync.nodes.roll_out import RollOut
from inosync.nodes.slots import Slots
from inosync.system.loop import Loop, Timer, call_by

log = logging.getLogger(__name__)

REWRITE_SECONDS = 5.0
"""Seconds until a batch that could not be written to the run directory is cut again."""
NO_ROOM_SECONDS = 60.0
"""Seconds after which a full mirror, which needs no room there, takes the place of such a batch."""
PACE_SECONDS = 0.05
"""The time between two looks at the nodes that the pace holds back: those that go together share batches."""


class Dispatcher:
    """``nodes``: the pool's own, by name; ``directory``: for batches too long for a message."""

    def __init__(
        self,
        nodes: Mapping[str, Node],
        journal: Journal,
        directory: str,
        pace: Pace,
        loop: Loop,
        guard: Guard,
    ) -> None:
        self.backlog = Backlog(journal, loop.clock)
        self.released = 0
        """The journal's position up to which changes may be sent."""
        self.held_until: float | None = None
        """Until when nothing is sent to any node, by the clock; None: no operator holds it back."""
        self.roll_out = RollOut()
        self._nodes, self._pace = nodes, pace
        self._journal, self._directory, self._loop, self._guard = journal, directory, loop, guard
        self._cutter = BatchCutter(journal, directory, guard)
        self._held_back: dict[Node, None] = {}
        """Nodes that the pace holds back."""
        self._pace_timer: Timer | None = None
        """Looks at these again."""
        self._slots: Slots[Node] = Slots(1)
        self._grant_timer: Timer | None = None
        """Runs when the next slot is free because its transfer takes long."""
        self._no_room_since: dict[Node, float] = {}
        """Nodes whose batch cannot be written, and since when that is so."""
        self._ahead_since: dict[Node, int] = {}
        """Nodes that may have more than their cursor says, because a full mirror took it along, and up to
        when the journal was complete at its end: what it took along may not be in the journal yet."""
        self._ahead_upto: dict[Node, int] = {}
        """Up to which position they may have it, once that is known."""

    def set_slots(self, limit: int) -> None:
        self._slots.limit = limit

    def journal_complete(self) -> None:
        """The journal is complete up to a later time."""
        for node, since in list(self._ahead_since.items()):
            if self._journal.complete_at > since:
                del self._ahead_since[node]
                self._ahead_upto[node] = self._journal.head

    def _is_ahead(self, node: Node) -> bool:
        return node in self._ahead_since or node.cursor < self._ahead_upto.get(node, 0)

    def hold(self, until: float | None) -> None:
        """Send no batch to any node; None: send them again, from the next offer on."""
        self.held_until = until

    def release_changes(self, at_once: bool = False) -> None:
        """Send what is in the journal; ``at_once``: whatever earlier batches have cost."""
        self.released = self._journal.head
        if at_once:
            self._pace.lift(self._loop.clock())
        for node in self._nodes.values():
            self.offer_batch(node)

    @property
    def has_free_slot(self) -> bool:
        return not self._slots.queue and self._slots.free(self._loop.clock()) > 0

    def waits_for(self, node: Node) -> str:
        """Return what a node that can take a batch waits for; empty if for nothing in particular."""
        if self.held_until is not None:
            return "held by the operator until release"
        if node in self._no_room_since:
            return f"no room in {self._directory}"
        if node in self._held_back:
            return "batches take more than their share of the processors"
        if self._slots.is_waiting(node):
            return "waiting for a slot"
        if self._limit(node) is None:
            return ""
        return self.roll_out.waits_for(node.name, self._journal.head, self._loop.clock())

    def offer_batch(self, node: Node) -> None:
        """Send a node its next batches: for each lane, if it is free and there is something for it.

        A heavy one needs a slot. None in the second lane does: it mostly waits for its node. What a restart
        has found so far is in no order: it waits for the rest.
        """
        has_all = self._journal.complete_at > 0 or not node.is_resumed
        if has_all and self.held_until is None:
            self._offer_first(node)
            self._offer_second(node)

    def _offer_second(self, node: Node) -> None:
        if node.second is not None or node.worker.state.phase not in (Phase.IDLE, Phase.BUSY) or node.paused:
            return
        now = self._loop.clock()
        names = self._sendable(node.retries.ready(now, Lane.SECOND), self._limit(node))
        if not names:
            return
        try:
            shared = self._cutter.cut(node, names, Lane.SECOND)
        except OSError as error:
            self._wait_for_room(node, error)
        except TreeHalted:
            self._offer_second(node)  # what is left of them
        else:
            if shared is None:  # their trees are not sent to this node any more
                return
            shared.users += 1
            payload, file, since = shared.payload, shared.file, node.untidy_since
            batch = Batch(next_id(), shared.count, False, payload, file, since, lane=Lane.SECOND)
            oldest = min(node.retries.waiting[change].since for change in names)
            node.send_batch(batch, node.cursor, min(oldest, now), names)

    def _offer_first(self, node: Node) -> None:
        if node.worker.state.phase is not Phase.IDLE or node.outstanding is not None or node.paused:
            return
        now, limit = self._loop.clock(), self._limit(node)
        if limit is not None and node.cursor < limit:  # the journal of a held node is long
            self._owe_unsettled(node, limit, now)
        retries = self._sendable(node.retries.ready(now), limit)
        if node.cursor >= self.released or (limit is not None and node.cursor >= limit):
            if limit is not None and retries:
                retries = self._without_waiting(node, retries, limit)
            if not retries:
                return
        if self._holds_back(node, now):
            return
        if self._slots.is_waiting(node) and not self._slots.is_turn_of(node, now):
            return
        retries += self._sendable(node.retries.riding(now), limit)
        upto = self._journal.head if limit is None else max(limit, node.cursor)
        since = self.backlog.oldest_in_journal(node)
        try:
            shared = self._cutter.cut(node, retries, upto=limit)
        except OSError as error:
            self._wait_for_room(node, error)
            return
        except TreeHalted:
            self._offer_first(node)  # what is left of it
            return
        self._no_room_since.pop(node, None)
        if shared is None:
            node.skip_to(upto)
            return
        if shared.is_heavy and not self._take_slot(node):
            self._cutter.discard_unused(shared)
            return
        self._slots.stop_waiting(node)
        shared.users += 1
        count, full, payload, file = shared.count, shared.full, shared.payload, shared.file
        complete_at = self._journal.complete_at
        batch = Batch(
            next_id(),
            count,
            full,
            payload,
            file,
            node.untidy_since,
            shared.is_heavy,
            complete_at=complete_at,
            is_ahead=self._is_ahead(node),
        )
        node.send_batch(batch, upto, now if since is None else since, retries)

    def _limit(self, node: Node) -> int | None:
        """Return the newest position that a node may be sent; None if it may have all."""
        limit = self.roll_out.limits.get(node.name)
        return limit if limit is not None and limit < self._journal.head else None

    def _sendable(self, changes: Iterable[Change], limit: int | None) -> list[Change]:
        """Return what may be sent apart from the journal: nothing halted, and nothing newer than a limit."""
        found = [change for change in changes if change.tree not in self._guard.halted]
        if limit is None:
            return found
        return [one for one in found if self._journal.is_settled(one, limit)]

    def _owe_unsettled(self, node: Node, limit: int, now: float) -> None:
        """Owe a node apart what its cursor is about to pass although it would carry something newer."""
        oldest = self.backlog.oldest_in_journal(node)
        since = now if oldest is None else oldest
        if node.cursor < self._journal.floor:
            for tree in node.trees:
                node.retry(Change(tree, b"", Kind.TREE), since)
            node.skip_to(self._journal.floor)
        elif found := self._journal.unsettled(node.cursor, limit):
            concerning = filter(node.subscription.concerns, found)
            node.retries.add_second_look(concerning, now, since)

    def _without_waiting(self, node: Node, retries: list[Change], limit: int) -> list[Change]:
        """Leave out what would wait once more, for what is newer than the limit: its try can only fail."""
        newer = self._cutter.newer(node, limit)
        waiting = node.retries.waiting
        if all(waiting[change].is_behind and change.tree in newer for change in retries):
            return []
        return retries

    def _holds_back(self, node: Node, now: float) -> bool:
        """Return whether the pace holds a node back; then it is offered its batch later."""
        if node.cost is None or self._pace.next_at(node.cost, len(self._nodes), now) <= now:
            self._held_back.pop(node, None)
            return False
        self._held_back[node] = None
        when = round(now / PACE_SECONDS + 1) * PACE_SECONDS  # the same for nodes that are held back later
        self._pace_timer = call_by(self._loop, when, self._offer_held_back, self._pace_timer)
        return True

    def _offer_held_back(self) -> None:
        nodes, self._held_back = self._held_back, {}
        for node in nodes:
            self.offer_batch(node)

    def _wait_for_room(self, node: Node, error: OSError) -> None:
        now = self._loop.clock()
        since = self._no_room_since.get(node)
        if error.errno == errno.EFBIG or (since is not None and now - since >= NO_ROOM_SECONDS):
            ready = set(node.retries.ready(now))
            trees = [Change(tree, b"", Kind.TREE) for tree in node.trees if tree not in self._guard.halted]
            if not ready.issuperset(trees):
                what = "a batch cannot be written: a full mirror takes its place"
                log.warning("%s: %s: %s: %s", node.name, self._directory, error.strerror, what)
                for tree in trees:
                    node.retry(tree, now)
                self.offer_batch(node)
                return
        if since is None:
            where, why = self._directory, error.strerror
            log.error("%s: %s: a batch cannot be written; next try in %.0f s", where, why, REWRITE_SECONDS)
            self._no_room_since[node] = now
            self._loop.call_at(now + REWRITE_SECONDS, lambda: self._write_again(node, now))

    def _write_again(self, node: Node, since: float) -> None:
        if self._no_room_since.get(node) == since:
            self.offer_batch(node)
        if self._no_room_since.get(node) == since:
            self._loop.call_at(self._loop.clock() + REWRITE_SECONDS, lambda: self._write_again(node, since))

    def finish_batch(self, node: Node, batch: Batch, cost: Cost | None = None) -> None:
        self._cutter.release(batch.file)
        if cost is not None:
            self._pace.spend(cost)
        if batch.lane is Lane.FIRST:
            self.release_slot(node)
        if batch.full:
            self._ahead_since[node] = self._journal.complete_at

    def request_slot(self, node: Node) -> None:
        """A node's heavy batch has failed, and its next try needs a slot."""
        if self._take_slot(node):
            node.grant_slot()

    def release_slot(self, node: Node) -> None:
        if self._slots.give_back(node):
            # Not at once: the caller is in the middle of changing its own state.
            self._loop.call_at(self._loop.clock(), self._grant_slots)

    def forget_node(self, node: Node) -> None:
        """The node is no longer mirrored to."""
        self.worker_died(node)
        self._ahead_since.pop(node, None)
        self._ahead_upto.pop(node, None)

    def worker_died(self, node: Node) -> None:
        """Nothing is under way to the node any more. What it may have already, it still has."""
        self._no_room_since.pop(node, None)
        self._held_back.pop(node, None)
        self._slots.stop_waiting(node)
        self.release_slot(node)

    def _grant_slots(self) -> None:
        """Give the free slots to the nodes that have waited longest, if they still want them."""
        for node in self._slots.queue:
            if not self._slots.free(self._loop.clock()):
                break
            if node.outstanding is None:
                self.offer_batch(node)
            else:
                self.request_slot(node)
            self._slots.stop_waiting(node)
        if self._slots.queue:
            self._grant_later()

    def _take_slot(self, node: Node) -> bool:
        if self._slots.take(node, self._loop.clock()):
            return True
        self._grant_later()
        return False

    def _grant_later(self) -> None:
        """Set the timer for the next slot that becomes free because its transfer takes long."""
        when = self._slots.next_free_at(self._loop.clock())
        self._grant_timer = call_by(self._loop, when, self._grant_slots, self._grant_timer)
