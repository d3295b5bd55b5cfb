"""The batch that is on its way to a node."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import cast

from inosync.changes import Change, Kind, Part, Step, from_wire
from inosync.nodes.messages import Batch, Done, Failed, Leftovers, Progress, SlotRequest, Through
from inosync.system import spool

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outstanding:
    """A batch that the worker has, and has not reported as done."""

    batch: Batch
    upto: int
    """The node's cursor once the batch is done."""
    since: float
    """When the oldest change in it was seen, by the clock."""
    sent_at: float
    """When it was handed over to the worker, by the clock."""
    percent: int | None = None
    """How much of it has arrived, in the second lane; None while rsync has not said."""
    is_through: bool = False
    """Whether the node has it all, and only the end of its rsync is awaited."""

    def is_meant_by(self, report: Progress | Through | Failed | SlotRequest | Done) -> bool:
        return report.batch == self.batch.id

    def changes(self, trees: Collection[int]) -> set[Change]:
        """Return the changes in it that are of these trees; all of the trees if its file is gone."""
        try:
            return changes_of(_parts(self.batch.payload, self.batch.file), trees)
        except OSError as error:
            return _all(self.batch.file, error, trees)

    def full_trees(self) -> set[int]:
        """Return the trees that it mirrors in full; none if its file is gone."""
        try:
            parts = _parts(self.batch.payload, self.batch.file) if self.batch.full else ()
        except OSError:
            parts = ()
        return {part.tree for part in parts if part.full}

    def second_look(self, trees: Collection[int]) -> set[Change]:
        """Return what a try that was cut off may still change: its names and their directories' listings.

        The listings, because a try that had to tidy up has sent these as well. Nothing of it is new: the node
        has it.
        """
        return set(map(_seen_again, self.changes(trees))) | self.listings(trees)

    def listings(self, trees: Collection[int]) -> set[Change]:
        """Return the listings of the directories that its names are in."""
        named = {(change.tree, change.path) for change in self.changes(trees) if change.path}
        listed = {(tree, path.rpartition(b"/")[0]) for tree, path in named}
        return {_seen_again(Change(tree, path, Kind.LIST)) for tree, path in listed}


def _seen_again(change: Change) -> Change:
    if change.kind is Kind.TREE:
        return change
    return replace(change, step=max(change.step, Step.SWITCHED), is_again=True)


def changes_of(parts: Iterable[Part], trees: Collection[int]) -> set[Change]:
    return {change for part in parts if part.tree in trees for change in _changes(part)}


def leftovers(done: Done, trees: Collection[int]) -> Leftovers:
    """Return what a batch has left, and remove the file of it; all of the trees if the file is gone."""
    if not (done.payload or done.file):
        return Leftovers()
    try:
        return cast(Leftovers, spool.unpack(done.payload, done.file))
    except OSError as error:
        # What was outdated may differ in content alone.
        whole = (Part(change.tree, True, ignore_times=True) for change in _all(done.file, error, trees))
        return Leftovers(tuple(whole))
    finally:
        spool.discard(done.file)


def _all(file: str, error: OSError, trees: Collection[int]) -> set[Change]:
    log.error("%s: %s: the trees that it may be about are compared as a whole", file, error.strerror)
    return {Change(tree, b"", Kind.TREE) for tree in trees}


def _parts(payload: bytes, file: str) -> tuple[Part, ...]:
    return cast(tuple[Part, ...], spool.unpack(payload, file))


def _changes(part: Part) -> list[Change]:
    if part.full:
        return [Change(part.tree, b"", Kind.TREE, part.ignore_times)]
    found = [from_wire(part.tree, wire, part.ignore_times, part.step) for wire in part.names]
    return [replace(change, is_again=True) if change.wire in part.again else change for change in found]
