"""One batch on its way: what of it is still to be done, and what became of the rest."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from inosync.filters.rules import Excluded, Rules
from inosync.messages import Batch, Part
from inosync.rsync.argv import EVERYTHING, TransferSettings
from inosync.rsync.names import CurrentNames, current_names
from inosync.rsync.options import one_file_system
from inosync.rsync.outcome import Outcome
from inosync.rsync.source import SourceState, check_source
from inosync.system import spool
from inosync.text import plural


class BatchRun:
    """The books about a batch; the worker runs the transfers. OSError if its file is gone."""

    def __init__(self, batch: Batch, now: float) -> None:
        self.batch = batch
        self.started = now
        self.parts = list(cast(tuple[Part, ...], spool.unpack(batch.payload, batch.file)))
        """What has not come through yet; the first is at work."""
        self.due: list[Part] = []
        """What rsync complained of, to be reported with the batch's end."""
        self.arrived: list[Part] = []
        """What has come through, for hooks."""
        self.look = CurrentNames()
        """What the names of the first part have become; nothing for FULL."""
        self.attempt = 0
        """Tries of the first part that failed, in a row ..."""
        self.reason = ""
        """... and why the last one did."""
        self.needs_slot = False
        """Whether the next try needs a slot."""
        self.refused_beside_warm = ""
        """Why a connection was refused while others to the same node were kept."""
        self.outdated: list[Part] = []
        """Files that may have changed without another time; they are sent once more."""
        self.bytes = 0
        """What rsync said that it had sent and received."""
        self.code, self.worry = 0, ""
        """The exit code that left something undone, and what that is; nothing yet."""
        self.percent: int | None = None
        self.held: dict[int, None] = {}
        """Trees of which something was not sent since their root was not what it had to be."""
        self.dropped = False
        """Whether the transfer that runs was ended for that."""
        self.delete_nothing = False
        """Whether the first part, a FULL, may delete nothing: its source is empty, perhaps by a loss."""
        self._untidy = batch.tidy
        """Whether rsync may have left temporary files on the node."""
        self.cut_off = batch.tidy
        """Whether a transfer of it was cut off that the node may still be at work on."""

    @property
    def part(self) -> Part:
        """What is to be done next."""
        return self.parts[0]

    @property
    def names(self) -> Sequence[bytes]:
        """What rsync is to be told of it."""
        return EVERYTHING if self.part.full else self.look.send

    def may_begin(self, settings: TransferSettings, excluded: Excluded) -> bool:
        """Look at the root, before a transfer is started; False if the part must not be sent."""
        found = check_source(settings.source, self.part.source, excluded)
        self.delete_nothing = found is SourceState.EMPTY and self.part.full
        return found is SourceState.OK or self.delete_nothing

    def hold(self, tree: int, but: int = 0) -> None:
        """Take what is to be sent of a tree out of the batch, except for the first ``but`` parts."""
        left = [part for part in self.parts[but:] if part.tree != tree]
        if len(left) < len(self.parts) - but:
            self.held[tree] = None
        self.parts[but:] = left

    def drop(self) -> None:
        """The first part was not sent, or not to its end."""
        self.held[self.parts.pop(0).tree] = None
        self.dropped, self.attempt = False, 0

    def has_something(self, settings: TransferSettings, rules: Rules) -> bool:
        """Look at the part as the tree is now; False if nothing of it is left to do.

        OSError if the tree is not there.
        """
        self.look = CurrentNames()
        if self.part.full:
            os.stat(settings.source)  # or else rsync would end in the same way as for wrong usage
        else:
            self.look = current_names(
                settings.source,
                self.part.names,
                rules.excluded,
                self._untidy,
                settings.list_missing,
                one_file_system(settings.extra),
            )
            if self.look.unsendable:
                self.worry = _too_long(self.look.unsendable)
        return self.part.full or bool(self.look.send)

    def came_through(self, outcome: Outcome, code: int) -> None:
        """The part is done, as far as it could be."""
        if outcome.due or outcome.reason:
            self.code, self.worry = code, outcome.reason
        self.due += outcome.due
        self._note_arrived(outcome)
        self.parts[:1] = outcome.instead
        self.attempt = 0

    def _note_arrived(self, outcome: Outcome) -> None:
        if outcome.instead:
            return
        if not outcome.due:  # nearly always: nothing is copied
            self.arrived.append(self.part)
            return
        lacking = {name for part in outcome.due for name in part.names}
        names = tuple(name for name in self.part.names if name not in lacking)
        none = any(part.full for part in outcome.due)
        if self.part.full or (names and not none):
            self.arrived.append(replace(self.part, names=names))

    def failed(self, outcome: Outcome, code: int, fed: bool) -> None:
        """The part, or what is left of it, has to be done again. ``fed``: rsync had been told of it."""
        self._untidy = self._untidy or outcome.untidy
        self.cut_off = self.cut_off or (outcome.untidy and fed)
        if outcome.instead:
            # What tidies is among what was sent. Made anew, it would find again what was put aside.
            self._untidy = outcome.untidy
            self.code, self.worry = code, outcome.reason
            self.due += outcome.due
            self.parts[:1] = outcome.instead

    def interrupted(self, fed: bool) -> None:
        """The part has to be done again through no fault of anybody's."""
        self._untidy = True
        self.cut_off = self.cut_off or fed


def _too_long(names: list[bytes]) -> str:
    name = os.fsdecode(names[0])
    return f"{plural(len(names), 'name')} too long for rsync, such as {name[:60]}..."
