"""How far the copies of senders are, as the origin of a fleet knows it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

from inosync.changes import Change, Kind
from inosync.fleet.records import Arrived
from inosync.master.mirror import Mirror
from inosync.watch.watcher import Watcher

log = logging.getLogger(__name__)

NO_COPY = "-"
"""What a sender says that has no copy."""


@dataclass(slots=True)
class SenderCopies:
    """Which copy each sender has, and up to where that is complete."""

    mirror: Mirror
    sharing: Collection[str]
    """The senders that see the storage of the origin."""
    watcher: Watcher
    proof: Callable[[], str] = lambda: ""
    """Returns what proves that another machine sees the same storage."""
    copies: dict[str, str] = field(default_factory=dict)
    """Which copy each sender has, that a full mirror was ordered of; or that it has the storage of here."""
    arrived: dict[str, Arrived] = field(default_factory=dict)
    """How far the copy of each sender is complete."""

    def forget(self) -> None:
        """Begin anew: what is there is of another epoch."""
        self.copies, self.arrived = {}, {}

    def note(self, sender: str, copy: str) -> None:
        """A sender says which copy it has. Another one than before has nothing, as far as is known."""
        if sender in self.sharing:
            self._note_storage(sender, copy)
            return
        node = self.mirror.nodes.get(sender)
        if node is None or self.copies.get(sender) == copy or copy == NO_COPY:
            return
        self.copies[sender] = copy
        self.arrived.pop(sender, None)
        log.info("%s: full mirror to its copy, before it sends anything", sender)
        for tree in node.trees:
            node.retry(Change(tree, b"", Kind.TREE), self.mirror.loop.clock())
        self.mirror.dispatch.offer_batch(node)

    def _note_storage(self, sender: str, said: str) -> None:
        """A sender that sees the storage of the origin has all that is seen here."""
        storage, _, proof = said.partition(".")
        if self.copies.get(sender) == storage:
            return
        self.copies.pop(sender, None)
        if storage != NO_COPY and proof and proof == self.proof():
            self.copies[sender] = storage
            log.info("%s: sees the storage of this machine", sender)

    def look(self, epoch: str, settled: int) -> None:
        """Note how far the copies are now.

        ``settled``: where all was recorded that had changed before this process.
        """
        self._look_at_storage(epoch)
        for name, copy in self.copies.items():
            node = self.mirror.nodes.get(name)
            if node is None or node.retries.count or node.arrived < settled:
                continue
            trees = set(node.trees)
            if trees & self.watcher.incomplete_trees or trees & self.mirror.guard.halted.keys():
                continue
            known = self.arrived.get(name)
            if known is None or known.copy != copy:
                self.arrived[name] = Arrived(epoch, node.arrived, copy)
            elif node.arrived > known.position:  # it may have been known before its batch was done
                self.arrived[name] = replace(known, position=node.arrived)

    def _look_at_storage(self, epoch: str) -> None:
        """Where the storage is shared, all that is recorded has arrived; what is halted is no good there."""
        for name in self.sharing:
            known = self.arrived.get(name)
            position = self.mirror.journal.head
            if self.watcher.incomplete_trees:
                position = 0 if known is None else known.position
            copy = NO_COPY if self.mirror.guard.halted else self.copies.get(name, NO_COPY)
            self.arrived[name] = Arrived(epoch, position, copy)
