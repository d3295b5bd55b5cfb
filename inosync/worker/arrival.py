"""What of a batch must not arrive yet: it is left to a later batch, so that the node never shows a half.

``order`` says in which order the names of a batch go. Here are the names whose turn has come, although what
they lead to, or what leads to them, has changed or failed meanwhile.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from inosync.changes import OwedNames, Part, Step
from inosync.nodes.messages import Batch
from inosync.rsync.argv import TransferSettings
from inosync.worker import frozen, order
from inosync.worker.part_queue import PartQueue
from inosync.worker.switches import Switch


class ArrivalRules:
    """Applies them to the first part of a batch. Its methods raise OSError if the tree is not there."""

    def __init__(self, batch: Batch, queue: PartQueue, copies: str) -> None:
        self._complete_at, self._queue, self._copies = batch.complete_at, queue, copies
        self._cut = tuple(queue.parts)  # as the master has cut them
        self._switches: defaultdict[int, Switch] = defaultdict(Switch)  # by tree
        self._mending: set[tuple[int, bytes]] = set()
        """Trees and relists for what was refused by its name: they wait for nothing."""

    @property
    def switch(self) -> Switch:
        """What is switched to in the tree of the first part."""
        return self._switches[self._queue.part.tree]

    def replacing(self) -> frozenset[bytes]:
        """Return the names in the first part's tree that were moved there, as the events say.

        Each may have taken the place of something; the kernel does not say. What a listing has found is none.
        """
        tree, step = self._queue.part.tree, Step.SWITCHED
        cut = (part for part in self._cut if part.tree == tree and part.step is step)
        return frozenset(name for part in cut for name in part.names if name not in part.again)

    def remove_copies(self) -> None:
        for switch in self._switches.values():
            switch.end()

    def note_mending(self, parts: Iterable[Part]) -> None:
        """Parts that take the place of what was refused: their relists wait for nothing."""
        self._mending.update(
            (part.tree, name) for part in parts for name in part.names if name.endswith(b"/")
        )

    # When the parts of a tree are put in order ------------------------------------------------------

    def let_wait(self, names: Iterable[bytes]) -> None:
        """Send these when the changes that follow are sent."""
        self._queue.let_wait(tuple(names), self.switch.unknown)

    def freeze(self, settings: TransferSettings, steps: dict[Step, list[bytes]]) -> dict[Step, list[bytes]]:
        """Copy what is switched to; return the steps without what has to wait for changes to come."""
        names, is_alone = steps.get(Step.SWITCHED), len(steps) == 1
        if not names:
            return steps
        queue, switch = self._queue, self.switch
        switch.is_alone = is_alone
        if self._copies and not is_alone:  # that goes at once
            switch.copy(settings, names, f"{self._copies}-{queue.part.tree}")
        # After they were copied, because a copy must not be newer, either.
        late = self._newer(settings.source, self._there(names), is_alone)
        if late:
            # What they lead to now may be among those; and what is gone by now they may have led to before.
            late |= set(steps.get(Step.REMOVED, ()))
            self.let_wait(late)
            switch.removals = queue.results.waiting
            steps = {step: [name for name in names if name not in late] for step, names in steps.items()}
            steps = {step: names for step, names in steps.items() if names}
        if is_alone:
            return steps
        before = [n for step in sorted(steps) if step < Step.SWITCHED for n in steps[step]]
        before = [name for name in before if name not in queue.current.missing and name != b"./"]
        links = [name for name in steps.get(Step.SWITCHED, ()) if name in queue.current.links]
        switch.note_basis(settings.source, links, before)
        return steps

    # When a part is about to be sent -----------------------------------------------------------------

    def has_its_basis(self, source: str) -> bool:
        """Return whether what was sent before the first part was there to the end.

        If not, all that follows of the tree waits: the next release has taken its place by now.
        """
        queue, switch = self._queue, self.switch
        if switch.has_its_basis(source):
            return True
        tree = queue.part.tree
        late = [part for part in queue.parts if part.tree == tree and part.step >= Step.SWITCHED]
        self.let_wait([name for part in late for name in part.names])
        switch.removals = queue.results.waiting
        first = replace(late[0], names=(), renames=())
        queue.parts = [first, *(part for part in queue.parts if part not in late)]
        return False

    def leave_behind(self, source: str) -> None:
        """Leave to a later batch what must not arrive before names that have failed, or are big."""
        queue, switch = self._queue, self.switch
        part, place = queue.part, queue.results.behind
        owed = queue.results.lacking([each for each in self._cut if each.tree == part.tree])
        if owed == OwedNames():
            return
        led_to = switch.led_to(source, part) if part.step is Step.SWITCHED else {}
        names = [name for name in part.names if (part.tree, name) not in self._mending]
        behind = order.behind(names, led_to, part.step, owed)
        if behind:
            queue.leave_names(behind, place)
        # A removal may make the room that something hopeless needs.
        hopeful = replace(owed, hopeless=())
        if behind and part.step is Step.SWITCHED and order.behind(behind, led_to, part.step, hopeful):
            switch.removals = place

    def leave_removals(self, source: str) -> None:
        """Leave to a later batch the removals of what links that wait may lead to on the node.

        That is what is gone from a directory since the batch was cut, too: its relist would remove it; and a
        directory that is gone itself.
        """
        queue = self._queue
        if queue.part.step is not Step.REMOVED:
            return
        if (place := self.switch.removals) is not None:
            queue.leave_names(queue.part.names, place)
        elif relists := [name for name in queue.part.names if name.endswith(b"/")]:
            queue.leave_names(self._newer(source, relists), queue.results.waiting)

    def copied_names(self) -> tuple[bytes, ...]:
        """Return the names of the first part of which copies are sent; then it has no others.

        What of it has no copy becomes a part of its own.
        """
        queue = self._queue
        own = self.switch.copied(queue.part)
        if own and own != queue.part.names:
            copied = frozenset(own)
            rest = queue.named(name for name in queue.part.names if name not in copied)
            queue.parts[:1] = [replace(queue.part, names=own), rest]
        return own

    # When rsync has connected ------------------------------------------------------------------------

    def leave_newer(self, source: str) -> None:
        """Leave to a later batch what has become newer, or is gone, since the part was looked at."""
        queue, part, results = self._queue, self._queue.part, self._queue.results
        if part.full or self.switch.source(part) or not (queue.is_first_lane or part.ignore_times):
            return
        if part.ignore_times:
            late = self._newer(source, part.names)
            # What is sent instead of what is gone, such as a file that its directory became, is enough.
            late -= frozen.gone(source, late.difference(queue.current.send))
            queue.leave_names(late, results.outdated, part.step)
        elif part.step < Step.SWITCHED:
            self.leave_newer_again(source)
            queue.leave_names(frozen.gone(source, self._there(queue.current.send)), results.waiting)
        elif part.step is Step.SWITCHED:
            if late := self._newer(source, self._there(part.names), self.switch.is_alone):
                unknown = self.switch.unknown.intersection(late)
                queue.leave_names(late - unknown, results.waiting)
                queue.leave_names(unknown, results.waiting, Step.UNKNOWN)
                self.switch.removals = results.waiting
        else:
            self.leave_removals(source)
        left = set(part.names).difference(queue.part.names)
        queue.current.send = [name for name in queue.current.send if name not in left]

    def leave_newer_again(self, source: str) -> None:
        """Leave to a later second look what only this one has found, and what is newer than the batch."""
        queue = self._queue
        names = self.switch.again.intersection(self._there(queue.current.send))
        if names and (newer := self._newer(source, names)):
            queue.current.send = [name for name in queue.current.send if name not in newer]
            kept = [name for name in queue.part.names if name not in newer]
            outdated = replace(queue.named(newer), step=Step.SWITCHED, again=frozenset(newer))
            queue.results.outdated.append(outdated)
            queue.keep_names(kept)

    def _there(self, names: Sequence[bytes]) -> Iterator[bytes]:
        return (name for name in names if name not in self._queue.current.missing)

    def _newer(self, source: str, names: Iterable[bytes], is_alone: bool = False) -> set[bytes]:
        """Return the names that have changed after the changes of the batch.

        What has changed within the same tick of the clock for files is not known to be among these. It counts
        as newer, unless it goes alone: most isolated changes are seen within their tick, and must not wait.
        """
        at = self._complete_at
        return frozen.newer(source, names, at + is_alone, time.time_ns()) if at else set()
