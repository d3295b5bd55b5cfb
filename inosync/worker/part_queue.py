"""The parts of a batch that are still to be sent, and how names move between them and to later batches."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence, Set
from dataclasses import replace

from inosync.changes import Lane, Part, Step
from inosync.rsync.names import CurrentNames
from inosync.worker import order
from inosync.worker.lanes import UnderWay
from inosync.worker.results import Results


class PartQueue:
    """The first part is at work. What is taken out of it goes to a later part, or into ``results``."""

    def __init__(self, parts: Iterable[Part], lane: Lane, is_ahead: bool) -> None:
        self.parts = list(parts)
        self.current = CurrentNames()  # what the names of the first part are now; nothing for FULL
        self.results = Results()
        self.is_first_lane = lane is Lane.FIRST
        self.is_ahead = is_ahead  # the node may have more of the batch than was confirmed

    @property
    def part(self) -> Part:
        """What is to be sent next."""
        return self.parts[0]

    def named(self, names: Iterable[bytes]) -> Part:
        """Return a part that is like the first one, but has these names and no renames."""
        return replace(self.part, names=tuple(names), renames=())

    def keep_names(self, names: Iterable[bytes]) -> None:
        """Leave only these names in the first part."""
        self.parts[0] = replace(self.part, names=tuple(names))

    def add_names(self, step: Step, names: Sequence[bytes]) -> None:
        """Send these names of the first part's tree in a later step."""
        if names:
            part = replace(self.named(names), step=step, ignore_times=False)
            self.parts = order.inserted(self.parts, part)

    def leave_names(self, names: Collection[bytes], place: list[Part], step: Step = Step.REMOVED) -> None:
        """Take names out of the first part: they are for a later batch."""
        if names:
            part, left = self.part, frozenset(names)
            place.append(replace(self.named(names), step=step))
            renames = tuple(rename for rename in part.renames if rename.new not in left)
            kept = tuple(name for name in part.names if name not in left)
            self.parts[0] = replace(part, names=kept, renames=renames)

    def let_wait(self, names: Collection[bytes], unknown: Set[bytes]) -> None:
        """Send these when the changes that follow are sent. What is gone by then was removed.

        ``unknown``: names that may be new to the node.
        """
        is_unknown = set(names) & unknown
        for step, found in ((Step.UNKNOWN, is_unknown), (Step.REMOVED, set(names) - is_unknown)):
            if found:
                self.results.waiting.append(replace(self.named(found), step=step))

    def put_aside(self, found: CurrentNames, other: UnderWay | None) -> None:
        """Take out what belongs to the other lane, and what that stands in the way of."""
        blocked = [name for name in found.send if other.is_in_the_way(name)] if other is not None else []
        if found.big:
            (self.results.big if self.is_first_lane else self.results.later).append(self.named(found.big))
        if blocked:
            self.results.later.append(self.named(blocked))
        if other is not None and self.part.renames:
            renames = (one for one in self.part.renames if not (other.holds(one.old) or other.holds(one.new)))
            self.parts[0] = replace(self.part, renames=tuple(renames))
        if aside := {*found.big, *blocked}:
            found.send = [name for name in found.send if name not in aside]
            found.missing -= aside
            self.keep_names(name for name in self.part.names if name not in aside)

    def hold_tree(self, tree: int, is_running: bool = False) -> None:
        """Take out what is still to be sent of a tree, except for a first part that is running."""
        running, waiting = self.parts[:is_running], self.parts[is_running:]
        left = [part for part in waiting if part.tree != tree]
        if len(left) < len(waiting):
            self.results.held[tree] = None
        self.parts = running + left

    def replace_part(self, parts: Sequence[Part]) -> None:
        """Run something in place of the first part; the second lane leaves that to the first."""
        self.parts[:1] = parts if self.is_first_lane else ()
        self.results.later += () if self.is_first_lane else parts
