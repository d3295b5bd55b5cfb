"""What became of a batch: what has arrived, what has failed, and what has to be sent after it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from inosync.changes import OwedNames, Part
from inosync.nodes.messages import Leftovers
from inosync.rsync.outcome import Outcome
from inosync.worker import order


class Results:
    """The lists grow while the parts of a batch are sent."""

    def __init__(self) -> None:
        self.arrived: list[Part] = []  # for hooks
        self.held: dict[int, None] = {}  # trees of which something was not sent because of their root
        self.bytes = 0  # sent and received, as rsync says
        self.code = 0  # the exit code that left something undone
        self.worry = ""  # why it was left undone
        # As in ``Leftovers``
        self.due: list[Part] = []
        self.outdated: list[Part] = []
        self.big: list[Part] = []
        self.waiting: list[Part] = []
        self.later: list[Part] = []
        self.behind: list[Part] = []

    def came_through(self, part: Part, outcome: Outcome, code: int) -> None:
        """A part is done, as far as it could be."""
        if outcome.due or outcome.reason:
            self.failed(outcome.due, code, outcome.reason)
        left = (*outcome.due, *outcome.instead)
        if not left:  # nearly always: nothing is copied
            if part.full or part.names:  # all of it may be left to a later batch while rsync connects
                self.arrived.append(part)
            return
        lacking = {name for other in left for name in other.names}
        names = tuple(name for name in part.names if name not in lacking)
        is_full = part.full and not outcome.instead
        if is_full or (names and not any(other.full for other in left)):
            self.arrived.append(replace(part, names=names))

    def failed(self, parts: Iterable[Part], code: int, reason: str) -> None:
        """These parts stay due."""
        self.code, self.worry = code, reason
        self.due += parts

    def lacking(self, cut: Sequence[Part]) -> OwedNames:
        """Return what the node lacks of a tree; ``cut``: the parts of that tree, as the master cut them.

        A second look pays nothing: what has failed is owed until its own next try.
        """
        if not cut:
            return OwedNames()
        tree = cut[0].tree
        sent = {name for part in cut for name in part.names if name not in part.again}
        failed, big = (
            {name for part in parts if part.tree == tree for name in part.names}
            for parts in (self.due, [*self.big, *self.later])
        )
        return order.lacking(cut[0].owed, sent, failed, big)

    def leftovers(self) -> Leftovers:
        """Return what is to be sent after the batch."""
        kinds = (self.due, self.outdated, self.big, self.waiting, self.later, self.behind)
        return Leftovers(*map(tuple, kinds))
