"""The batch that is on its way to a node."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import cast

from inosync.messages import Batch, Change, Done, Failed, Kind, Part, Progress, SlotRequest, from_wire
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

    def is_meant_by(self, report: Progress | Failed | SlotRequest | Done) -> bool:
        """Return whether the report is about this batch."""
        return report.batch == self.batch.id

    def changes(self, trees: Collection[int]) -> set[Change]:
        """Return the changes in it that are of these trees; all of the trees if its file is gone."""
        return unpack(self.batch.payload, self.batch.file, trees)

    def full_trees(self) -> set[int]:
        """Return the trees that it mirrors in full; none if its file is gone."""
        try:
            parts = _parts(self.batch.payload, self.batch.file) if self.batch.full else ()
        except OSError:
            parts = ()
        return {part.tree for part in parts if part.full}

    def second_look(self, trees: Collection[int]) -> set[Change]:
        """Return what a try that was cut off may still change: its names and their directories' listings.

        The listings, because a try that had to tidy up has sent these as well.
        """
        changes = self.changes(trees)
        named = {(change.tree, change.path) for change in changes if change.path}
        return changes | {Change(tree, path.rpartition(b"/")[0], Kind.LIST) for tree, path in named}


def unpack(payload: bytes, file: str, trees: Collection[int]) -> set[Change]:
    """Return the changes of these trees in packed parts; the trees as a whole if the file is gone."""
    try:
        parts = _parts(payload, file)
    except OSError as error:
        log.error("%s: %s: the trees that it may be about are compared as a whole", file, error.strerror)
        return {Change(tree, b"", Kind.TREE) for tree in trees}
    return {change for part in parts if part.tree in trees for change in _changes(part)}


def _parts(payload: bytes, file: str) -> tuple[Part, ...]:
    return cast(tuple[Part, ...], spool.unpack(payload, file))


def _changes(part: Part) -> list[Change]:
    if part.full:
        return [Change(part.tree, b"", Kind.TREE)]
    return [from_wire(part.tree, wire, part.ignore_times) for wire in part.names]
