"""What the watcher and the guard say of the trees, and what follows for the journal and the nodes."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from inosync.changes import Change, Kind, Rename, Step
from inosync.guard.guard import Guard
from inosync.journal.journal import Journal
from inosync.master.resume import FAR, Resume, log_doubts
from inosync.master.trees import TreeTable
from inosync.master.verification import Verification
from inosync.nodes.dispatch import Dispatcher
from inosync.nodes.node import Node
from inosync.text import plural

log = logging.getLogger(__name__)


@dataclass(slots=True)
class TreeEvents:
    """The watcher's ``ChangeListener``. ``nodes`` is the pool's own, by name."""

    nodes: dict[str, Node]
    table: TreeTable
    guard: Guard
    journal: Journal
    dispatch: Dispatcher
    verification: Verification
    resume: Resume
    clock: Callable[[], float]
    publish_soon: Callable[[], None]
    """Has the states of the nodes published."""
    is_shared: bool = False
    """Whether nodes that other machines serve have to know from the journal what is compared."""
    is_copy: bool = False
    """Whether what changes in the trees is known from another journal, so that no event counts."""
    _emptied: set[int] = field(default_factory=set)
    """Trees with an entry of the root gone since the last ``check_emptied``."""
    _overdrawn: set[int] = field(default_factory=set)
    """Trees from which too much may be gone."""

    # What the watcher says ---------------------------------------------------------------------------

    def record(self, change: Change, now: float) -> None:
        if self.is_copy:
            return
        self.journal.record(change, now)
        if change.tree in self.guard.halted:
            self.guard.touched(change.tree)
        if log.isEnabledFor(logging.DEBUG):
            path = os.path.join(os.fsencode(self.table.wpath(change.tree)), change.path)
            log.debug("changed (%s): %s", change.kind.name.lower(), os.fsdecode(path))

    def gone(self, tree: int, path: bytes, now: float, step: Step = Step.REMOVED) -> None:
        if self.is_copy:
            return
        self.journal.gone(tree, path, now, step)
        if b"/" not in path:
            self._emptied.add(tree)
        if step is not Step.REMOVED:
            self.guard.moved_in(tree)
        elif self.guard.removed(tree, path):
            self._overdrawn.add(tree)
        if tree in self.guard.halted:
            self.guard.touched(tree)
        log.debug("gone: tree %d %r", tree, path)

    def directory_left(self, tree: int, path: bytes) -> None:
        if not self.is_copy:
            self.guard.directory_left(tree, path, self.journal.head)

    def renamed(self, tree: int, rename: Rename) -> None:
        if self.is_copy:
            return
        self.guard.directory_stayed(tree, rename.old)
        self.journal.renamed(tree, replace(rename, at=self.clock()))
        log.debug("renamed: tree %d %r to %r", tree, rename.old, rename.new)

    def walked(self, tree: int, now: float) -> None:
        self.table.refiltering.pop(tree, None)
        doubts = self.resume.take_doubts(self.table.wpath(tree))
        doubts.pop(FAR, None)
        if self.guard.root_found(tree):
            log_doubts(self.table.wpath(tree), doubts, self._names(tree))
            self._compare(tree, self.nodes, now)

    def caught_up(self, tree: int, now: float) -> None:
        wpath = self.table.wpath(tree)
        doubts = self.resume.take_doubts(wpath)
        if self.guard.root_found(tree):
            names = self._names(tree)
            if self.journal.floor > self.journal.start:
                too_much = "more has changed meanwhile than the journal holds"
                doubts = dict.fromkeys([*names, FAR], too_much) | doubts
            far = doubts.pop(FAR, "")
            if far and self.is_shared:
                log.info("%s: full mirror to the nodes of senders, because %s", wpath, far)
            resumed = len(names) - len(doubts)
            if resumed:
                what = plural(len(self.journal), "change")
                log.info("%s: %s since the last process, for %s", wpath, what, plural(resumed, "node"))
            log_doubts(wpath, doubts, names)
            self._compare(tree, doubts, now, far=bool(far))
        self.publish_soon()

    def refiltered(self, tree: int, now: float) -> None:
        log.info("%s: other filter rules are in force", self.table.wpath(tree))
        self._compare(tree, self.table.refiltering.pop(tree, ()), now)

    def lost(self, tree: int, why: str) -> None:
        log.error("%s; nothing of it is mirrored until the directory is back", why)
        self.guard.root_lost(tree, why)
        self._stop_sending(tree)

    def events_read(self, at: int) -> None:
        """All events so far were read, and all changes up to that time are recorded."""
        was_complete = self.journal.complete_at > 0
        self.journal.set_complete(at)
        self.dispatch.journal_complete()
        self.check_emptied()
        if at > 0 and not was_complete:
            for node in self.nodes.values():
                self.dispatch.offer_batch(node)

    def check_emptied(self) -> None:
        """Check the trees from which too much may be gone.

        A root that has lost an entry is one if a full mirror runs, which deletes what is gone.
        """
        for tree in self._emptied:
            if any(node.is_full_mirroring(tree) for node in self.nodes.values()):
                self._overdrawn.add(tree)
        for tree in self._overdrawn.intersection(self.table.numbers.values()):  # a reload may have removed it
            self.guard.check(tree)
        self._emptied.clear()
        self._overdrawn.clear()

    # What the guard says -----------------------------------------------------------------------------

    def halted(self, tree: int, why: str) -> None:
        until = f"its files are back. If this is meant: kill -USR2 {os.getpid()}, or rguard = False"
        if self.guard.needs_acceptance(tree):
            until = f"that is accepted: inosync -s accept, or kill -USR2 {os.getpid()}"
        log.error("%s; nothing of it is mirrored until %s", why, until)
        self._stop_sending(tree)

    def resume_recovered(self) -> None:
        self._resume(self.guard.recovered())

    def accept_loss(self) -> list[str]:
        """Mirror what the guard has halted as it is now, deletions included; the wpaths."""
        accepted = list(self.guard.accept_loss())
        for tree in accepted:
            log.warning("%s: what it is now is accepted, and mirrored", self.table.wpath(tree))
        for why in self.guard.halted.values():
            log.warning("%s: that cannot be accepted: make the directory, or take it out of wpaths", why)
        if not (accepted or self.guard.halted):
            log.info("nothing is halted: there is nothing to accept")
        self._resume(accepted)
        return [self.table.wpath(tree) for tree in accepted]

    # What follows ------------------------------------------------------------------------------------

    def _names(self, tree: int) -> list[str]:
        return [name for name, node in self.nodes.items() if tree in node.trees]

    def _compare(self, tree: int, names: Iterable[str], now: float, far: bool = True) -> None:
        """Compare nodes in full; ``far``: those of other machines, too, if there are any."""
        if self.is_shared:
            if far:
                self.journal.record(Change(tree, b"", Kind.TREE), now)
        elif self.dispatch.roll_out.is_staged:  # a position, up to which the first stage has it before others
            self.journal.record_unknown(tree, now)
        for node in [self.nodes[name] for name in names if name in self.nodes]:
            if tree in node.trees:
                node.retry(Change(tree, b"", Kind.TREE), now)
                self.dispatch.offer_batch(node)
        self.verification.disturbed(tree)

    def _stop_sending(self, tree: int) -> None:
        now = self.clock()
        for node in self.nodes.values():
            if tree in node.trees:
                # What was on its way, or is recorded meanwhile, counts for nothing.
                node.retry(Change(tree, b"", Kind.TREE), now)
                node.halt_tree(tree)
        self.verification.disturbed(tree)
        self.publish_soon()

    def _resume(self, trees: Iterable[int]) -> None:
        for tree in trees:
            log.info("%s: mirroring goes on, all of it is compared", self.table.wpath(tree))
            self._compare(tree, self.nodes, self.clock())
        self.publish_soon()
