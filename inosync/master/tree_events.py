"""What the watcher and the guard say of the trees, and what follows for the journal and the nodes."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from inosync.changes import Change, Kind, Rename, Step
from inosync.master.mirror import Mirror
from inosync.master.resume import FAR, Resume, log_doubts
from inosync.master.verification import Verification
from inosync.text import plural

log = logging.getLogger(__name__)


@dataclass(slots=True)
class TreeEvents:
    """The watcher's ``ChangeListener``."""

    mirror: Mirror
    verification: Verification
    resume: Resume
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
        self.mirror.journal.record(change, now)
        if change.tree in self.mirror.guard.halted:
            self.mirror.guard.touched(change.tree)
        if log.isEnabledFor(logging.DEBUG):
            path = os.path.join(os.fsencode(self.mirror.table.wpath(change.tree)), change.path)
            log.debug("changed (%s): %s", change.kind.name.lower(), os.fsdecode(path))

    def gone(self, tree: int, path: bytes, now: float, step: Step = Step.REMOVED) -> None:
        if self.is_copy:
            return
        self.mirror.journal.gone(tree, path, now, step)
        if b"/" not in path:
            self._emptied.add(tree)
        if step is not Step.REMOVED:
            self.mirror.guard.moved_in(tree)
        elif self.mirror.guard.removed(tree, path):
            self._overdrawn.add(tree)
        if tree in self.mirror.guard.halted:
            self.mirror.guard.touched(tree)
        log.debug("gone: tree %d %r", tree, path)

    def directory_left(self, tree: int, path: bytes) -> None:
        if not self.is_copy:
            self.mirror.guard.directory_left(tree, path, self.mirror.journal.head)

    def renamed(self, tree: int, rename: Rename) -> None:
        if self.is_copy:
            return
        self.mirror.guard.directory_stayed(tree, rename.old)
        self.mirror.journal.renamed(tree, replace(rename, at=self.mirror.loop.clock()))
        log.debug("renamed: tree %d %r to %r", tree, rename.old, rename.new)

    def walked(self, tree: int, now: float) -> None:
        self.mirror.table.refiltering.pop(tree, None)
        doubts = self.resume.take_doubts(self.mirror.table.wpath(tree))
        doubts.pop(FAR, None)
        if self.mirror.guard.root_found(tree):
            log_doubts(self.mirror.table.wpath(tree), doubts, self._names(tree))
            self._compare(tree, self.mirror.nodes, now)

    def caught_up(self, tree: int, now: float) -> None:
        wpath = self.mirror.table.wpath(tree)
        doubts = self.resume.take_doubts(wpath)
        if self.mirror.guard.root_found(tree):
            names = self._names(tree)
            if self.mirror.journal.floor > self.mirror.journal.start:
                too_much = "more has changed meanwhile than the journal holds"
                doubts = dict.fromkeys([*names, FAR], too_much) | doubts
            far = doubts.pop(FAR, "")
            if far and self.is_shared:
                log.info("%s: full mirror to the nodes of senders, because %s", wpath, far)
            resumed = len(names) - len(doubts)
            if resumed:
                what = plural(len(self.mirror.journal), "change")
                log.info("%s: %s since the last process, for %s", wpath, what, plural(resumed, "node"))
            log_doubts(wpath, doubts, names)
            self._compare(tree, doubts, now, far=bool(far))
        self.publish_soon()

    def refiltered(self, tree: int, now: float) -> None:
        log.info("%s: other filter rules are in force", self.mirror.table.wpath(tree))
        self._compare(tree, self.mirror.table.refiltering.pop(tree, ()), now)

    def lost(self, tree: int, why: str) -> None:
        log.error("%s; nothing of it is mirrored until the directory is back", why)
        self.mirror.guard.root_lost(tree, why)
        self._stop_sending(tree)

    def events_read(self, at: int) -> None:
        """All events so far were read, and all changes up to that time are recorded."""
        was_complete = self.mirror.journal.complete_at > 0
        self.mirror.journal.set_complete(at)
        self.mirror.dispatch.journal_complete()
        self.check_emptied()
        if at > 0 and not was_complete:
            for node in self.mirror.nodes.values():
                self.mirror.dispatch.offer_batch(node)

    def check_emptied(self) -> None:
        """Check the trees from which too much may be gone.

        A root that has lost an entry is one if a full mirror runs, which deletes what is gone.
        """
        for tree in self._emptied:
            if any(node.is_full_mirroring(tree) for node in self.mirror.nodes.values()):
                self._overdrawn.add(tree)
        known = self.mirror.table.numbers.values()  # a reload may have removed one
        for tree in self._overdrawn.intersection(known):
            self.mirror.guard.check(tree)
        self._emptied.clear()
        self._overdrawn.clear()

    # What the guard says -----------------------------------------------------------------------------

    def halted(self, tree: int, why: str) -> None:
        until = f"its files are back. If this is meant: kill -USR2 {os.getpid()}, or rguard = False"
        if self.mirror.guard.needs_acceptance(tree):
            until = f"that is accepted: inosync -s accept, or kill -USR2 {os.getpid()}"
        log.error("%s; nothing of it is mirrored until %s", why, until)
        self._stop_sending(tree)

    def resume_recovered(self) -> None:
        self._resume(self.mirror.guard.recovered())

    def accept_loss(self) -> list[str]:
        """Mirror what the guard has halted as it is now, deletions included; the wpaths."""
        accepted = list(self.mirror.guard.accept_loss())
        for tree in accepted:
            log.warning("%s: what it is now is accepted, and mirrored", self.mirror.table.wpath(tree))
        for why in self.mirror.guard.halted.values():
            log.warning("%s: that cannot be accepted: make the directory, or take it out of wpaths", why)
        if not (accepted or self.mirror.guard.halted):
            log.info("nothing is halted: there is nothing to accept")
        self._resume(accepted)
        return [self.mirror.table.wpath(tree) for tree in accepted]

    # What follows ------------------------------------------------------------------------------------

    def _names(self, tree: int) -> list[str]:
        return [name for name, node in self.mirror.nodes.items() if tree in node.trees]

    def _compare(self, tree: int, names: Iterable[str], now: float, far: bool = True) -> None:
        """Compare nodes in full; ``far``: those of other machines, too, if there are any."""
        if self.is_shared:
            if far:
                self.mirror.journal.record(Change(tree, b"", Kind.TREE), now)
        elif self.mirror.dispatch.roll_out.is_staged:
            # A position, up to which the first stage has it before others.
            self.mirror.journal.record_unknown(tree, now)
        for node in [self.mirror.nodes[name] for name in names if name in self.mirror.nodes]:
            if tree in node.trees:
                node.retry(Change(tree, b"", Kind.TREE), now)
                self.mirror.dispatch.offer_batch(node)
        self.verification.disturbed(tree)

    def _stop_sending(self, tree: int) -> None:
        now = self.mirror.loop.clock()
        for node in self.mirror.nodes.values():
            if tree in node.trees:
                # What was on its way, or is recorded meanwhile, counts for nothing.
                node.retry(Change(tree, b"", Kind.TREE), now)
                node.halt_tree(tree)
        self.verification.disturbed(tree)
        self.publish_soon()

    def _resume(self, trees: Iterable[int]) -> None:
        for tree in trees:
            log.info("%s: mirroring goes on, all of it is compared", self.mirror.table.wpath(tree))
            self._compare(tree, self.mirror.nodes, self.mirror.loop.clock())
        self.publish_soon()
