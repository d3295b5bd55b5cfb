"""A batch on its way: what is sent of it next, and what follows from the end of each of its transfers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace
from typing import cast

from inosync.changes import Part, Rename, Step
from inosync.filters.rules import Excluded, Rules
from inosync.nodes.messages import Batch, Leftovers
from inosync.rsync.argv import EVERYTHING, TransferSettings
from inosync.rsync.names import CurrentNames
from inosync.rsync.outcome import Outcome
from inosync.rsync.source import SourceState, check_source
from inosync.system import spool
from inosync.worker import frozen, order, renamed
from inosync.worker.arrival import ArrivalRules
from inosync.worker.lanes import UnderWay, directory_of
from inosync.worker.part_queue import PartQueue
from inosync.worker.preparation import PartPreparer, TreeNow
from inosync.worker.results import Results


class BatchRun:
    """Decides what is sent next of a batch; the sender runs the transfers. OSError if its file is gone.

    ``copies``: the path for directories with copies of what is switched to; empty if there are to be none.
    """

    def __init__(self, batch: Batch, now: float, copies: str = "") -> None:
        self.batch, self.started_at = batch, now
        self._is_untidy = batch.tidy_since is not None  # rsync may have left temporary files on the node
        parts = cast(tuple[Part, ...], spool.unpack(batch.payload, batch.file))
        self._queue = PartQueue(parts, batch.lane, batch.is_ahead or self._is_untidy)
        self._arrival = ArrivalRules(batch, self._queue, copies)
        self._preparer = PartPreparer(self._queue, self._arrival)
        self.delete_nothing = False  # the first part is FULL, and its source is empty, perhaps by a loss
        self._made: dict[int, tuple[bytes, ...]] = {}  # by tree, directories made for renames to come
        self.interrupted = self._is_untidy  # the node may still be at work on a transfer that was ended

    @property
    def parts(self) -> list[Part]:
        """What has not come through yet. The first part is at work."""
        return self._queue.parts

    @property
    def part(self) -> Part:
        """What is to be sent next."""
        return self._queue.part

    @property
    def current(self) -> CurrentNames:
        """What the names of the first part are now."""
        return self._queue.current

    @property
    def names(self) -> Sequence[bytes]:
        """What rsync is fed for the first part."""
        return EVERYTHING if self.part.full else self.current.send

    @property
    def results(self) -> Results:
        return self._queue.results

    @property
    def replacing(self) -> tuple[bytes, ...]:
        """What of the first part has been moved over something else, as far as the events say; no links.

        The node may have a file of the same size and time there, with another content.
        """
        part, current = self.part, self.current
        if part.full or part.ignore_times or part.step is not Step.SWITCHED:
            return ()
        replacing = self._arrival.replacing() - current.missing - current.links
        copies = os.fsencode(self.frozen_source)
        return tuple(
            name
            for name in part.names
            if name in replacing and not (copies and os.path.islink(os.path.join(copies, name)))
        )

    @property
    def uncounted(self) -> tuple[bytes, ...]:
        """What of the tree of the first part the node has to count before anything is sent."""
        return self._preparer.uncounted.get(self.part.tree, ())

    @property
    def frozen_source(self) -> str:
        """The directory with the copies that are sent for the first part; empty if it is the tree's own."""
        return self._arrival.switch.source(self.part)

    @property
    def has_more(self) -> bool:
        """Whether anything but the first part is, or stays, to be sent; or that is FULL, or was cut off.

        In the second lane that is not known.
        """
        results = self.results
        left = results.held or results.code or results.leftovers() != Leftovers()
        is_last = len(self.parts) == 1 and self._queue.is_first_lane and not self.part.full
        return bool(left or not is_last or self.interrupted)

    def remove_copies(self) -> None:
        self._arrival.remove_copies()

    # Before a transfer -------------------------------------------------------------------------------

    def check_root(self, settings: TransferSettings, excluded: Excluded) -> bool:
        """Check the root before a transfer starts; False if the part must not be sent."""
        found = check_source(settings.source, self.part.source, excluded)
        self.delete_nothing = found is SourceState.EMPTY and self.part.full
        return found is SourceState.OK or self.delete_nothing

    def prepare_part(
        self, settings: TransferSettings, rules: Rules, big_size: int = 0, other: UnderWay | None = None
    ) -> bool:
        """Prepare the first part; False if nothing of it is left to send.

        ``big_size`` and ``other``: as in ``TreeNow``. OSError if the tree is not there.
        """
        self._queue.current = CurrentNames()
        if not self.part.full:
            return self._preparer.prepare_names(TreeNow(settings, rules, big_size, other), self._is_untidy)
        if other is not None:
            self.results.later.append(self.part)
            return False
        os.stat(settings.source)  # without it rsync would end in the same way as for wrong usage
        if self.part.step is Step.CHANGED and not self.delete_nothing:
            self.parts[:1] = order.in_two(self.part)
        return True

    def leave_newer(self, source: str) -> None:
        """Leave to a later batch what has become newer, or is gone, since ``prepare_part``.

        rsync has connected meanwhile. OSError if the tree is not there.
        """
        self._arrival.leave_newer(source)

    def skip_part(self) -> None:
        """Take out the first part: there is nothing of it to send."""
        self._check_directories(self._made.get(self.part.tree, ()))
        self.parts.pop(0)

    def hold_part(self) -> None:
        """Take out the first part and what follows of its tree: it was not sent, or not to its end."""
        self._queue.hold_tree(self.part.tree)

    def hold_tree(self, tree: int, is_running: bool) -> None:
        """Take out what is still to be sent of a tree, except for a first part that is running."""
        self._queue.hold_tree(tree, is_running)

    # Renames -----------------------------------------------------------------------------------------

    def take_renames(self) -> tuple[Rename, ...]:
        """Take the hints from the first part: each is followed once."""
        renames = self.part.renames
        self.parts[0] = replace(self.part, renames=())
        return renames

    def make_directories(self, directories: tuple[bytes, ...], renames: tuple[Rename, ...]) -> None:
        """Send what these renames need, with all else of the first part, before they are followed."""
        first, rest = renamed.in_two(self.part, renames, directories, bool(self.frozen_source))
        self.parts[:1] = [first, rest]
        left = {*rest.names, *directories}
        self.current.send = [*directories, *(name for name in self.current.send if name not in left)]
        self._made[first.tree] = directories

    def leave_out(self, done: Mapping[bytes, bool], entered: Set[bytes]) -> None:
        """Send nothing for renames that have come through but the times of directories with new files.

        ``done``: as for ``renamed.without``; ``entered``: these directories.
        """
        tree, results = self.part.tree, self.results
        self._queue.parts, found = renamed.without(self.parts, tree, done)
        big, found_big = renamed.without(results.big, tree, done)
        results.big = [part for part in big if part.names]
        results.arrived += [part for part in (*found, *found_big) if part.names]
        usual = [at for at, part in enumerate(self.parts) if part.tree == tree and renamed.is_usual(part)]
        last = max((at for at in usual if self.parts[at].names), default=0)
        self._preparer.note_entered(entered)
        names = tuple(dict.fromkeys((*self.parts[last].names, *sorted(entered))))
        self.parts[last] = replace(self.parts[last], names=names)
        left = {*self.current.send, *entered}
        self.current.send = [name for name in self.part.names if name in left]

    def _check_directories(self, lacking: Iterable[bytes]) -> None:
        """Follow no renames if what they need was not made: something else may be in its place."""
        tree = self.part.tree
        if not set(self._made.pop(tree, ())).isdisjoint(lacking):
            self._queue.parts = [
                replace(part, renames=()) if part.tree == tree else part for part in self.parts
            ]

    # After a transfer --------------------------------------------------------------------------------

    def allow_removals(self) -> None:
        """The node may lose what was uncounted."""
        del self._preparer.uncounted[self.part.tree]

    def take_answer(self, lacking: Mapping[bytes, bool], is_all: bool, source: str, big_size: int) -> None:
        """The first part was a question: send what the node lacks before it is switched to anything.

        ``lacking``: the names, and whether each is a link, which is switched to; ``is_all``: whether the node
        lacks nothing else. OSError if the tree is not there.
        """
        asked = self.parts.pop(0)
        new = tuple(name for name in sorted(lacking) if not lacking[name])
        if not asked.full:
            new = tuple(name for name in asked.names if name in lacking)
            self._queue.parts = order.without(self.parts, asked.tree, Step.SWITCHED, new)
        elif not is_all or b"" in lacking or frozen.any_larger(source, new, big_size):
            self.parts.insert(0, replace(asked, step=Step.NEW))
            return
        elif lacking.keys() >= set(os.listdir(os.fsencode(source))):
            return  # the node is empty: nothing can be led to too early
        if new:
            self._preparer.note_in_order(asked.tree)
            self.parts.insert(0, replace(asked, full=False, names=new, step=Step.NEW))

    def look_at_directories(self) -> None:
        """Have the directories of the first part's names looked at again.

        At its end rsync gives them the times that they had at its start; the first lane has been there since.
        """
        names = dict.fromkeys(filter(None, map(directory_of, self.current.send)))
        if names:
            self.results.later.append(Part(self.part.tree, False, tuple(names)))

    def came_through(self, outcome: Outcome, code: int) -> None:
        """The first part is done, as far as it could be."""
        lacking = (
            name for part in (*outcome.due, *outcome.instead) for name in part.names or self.part.names
        )
        self._check_directories(lacking)
        self.results.came_through(self.part, outcome, code)
        self._send_instead(outcome)

    def failed(self, outcome: Outcome, code: int, was_fed: bool) -> None:
        """The first part, or what is left of it, has to be sent again."""
        self._is_untidy = self._is_untidy or outcome.untidy
        self._queue.is_ahead = self._queue.is_ahead or was_fed
        self.interrupted = self.interrupted or (outcome.untidy and was_fed)
        if outcome.instead:
            # What tidies is among what was sent. Made anew, it would find again what was put aside.
            self._is_untidy = outcome.untidy
            self.results.failed(outcome.due, code, outcome.reason)
            self._send_instead(outcome)

    def _send_instead(self, outcome: Outcome) -> None:
        self._queue.replace_part(outcome.instead)
        self._arrival.note_mending(outcome.instead)

    def superseded(self, was_fed: bool) -> None:
        """The first part has to be sent again because we have ended its transfer."""
        self._is_untidy = True
        self._queue.is_ahead = self._queue.is_ahead or was_fed
        self.interrupted = self.interrupted or was_fed

    def give_up(self, code: int, reason: str) -> None:
        """Try nothing again: what is left has failed, or just the first part if rsync did not even start."""
        count = len(self.parts) if code else 1
        self.results.failed(self.parts[:count], code, reason)
        del self.parts[:count]
