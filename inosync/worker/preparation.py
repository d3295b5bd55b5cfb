"""Prepares the first part of a batch: what its names are now, and in which order they are to arrive."""

from __future__ import annotations

import os
from collections.abc import Iterable, Set
from dataclasses import dataclass, replace

from inosync.changes import Part, Step
from inosync.filters.rules import Rules
from inosync.rsync.argv import TransferSettings
from inosync.rsync.names import CurrentNames, current_names, listing
from inosync.rsync.options import one_file_system
from inosync.text import plural
from inosync.worker import order, removals, renamed
from inosync.worker.arrival import ArrivalRules
from inosync.worker.lanes import UnderWay
from inosync.worker.part_queue import PartQueue


@dataclass(frozen=True, slots=True)
class TreeNow:
    """A tree at the moment when a part of it is prepared."""

    settings: TransferSettings
    rules: Rules
    big_size: int = 0  # bytes above which a file belongs to the second lane
    other: UnderWay | None = None  # what runs of the tree in the other lane


class PartPreparer:
    """Leaves in the first part, and in ``PartQueue.current``, what is to be sent now."""

    def __init__(self, queue: PartQueue, arrival: ArrivalRules) -> None:
        self._queue, self._arrival = queue, arrival
        self._in_order: set[int] = set()  # trees of which the parts are as ``order`` wants them
        self._entered: set[bytes] = set()  # directories of renamed files, for their times
        self.uncounted: dict[int, tuple[bytes, ...]] = {}  # by tree, what is gone: the node is to count it

    def note_in_order(self, tree: int) -> None:
        """The parts of a tree are in their order already."""
        self._in_order.add(tree)

    def note_entered(self, directories: Set[bytes]) -> None:
        """Directories that are sent for their times only, because renamed files are in them."""
        self._entered |= directories

    def prepare_names(self, tree: TreeNow, is_untidy: bool) -> bool:
        """Find out what the names are now; False if nothing of the part is left to send.

        ``is_untidy``: rsync may have left temporary files on the node. OSError if the tree is not there.
        """
        queue, arrival, source = self._queue, self._arrival, tree.settings.source
        is_first_look = queue.is_first_lane and not (
            queue.part.tree in self._in_order or queue.part.ignore_times
        )
        if is_first_look:
            self.note_in_order(queue.part.tree)
            self._put_in_order(tree)
        if queue.part.step >= Step.SWITCHED and queue.is_first_lane:
            if not arrival.has_its_basis(source):
                return False
            arrival.leave_behind(source)
            arrival.leave_removals(source)
        if arrival.copied_names() or (is_first_look and not queue.part.ignore_times):
            queue.current.send = list(queue.part.names)
        elif not queue.is_first_lane:
            self._look_at_big(tree)
        else:
            self._look_again(tree)
        if names := queue.current.unsendable:
            example = os.fsdecode(names[0])[:60]
            queue.results.worry = f"{plural(len(names), 'name')} too long for rsync, such as {example}..."
        if is_untidy and queue.is_first_lane and queue.part.step is not Step.REMOVED:
            queue.add_names(Step.REMOVED, order.tidying(queue.current.send))
        return bool(queue.current.send)

    def _names_now(self, tree: TreeNow, names: Iterable[bytes]) -> CurrentNames:
        # What was big when it was put aside is not handed back for a limit that has grown since. Where
        # nothing is sent, big files need not be found.
        size = tree.big_size if self._queue.is_first_lane else tree.big_size // 2
        size = 0 if order.only_removes(self._queue.part) else size
        settings, excluded = tree.settings, tree.rules.excluded
        is_one = one_file_system(settings.extra)
        return current_names(settings.source, names, excluded, settings.list_missing, is_one, size)

    def _look_at_big(self, tree: TreeNow) -> None:
        found = self._names_now(tree, self._queue.part.names)
        found.send, found.big = found.big, found.send
        self._queue.put_aside(found, tree.other)
        self._queue.current = found

    def _look_again(self, tree: TreeNow) -> None:
        """Leave to a later part what has become something else since the parts were put in order."""
        queue = self._queue
        current = self._names_now(tree, queue.part.names)
        queue.put_aside(current, tree.other)
        queue.current = current
        found = order.look_again(queue.part, current, queue.is_ahead, self._entered)
        current.send = found.send
        for name in found.waiting:
            self._arrival.let_wait([name])
        for step, names in found.later.items():
            queue.add_names(step, names)
        if found.come_back:
            queue.results.outdated.append(queue.named(found.come_back))

    def _put_in_order(self, tree: TreeNow) -> None:
        """Put what is to be sent of the tree into its order, by what it is now."""
        queue, arrival, source = self._queue, self._arrival, tree.settings.source
        first = queue.part
        own = [part for part in queue.parts if part.tree == first.tree and renamed.is_usual(part)]
        wanted = self._wanted(source, own)
        renames = tuple(rename for part in own for rename in part.renames)
        # What is put aside may be anything by then.
        names = tuple(wanted.hints)
        queue.parts[0] = replace(first, names=names, step=Step.CHANGED, renames=renames)
        queue.current = self._names_now(tree, names)
        if first.allowance is not None and (gone := removals.to_be_counted(queue.current, renames)):
            self.uncounted[first.tree] = gone
        switch = arrival.switch
        switch.again = wanted.again
        arrival.leave_newer_again(source)
        queue.current.big = order.big_among(wanted, queue.current.big)
        queue.put_aside(queue.current, tree.other)
        steps, waiting = order.in_steps(wanted, queue.current, queue.is_ahead)
        arrival.let_wait(waiting)
        files = set(steps.get(Step.SWITCHED, ())).difference(queue.current.links)
        switch.unknown = frozenset(name for name in files if wanted.hints.get(name) is Step.UNKNOWN)
        steps = arrival.freeze(tree.settings, steps)
        by_step = order.renames_by_step(queue.part.renames, steps)
        queue.parts = [part for part in queue.parts[1:] if part not in own]
        for step, sent in (steps or {Step.CHANGED: []}).items():
            followed = by_step.get(step, ())
            part = replace(first, names=tuple(sent), step=step, renames=followed, again=wanted.again)
            queue.parts = order.inserted(queue.parts, part)

    def _wanted(self, source: str, own: list[Part]) -> order.Wanted:
        """Return what is to be sent of these parts, which are all of one tree."""
        return order.spread(
            {name: part.step for part in own for name in part.names},
            lambda wire: listing(source, wire, order.MAX_LISTED),
            (rename for part in own for rename in part.renames),
            frozenset[bytes]().union(*(part.again for part in own)),
            self._queue.is_ahead,
        )
