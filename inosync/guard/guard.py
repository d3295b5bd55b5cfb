"""The guard: a tree whose root was lost is not mirrored until it is back, or the loss is accepted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from inosync.changes import Allowance, Source
from inosync.config.checks import Share
from inosync.guard import loss
from inosync.guard.excess import MIN_REMOVAL_SECONDS, RemovalLimit, TreeRemovals
from inosync.guard.loss import Memory, RootLook
from inosync.system import entries, mounts

MAX_SETTLE_FACTOR = 360
"""A root that is filled again is compared when it was left alone for edelay, or after this many times edelay:
an hour by default, because what a restore has not reached by then is deleted on the nodes."""


@dataclass(slots=True)
class GuardedTree:
    """What is known of one tree. Times by the clock."""

    wpath: str
    excluded: Callable[[bytes, bool], bool]
    memory: Memory = field(default_factory=Memory)
    is_missing: bool = False
    """Whether the watcher has lost the root. It reports when there is one again."""
    is_settling: bool = False
    """Whether the root was found again, and is no loss: the tree waits until nothing changes in it."""
    back_at: float | None = None
    """Since when the root is filled again, while the tree is halted."""
    touched_at: float = 0.0
    """When anything last changed in the tree while it was halted."""
    good_root: tuple[int, int, int] | None = None
    """The root when it was last good: device, inode, and mtime in nanoseconds."""
    removals: TreeRemovals = field(default_factory=TreeRemovals)
    is_allowed: bool = False
    """Whether the limit was raised since the tree was halted, so that its removals are not too many now."""


class Guard:
    """``patience`` is edelay; ``on_halt`` is called with a tree that is halted, and why.

    ``check_root`` and ``root_identity`` are those of the watcher.
    """

    def __init__(
        self,
        check_root: Callable[[int], None],
        root_identity: Callable[[int], tuple[int, int] | None],
        patience: float,
        enabled: bool,
        on_halt: Callable[[int, str], None],
        clock: Callable[[], float],
    ) -> None:
        self._check_root, self._root_identity = check_root, root_identity
        self._on_halt, self._clock = on_halt, clock
        self._patience = patience
        self._enabled = enabled
        self._limit: RemovalLimit | None = None
        """How much may be removed from a tree; None: any number."""
        self._trees: dict[int, GuardedTree] = {}
        self.halted: dict[int, str] = {}
        """The trees of which nothing is sent, and why."""
        self.generation = 0
        """Changes when ``source`` may give another answer."""

    # Trees -------------------------------------------------------------------------------------------

    def add_tree(self, tree: int, wpath: str, excluded: Callable[[bytes, bool], bool]) -> None:
        self._trees[tree] = GuardedTree(wpath, excluded)

    def remember(self, tree: int, memory: Memory) -> None:
        """Take over what an earlier process knew of a root: emptied meanwhile, it is lost as well."""
        self._trees[tree].memory = memory
        if memory.excess:
            self.halted[tree] = f"{self._trees[tree].wpath} {memory.excess}"

    def memory_of(self, tree: int) -> Memory:
        return self._trees[tree].memory

    def remove_tree(self, tree: int) -> None:
        del self._trees[tree]
        self.halted.pop(tree, None)

    def refilter(self, tree: int, excluded: Callable[[bytes, bool], bool]) -> None:
        """Set which entries of a tree's root do not count."""
        guarded = self._trees[tree]
        guarded.excluded, guarded.memory = excluded, loss.refiltered(guarded.memory)
        self.generation += 1

    def configure(self, enabled: bool, patience: float, max_removals: int | Share | None) -> None:
        before, self._patience, self._limit = self._limit, patience, None
        if max_removals is not None:
            self._limit = RemovalLimit(max_removals, max(patience, MIN_REMOVAL_SECONDS))
            if before is not None and before.most != max_removals:
                for guarded in self._trees.values():
                    guarded.is_allowed = guarded.removals.are_allowed(self._limit)
        if enabled != self._enabled:
            self._enabled = enabled
            self.generation += 1
            for guarded in self._trees.values():  # its root was not looked at while this was off
                guarded.memory = loss.refiltered(guarded.memory)

    def check_unknown(self) -> None:
        """Look at roots of which it is not known what is mirrored: what is lost next may be all of it."""
        for tree, guarded in self._trees.items():
            if guarded.memory.entries is None and not guarded.is_missing:
                self.check(tree)

    # What may be sent --------------------------------------------------------------------------------

    def check(self, tree: int) -> bool:
        """Look at a tree's root, before anything of it is sent; False if nothing may be sent."""
        guarded = self._trees[tree]
        if tree in self.halted:
            return False
        if self._limit is not None and (
            excess := guarded.removals.excess(guarded.wpath, guarded.excluded, self._clock(), self._limit)
        ):
            guarded.memory = replace(guarded.memory, excess=excess)
            self._halt(tree, excess)
            return False
        if not self._enabled:
            return True
        self._check_root(tree)
        if tree in self.halted:
            return False
        look, now = self._look(guarded), self._clock()
        if look is None:
            return True  # the watcher and the worker find out
        if lost := loss.judge(guarded.memory, look, now, self._patience):
            self._halt(tree, lost)
            return False
        guarded.good_root = _root_state(guarded.wpath)
        memory = loss.seen(guarded.memory, look, now)
        if memory != guarded.memory:
            guarded.memory = memory
            self.generation += 1
        return True

    def source(self, tree: int, full: bool) -> Source | None:
        """Return what the root has to be for a transfer of a tree that was just checked."""
        identity, memory = self._root_identity(tree), self._trees[tree].memory
        if not self._enabled or identity is None:
            return None
        whole = loss.is_loss(memory, self._clock(), self._patience) or (full and loss.is_doubtful(memory))
        return Source(identity, whole)

    def send_refused(self, tree: int) -> None:
        """Find out why a worker has not sent something of a tree: its root was not what it had to be.

        If the root was never seen with anything in it, the worker has found that the node has something.
        """
        if not self.check(tree) or not self._enabled:
            return
        guarded = self._trees[tree]
        look = self._look(guarded)
        if look is not None and look.entries == 0 and loss.is_doubtful(guarded.memory):
            self._halt(tree, "is empty, and nodes have files")

    def _look(self, guarded: GuardedTree) -> RootLook | None:
        """Look at a root; None if that is impossible."""
        try:
            directory = entries.open_directory(guarded.wpath)
        except OSError:
            return None
        try:
            found = entries.count(directory, guarded.excluded, loss.MANY)
        except OSError:
            return None
        finally:
            os.close(directory)
        memory = guarded.memory
        if memory.entries is not None and not memory.replaced and not guarded.is_missing:
            # It is the directory that it was: nothing was mounted or unmounted there.
            return RootLook(found, memory.mounted)
        return RootLook(found, mounts.mounted(guarded.wpath), mounts.expected(guarded.wpath))

    # Halted, and back again --------------------------------------------------------------------------

    def _halt(self, tree: int, lost: str) -> None:
        guarded = self._trees[tree]
        guarded.back_at = None
        self.halted[tree] = f"{guarded.wpath} {lost}"
        self.generation += 1
        self._on_halt(tree, self.halted[tree])

    def root_lost(self, tree: int, why: str) -> None:
        """Halt a tree whose root the watcher has lost."""
        guarded = self._trees[tree]
        guarded.is_missing, guarded.is_settling = True, False
        guarded.memory = loss.lost(guarded.memory)
        self.halted[tree] = why
        self.generation += 1

    def root_found(self, tree: int) -> bool:
        """Note that all of a tree is watched, perhaps again; return whether it may be compared."""
        guarded = self._trees[tree]
        was_missing, good_root = guarded.is_missing, guarded.good_root
        if was_missing:
            guarded.is_missing = False
            self.halted.pop(tree, None)
            self.remember(tree, guarded.memory)
        self.generation += 1
        if not self.check(tree):
            return False
        if was_missing and self._enabled and (good_root is None or good_root != guarded.good_root):
            guarded.is_settling = True  # it may be filled file by file
            self._settle(tree)
            return False
        return True

    def _settle(self, tree: int) -> None:
        guarded = self._trees[tree]
        guarded.back_at = guarded.touched_at = self._clock()
        why = f"is back, and compared when nothing has changed in it for {self._patience:g} s"
        self.halted[tree] = f"{guarded.wpath} {why}"

    def touched(self, tree: int) -> None:
        self._trees[tree].touched_at = self._clock()

    def recovered(self) -> list[int]:
        """Release the halted trees that can be mirrored again, and return them."""
        return [tree for tree in list(self.halted) if self._has_recovered(tree)]

    def _has_recovered(self, tree: int) -> bool:
        guarded, now = self._trees[tree], self._clock()
        if guarded.is_missing:
            return False  # the watcher reports it when it is found
        if guarded.memory.excess and self._limit is not None and not guarded.is_allowed:
            if excess := guarded.removals.further(guarded.wpath, now, self._limit):
                self.remember(tree, replace(guarded.memory, excess=excess))
            return False
        if guarded.memory.excess or not self._enabled:
            self._release(tree)
            return True
        if lost := self._still_lost(guarded, now):
            if guarded.back_at is not None:
                guarded.is_settling, guarded.back_at = False, None
                self.halted[tree] = f"{guarded.wpath} {lost}"
            return False
        if guarded.back_at is None:
            self._settle(tree)
            return False
        # A restore goes on file by file: compared at once, all but its first files would be deleted.
        alone, back = now - guarded.touched_at, now - guarded.back_at
        if alone < self._patience and back < MAX_SETTLE_FACTOR * self._patience:
            return False
        self._release(tree)
        return self.check(tree)

    def _still_lost(self, guarded: GuardedTree, now: float) -> str:
        look = self._look(guarded)
        if look is None:
            return "cannot be read"
        if lost := loss.judge(guarded.memory, look, now, 0.0):
            return lost
        return "" if look.entries or guarded.is_settling else "is empty"

    def _release(self, tree: int) -> None:
        del self.halted[tree]
        guarded = self._trees[tree]
        guarded.is_settling, guarded.back_at = False, None
        guarded.removals, guarded.is_allowed = TreeRemovals(), False
        guarded.memory = replace(guarded.memory, excess="")
        self.generation += 1

    def accept_loss(self) -> list[int]:
        """Release halted trees because what was found is meant. Those without a root stay halted."""
        trees = [tree for tree in self.halted if not self._trees[tree].is_missing]
        for tree in trees:
            if not self._trees[tree].memory.excess:
                self._trees[tree].memory = loss.ACCEPTED
            self._release(tree)
        return trees

    # Removals ----------------------------------------------------------------------------------------

    def removed(self, tree: int, path: bytes) -> bool:
        """Count an entry that is gone; return whether that may be one too many (``check``)."""
        guarded = self._trees[tree]
        if self._limit is None:
            return False
        is_halted = bool(guarded.memory.excess)
        return guarded.removals.add(path, self._clock(), self._limit, is_halted) and tree not in self.halted

    def moved_in(self, tree: int) -> None:
        """Count an entry that has come by a rename: what has gone there is not lost."""
        self._trees[tree].removals.removals.cancel()

    def directory_left(self, tree: int, path: bytes, position: int) -> None:
        """Note that a directory was moved away, at a position of the journal. Nodes know what was in it."""
        if self._limit is not None:
            self._trees[tree].removals.directory_left(path, position)

    def directory_stayed(self, tree: int, path: bytes) -> None:
        self._trees[tree].removals.directory_stayed(path)

    def allowance(self, tree: int, cursor: int) -> Allowance | None:
        """Return what a node may lose by the next batch of a tree; None if that need not be counted there."""
        if self._limit is None or not self._trees[tree].removals.are_uncounted(cursor):
            return None
        return self._limit.allowance

    def removals_counted(self, tree: int, count: int, place: bytes) -> None:
        """Halt a tree of which a node would lose too much."""
        guarded = self._trees.get(tree)
        if guarded is None or self._limit is None or tree in self.halted:
            return
        if guarded.removals.are_uncounted(0):  # if not, the directory has turned up in the tree
            guarded.removals.removals.replace(count, place, self._clock())
            self.check(tree)

    def needs_acceptance(self, tree: int) -> bool:
        """Whether a halted tree waits for the operator, whatever becomes of its files."""
        return bool(self._trees[tree].memory.excess)

    def reasons(self, trees: Iterable[int]) -> list[str]:
        """Why those of these trees that are halted are halted, with what to do, for titles."""
        return [_with_remedy(self._trees[tree], self.halted[tree]) for tree in trees if tree in self.halted]


def _with_remedy(guarded: GuardedTree, why: str) -> str:
    if guarded.is_missing:
        return why
    return f"{why} ({'meant' if guarded.back_at is None else 'at once'}? kill -USR2 {os.getpid()})"


def _root_state(wpath: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(wpath)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns
