"""Batches: cut from the journal, once for all nodes at the same cursor, and shared by these."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from inosync.changes import Change, Kind, Lane, OwedNames, Part, Rename, Step
from inosync.guard.guard import Guard
from inosync.journal.journal import Journal
from inosync.nodes.node import Node
from inosync.system import spool

HEAVY_CHANGES = 1_000
"""A batch of so many changes waits for a slot, as a full mirror does."""
_ids = itertools.count(1)


class TreeHalted(Exception):
    """The guard has halted a tree of the batch just now."""


@dataclass(slots=True)
class SharedBatch:
    """What a batch holds, for as many nodes as take it."""

    payload: bytes
    file: str
    """The parts, as ``spool.pack`` returns them."""
    count: int
    """Names in it."""
    changes: int
    """Changes that it is made of: more than names, where a listing covers some."""
    full: bool
    users: int = 0
    """Nodes that have been sent it and have not finished with it."""

    @property
    def is_heavy(self) -> bool:
        return self.full or self.changes >= HEAVY_CHANGES


class BatchCutter:
    """Cuts batches, and keeps the files of those that are too long for a message in ``directory``."""

    def __init__(self, journal: Journal, directory: str, guard: Guard) -> None:
        self._journal, self._directory, self._guard = journal, directory, guard
        self._batches: dict[object, SharedBatch] = {}
        """By what they were cut from, while the journal has the head ``_cut_at``."""
        self._cut_at = -1
        self._files: dict[str, SharedBatch] = {}
        """The batches whose files exist."""

    def newer(self, node: Node, upto: int) -> dict[int, tuple[bytes, ...]]:
        """Return by tree what a node lacks and may not be sent, because it is newer than a position."""
        found = self._journal.overtaken(upto)
        for change, retry in node.retries.waiting.items():
            if not (retry.is_behind or self._journal.is_settled(change, upto)):
                found[change.tree] = (*found.get(change.tree, ()), change.wire)
        return {tree: wires for tree, wires in found.items() if tree in node.trees}

    def cut(
        self, node: Node, retries: Sequence[Change], lane: Lane = Lane.FIRST, upto: int | None = None
    ) -> SharedBatch | None:
        """Return the next batch for a node; None if no change concerns it. The second lane has retries only.

        ``upto``: the position that it may not be newer than; None: it has all. TreeHalted if the guard halts
        a tree of it; OSError if its file cannot be written.
        """
        if self._cut_at != self._journal.head:
            self._batches.clear()
            self._cut_at = self._journal.head
        limit = math.inf if upto is None else upto
        owed = node.retries.owed(retries) if lane is Lane.FIRST else {}
        if upto is not None and lane is Lane.FIRST:
            for tree, wires in self.newer(node, upto).items():
                known = owed.get(tree, OwedNames())
                owed[tree] = replace(known, failed=(*known.failed, *wires))
        key = (limit, self._key(node, retries, lane, owed))
        batch = self._batches.get(key)
        if batch is None or (batch.file and batch.file not in self._files):
            parts, changes = self._parts(node, retries, lane, limit)
            parts = list(_with_owed(parts, owed))
            if not parts:
                return None
            if not all(self._guard.check(part.tree) for part in parts):
                raise TreeHalted
            batch = self._pack(parts, changes, node.cursor)
            self._batches[limit, self._key(node, retries, lane, owed)] = batch
        return batch

    def _key(
        self, node: Node, retries: Sequence[Change], lane: Lane, owed: Mapping[int, OwedNames]
    ) -> object:
        # The guard has another generation after it has halted a tree.
        return (
            node.cursor,
            node.subscription,
            self._guard.generation,
            tuple((change, change.step, change.is_again) for change in retries),
            lane,
            node.second is None,
            tuple(owed.items()),
            tuple(change for change, _ in node.retries.items() if change.ignore_times),
        )

    def _parts(
        self, node: Node, retries: Sequence[Change], lane: Lane, limit: float
    ) -> tuple[list[Part], int]:
        """Return what is to be sent, and of how many changes it is made."""
        changes = self._journal.since(node.cursor, limit) if lane is Lane.FIRST else []
        if changes is None:
            changes = [Change(tree, b"", Kind.TREE) for tree in node.trees]
        elif not node.subscription.everything:
            changes = list(filter(node.subscription.concerns, changes))
        wanted = [tree for tree in node.trees if tree not in self._guard.halted]
        renames = self._journal.renames_after(node.cursor, limit) if lane is Lane.FIRST else {}
        debts = _renamed_debts(node.retries.items(), renames)
        if limit < math.inf:
            debts = (change for change in debts if self._journal.is_settled(change, limit))
        changes = [*changes, *retries, *debts]
        # A listing may have to wait for a big file in its directory, which a name need not.
        left = changes if renames or node.second is not None else _without_listed(changes)
        return list(_parts_of(left, wanted, renames)), len(changes)

    def _pack(self, parts: list[Part], changes: int, cursor: int) -> SharedBatch:
        parts = [self._guarded(part, cursor) for part in parts]
        path = os.path.join(self._directory, f"batch-{next_id()}")
        payload, file = spool.pack(tuple(parts), path)
        count = sum(len(part.names) for part in parts)
        batch = SharedBatch(payload, file, count, changes, any(part.full for part in parts))
        if file:
            self._files[file] = batch
        return batch

    def _guarded(self, part: Part, cursor: int) -> Part:
        """Return a part with what has to be true for it to be sent."""
        allowance = None if part.full else self._guard.allowance(part.tree, cursor)
        return replace(part, source=self._guard.source(part.tree, part.full), allowance=allowance)

    def release(self, file: str) -> None:
        batch = self._files.get(file)
        if batch is not None:
            batch.users -= 1
            self.discard_unused(batch)

    def discard_unused(self, batch: SharedBatch) -> None:
        """Remove the file of a batch that no node has."""
        if batch.file and batch.users == 0:
            del self._files[batch.file]
            spool.discard(batch.file)


def next_id() -> int:
    """Return a number that no other batch or comparison of this process has."""
    return next(_ids)


def _without_listed(changes: list[Change]) -> list[Change]:
    """Return the changes without the names that the listing of their directory covers, as in the journal.

    Only those of the same step: others come after the listing, or before it. A second look may leave names
    out.
    """
    listed = {(c.tree, c.path, c.step) for c in changes if c.kind is Kind.LIST and not c.is_again}
    if not listed:
        return changes

    def is_covered(change: Change) -> bool:
        if (
            change.kind is not Kind.NAME
            or not change.path
            or change.ignore_times
            or change.step > Step.UNKNOWN
        ):
            return False
        return (change.tree, change.path.rpartition(b"/")[0], change.step) in listed

    return [change for change in changes if not is_covered(change)]


def _renamed_debts(
    debts: Iterable[tuple[Change, object]], renames: Mapping[int, tuple[Rename, ...]]
) -> Iterable[Change]:
    """Yield the new names of files whose content is to be compared at the old ones.

    What a node has at the old name, and gets the new one, may be another content of the same size and time.
    """
    for change, _ in debts if renames else ():
        path = change.path
        for rename in renames.get(change.tree, ()) if change.ignore_times and path else ():
            if path == rename.old or path.startswith(rename.old + b"/"):
                path = rename.new + path[len(rename.old) :]
        if path != change.path:
            yield replace(change, path=path, step=Step.CHANGED)


def _with_owed(parts: Iterable[Part], owed: Mapping[int, OwedNames]) -> Iterable[Part]:
    left = dict(owed)
    for part in parts:
        yield replace(part, owed=left.pop(part.tree)) if part.tree in left else part


def _parts_of(
    changes: Iterable[Change], trees: Iterable[int], renames: Mapping[int, tuple[Rename, ...]]
) -> Iterable[Part]:
    steps: dict[tuple[int, bool], dict[bytes, Step]] = {}
    full: dict[int, bool] = {}  # whether times are ignored, by tree
    again: dict[int, set[bytes]] = {}  # by tree, what is only looked at again
    for change in sorted(changes, key=lambda change: change.is_again):
        if change.kind is Kind.TREE:
            full[change.tree] = change.ignore_times or full.get(change.tree, False)
        else:
            # Of what is gone no content is compared.
            by_content = change.ignore_times and change.step is not Step.REMOVED
            found, wire = steps.setdefault((change.tree, by_content), {}), change.wire
            known, looked_at = found.get(wire), again.setdefault(change.tree, set())
            if not change.is_again or wire in looked_at:
                found[wire] = _together(change, known)
            elif known is None or _only_removes(change.kind, known):
                # Otherwise the other look is enough, and knows better when it is due within the batch.
                found[wire] = change.step
                looked_at.add(wire)
    for tree in trees:
        if tree in full:
            yield Part(tree, True, ignore_times=full[tree])
        else:
            only_again = frozenset(again.get(tree, ()))
            yield from _in_order(tree, steps.get((tree, False), {}), renames.get(tree, ()), only_again)
        if (tree, True) in steps and not full.get(tree):
            yield Part(tree, False, tuple(steps[tree, True]), ignore_times=True)


def _only_removes(kind: Kind, step: Step) -> bool:
    return kind is Kind.LIST and step is Step.REMOVED


def _together(change: Change, other: Step | None) -> Step:
    """Return the step of a name that has two. REMOVED relists only remove, and give way to all others."""
    if other is None:
        return change.step
    if _only_removes(change.kind, change.step) or _only_removes(change.kind, other):
        return min(change.step, other)
    return max(change.step, other)


def _in_order(
    tree: int, steps: Mapping[bytes, Step], renames: tuple[Rename, ...], again: frozenset[bytes]
) -> Iterable[Part]:
    names: dict[Step, list[bytes]] = {}
    for wire, step in steps.items():
        names.setdefault(step, []).append(wire)
    for step in sorted(names):
        found = tuple(names[step])
        yield Part(tree, False, found, renames=renames, step=step, again=again.intersection(found))
        renames = ()
