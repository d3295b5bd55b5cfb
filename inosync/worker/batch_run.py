"""A batch on its way: what of it is still to be sent, and what became of the rest."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from typing import cast

from inosync.filters.rules import Excluded, Rules
from inosync.messages import Batch, Lane, Leftovers, OwedNames, Part, Rename, Step
from inosync.rsync.argv import EVERYTHING, TransferSettings
from inosync.rsync.names import CurrentNames, current_names, listing
from inosync.rsync.options import one_file_system
from inosync.rsync.outcome import Outcome
from inosync.rsync.source import SourceState, check_source
from inosync.system import spool
from inosync.text import plural
from inosync.worker import frozen, order
from inosync.worker.frozen import Basis, Frozen
from inosync.worker.lanes import UnderWay, directory_of


class BatchRun:
    """Keeps the books about a batch; the sender runs the transfers. OSError if the batch's file is gone.

    ``copies``: the path for directories with copies of what is switched to; empty if there are to be none.
    """

    def __init__(self, batch: Batch, now: float, copies: str = "") -> None:
        self.batch = batch
        self.started_at = now
        self.bytes = 0  # sent and received, as rsync says
        # What is to be sent
        self._cut = cast(tuple[Part, ...], spool.unpack(batch.payload, batch.file))
        self.parts = list(self._cut)
        """What has not come through yet. The first part is at work."""
        self._in_order: set[int] = set()  # trees of which the parts are as ``order`` wants them
        self._in_two: set[int] = set()  # trees that are mirrored in full by two runs
        self.current = CurrentNames()  # what the names of the first part are now; nothing for FULL
        self.delete_nothing = False  # the first part is FULL, and its source is empty, perhaps by a loss
        self.is_halted = False  # the transfer that runs was ended because its tree is halted
        self._copies = copies
        self._frozen: dict[int, Frozen] = {}  # by tree, the copies
        self._basis: dict[int, Basis] = {}  # by tree, what has to be there still when it is switched to
        # By tree: links wait, and lead to what is to be removed; the removals wait with these
        self._unswitched: dict[int, list[Part]] = {}
        self._is_untidy = batch.tidy_since is not None  # rsync may have left temporary files on the node
        self._made: dict[int, tuple[bytes, ...]] = {}  # by tree, directories made for renames to come
        self._entered: set[bytes] = set()  # directories of renamed files, for their times
        # What became of it
        self.due: list[Part] = []  # what rsync complained of
        self.outdated: list[Part] = []  # names that may have changed again; sent once more
        self.big: list[Part] = []  # for the second lane
        self.waiting: list[Part] = []  # what has to wait for something else
        self.later: list[Part] = []  # what the other lane stands in the way of
        self.behind: list[Part] = []  # what must not arrive before names that are owed
        self.arrived: list[Part] = []  # for hooks
        self.held: dict[int, None] = {}  # trees of which something was not sent because of their root
        self.code = 0  # the exit code that left something undone
        self.worry = ""  # what that is
        self.interrupted = self._is_untidy  # the node may still be at work on a transfer that was ended
        # The first part, if it has failed
        self.attempts = 0  # failures in a row
        self.needs_slot = False  # the next try needs a slot
        self.refused_beside_warm = ""  # why a connection was refused while warm ones were kept
        # The first part, in the second lane
        self.first_lane_transfers = 0  # how many there had been in the first lane when it was started

    @property
    def part(self) -> Part:
        """What is to be sent next."""
        return self.parts[0]

    @property
    def names(self) -> Sequence[bytes]:
        """What rsync is fed for it."""
        return EVERYTHING if self.part.full else self.current.send

    @property
    def has_added(self) -> bool:
        """Whether the first part is the second run of a full mirror, which finds little to do."""
        return self.part.full and self.part.step is Step.REMOVED and self.part.tree in self._in_two

    def may_begin(self, settings: TransferSettings, excluded: Excluded) -> bool:
        """Check the root before a transfer starts; False if the part must not be sent."""
        found = check_source(settings.source, self.part.source, excluded)
        self.delete_nothing = found is SourceState.EMPTY and self.part.full
        return found is SourceState.OK or self.delete_nothing

    def has_something(
        self, settings: TransferSettings, rules: Rules, big_size: int = 0, other: UnderWay | None = None
    ) -> bool:
        """Find out what the names are now; False if nothing of the part is left to send.

        ``big_size``: bytes above which a file belongs to the second lane; ``other``: what runs of the tree in
        the other lane. OSError if the tree is not there.
        """
        self.current = CurrentNames()
        if self.part.full:
            if other is not None:
                self.later.append(self.part)
                return False
            os.stat(settings.source)  # without it rsync would end in the same way as for wrong usage
            if self.part.step is Step.CHANGED and not self.delete_nothing:
                self._in_two.add(self.part.tree)
                self.parts[:1] = order.in_two(self.part)
            return True

        def look(names: Iterable[bytes]) -> CurrentNames:
            # What was big when it was put aside is not handed back for a limit that has grown since. Where
            # nothing is sent, big files need not be found.
            size = big_size if self._is_first else big_size // 2
            size = 0 if order.only_removes(self.part) else size
            return current_names(
                settings.source,
                names,
                rules.excluded,
                settings.list_missing,
                one_file_system(settings.extra),
                size,
            )

        is_first_look = self._is_first and not (self.part.tree in self._in_order or self.part.ignore_times)
        if is_first_look:
            self._in_order.add(self.part.tree)
            self._put_in_order(settings, look, other)
        if self.part.step >= Step.SWITCHED and self._is_first:
            if not self._has_its_basis(settings.source):
                return False
            self._hold_back(settings.source)
            self._hold_removals(settings.source)
        if self._is_frozen() or (is_first_look and not self.part.ignore_times):
            self.current.send = list(self.part.names)
        elif not self._is_first:
            self._look_at_big(look(self.part.names), other)
        else:
            self._look_again(look(self.part.names), other)
        if names := self.current.unsendable:
            example = os.fsdecode(names[0])[:60]
            self.worry = f"{plural(len(names), 'name')} too long for rsync, such as {example}..."
        if self._is_untidy and self._is_first and self.part.step is not Step.REMOVED:
            self._add(Step.REMOVED, order.tidying(self.current.send))
        return bool(self.current.send)

    @property
    def _is_first(self) -> bool:
        return self.batch.lane is Lane.FIRST

    def _look_at_big(self, found: CurrentNames, other: UnderWay | None) -> None:
        found.send, found.big = found.big, found.send
        self._put_aside(found, other)
        self.current = found

    def _put_in_order(
        self,
        settings: TransferSettings,
        look: Callable[[Iterable[bytes]], CurrentNames],
        other: UnderWay | None,
    ) -> None:
        """Put what is to be sent of the tree into its order, by what it is now."""
        first = self.part
        own = [
            part for part in self.parts if part.tree == first.tree and not (part.full or part.ignore_times)
        ]
        hints = {name: part.step for part in own for name in part.names}
        renames = tuple(rename for part in own for rename in part.renames)
        wanted = order.spread(hints, lambda wire: listing(settings.source, wire, order.MAX_LISTED), renames)
        # What is put aside may be anything by then.
        self.parts[0] = replace(first, names=tuple(wanted.hints), step=Step.CHANGED, renames=renames)
        self.current = look(wanted.hints)
        self.current.big = order.big_among(wanted, self.current.big)
        self._put_aside(self.current, other)
        steps, waiting = order.in_steps(wanted, self.current)
        self._let_wait(waiting)
        steps = self._freeze(settings, steps)
        by_step = order.renames_by_step(self.part.renames, steps)
        self.parts = [part for part in self.parts[1:] if part not in own]
        for step, names in (steps or {Step.CHANGED: []}).items():
            part = replace(first, names=tuple(names), step=step, renames=by_step.get(step, ()))
            self.parts = order.inserted(self.parts, part)

    def _freeze(self, settings: TransferSettings, steps: dict[Step, list[bytes]]) -> dict[Step, list[bytes]]:
        """Copy what is switched to; return the steps without what has to wait for changes to come."""
        names, is_alone = steps.get(Step.SWITCHED), len(steps) == 1
        if not names:
            return steps
        late = self._newer(settings.source, names, is_alone)
        if late:
            # What they lead to now may be among those; and what is gone by now they may have led to before.
            late |= set(steps.get(Step.REMOVED, ()))
            self._let_wait(late)
            self._unswitched[self.part.tree] = self.waiting
            steps = {step: [name for name in names if name not in late] for step, names in steps.items()}
            steps = {step: names for step, names in steps.items() if names}
        if is_alone:  # it goes at once
            return steps
        before = [n for step in (Step.NEW, Step.CHANGED) for n in steps.get(step, ())]
        before = [name for name in before if name not in self.current.missing and name != b"./"]
        links = [name for name in steps.get(Step.SWITCHED, ()) if name in self.current.links]
        self._basis[self.part.tree] = frozen.basis(settings.source, links, before)
        if self._copies and steps.get(Step.SWITCHED) and frozen.can_freeze(settings.extra):
            with contextlib.suppress(OSError):  # no room: they are sent as they are
                place = f"{self._copies}-{self.part.tree}"
                self._frozen[self.part.tree] = Frozen(settings.source, place, steps[Step.SWITCHED])
        return steps

    def _newer(self, source: str, names: Iterable[bytes], is_alone: bool) -> set[bytes]:
        """Return the names that have changed after the changes of the batch.

        What has changed within the same tick of the clock for files is not known to be among these. It counts
        as newer, unless it goes alone: most isolated changes are seen within their tick, and must not wait.
        """
        at = self.batch.complete_at
        return frozen.newer(source, names, at + is_alone, time.time_ns()) if at else set()

    def _hold_back(self, source: str) -> None:
        """Leave to a later batch what must not arrive before names that have failed, or are big."""
        part, cut = self.part, [part for part in self._cut if part.tree == self.part.tree]
        sent, failed, big = (
            {name for each in parts if each.tree == part.tree for name in each.names}
            for parts in (cut, self.due, [*self.big, *self.later])
        )
        owed = order.lacking(cut[0].owed if cut else OwedNames(), sent, failed, big)
        if owed == OwedNames():
            return
        led_to = self._led_to(source) if part.step is Step.SWITCHED else {}
        behind = order.behind(part.names, led_to, part.step, owed)
        if behind:
            self._leave(behind, self.behind)
        # A removal may make the room that something hopeless needs.
        hopeful = replace(owed, hopeless=())
        if behind and part.step is Step.SWITCHED and order.behind(behind, led_to, part.step, hopeful):
            self._unswitched[part.tree] = self.behind

    def _led_to(self, source: str) -> dict[bytes, bytes | None]:
        """Return what each name of the first part leads to: of what is copied, the copy is sent."""
        copies = self._frozen.get(self.part.tree)
        found = frozen.targets(source, self.part.names)
        if copies is not None:
            found |= frozen.targets(copies.place, copies.names.intersection(self.part.names))
        return found

    def _hold_removals(self, source: str) -> None:
        """Leave to a later batch the removals of what links that wait may lead to on the node.

        That is what is gone from a directory since the batch was cut, too: its relist would remove it.
        """
        if self.part.step is not Step.REMOVED:
            return
        if (place := self._unswitched.get(self.part.tree)) is not None:
            self._leave(self.part.names, place)
        elif relists := [name for name in self.part.names if name.endswith(b"/")]:
            self._leave(self._newer(source, relists, is_alone=True), self.waiting)

    def _leave(self, names: Collection[bytes], place: list[Part]) -> None:
        """Take names out of the first part: they are for a later batch."""
        if names:
            part, left = self.part, frozenset(names)
            place.append(replace(self._named(tuple(names)), step=Step.REMOVED))
            renames = tuple(rename for rename in part.renames if rename.new not in left)
            kept = tuple(name for name in part.names if name not in left)
            self.parts[0] = replace(part, names=kept, renames=renames)

    def _has_its_basis(self, source: str) -> bool:
        """Return whether what was sent before the first part was there to the end.

        If not, all that follows of the tree waits: the next release has taken its place by now.
        """
        tree = self.part.tree
        basis = self._basis.pop(tree, None)
        if basis is None or frozen.holds(source, basis):
            return True
        late = [part for part in self.parts if part.tree == tree and part.step >= Step.SWITCHED]
        self._let_wait([name for part in late for name in part.names])
        self._unswitched[tree] = self.waiting
        first = replace(late[0], names=(), renames=())
        self.parts = [first, *(part for part in self.parts if part not in late)]
        return False

    def _let_wait(self, names: Collection[bytes]) -> None:
        """Send these when the changes that follow are sent. What is gone by then was removed."""
        if names:
            self.waiting.append(replace(self._named(tuple(names)), step=Step.REMOVED))

    def _is_frozen(self) -> bool:
        """Return whether copies are sent for the first part.

        What of it has no copy becomes a part of its own.
        """
        copies = self._frozen.get(self.part.tree)
        if copies is None or self.part.step is not Step.SWITCHED or self.part.ignore_times:
            return False
        own = [name for name in self.part.names if name in copies.names]
        rest = [name for name in self.part.names if name not in copies.names]
        if own and rest:
            self.parts[:1] = [replace(self.part, names=tuple(own)), self._named(rest)]
        return bool(own)

    @property
    def frozen_source(self) -> str:
        """The directory with the copies that are sent for the first part; empty if it is the tree's own."""
        copies = self._frozen.get(self.part.tree)
        is_frozen = copies is not None and self.part.step is Step.SWITCHED and not self.part.ignore_times
        if copies is None or not is_frozen or not copies.names.issuperset(self.part.names):
            return ""
        return copies.place if self.part.names else ""

    def end(self) -> None:
        """Remove the copies."""
        for copies in self._frozen.values():
            copies.remove()

    def _look_again(self, current: CurrentNames, other: UnderWay | None) -> None:
        """Leave to a later part what has become something else since the parts were put in order."""
        self._put_aside(current, other)
        self.current, names = current, current.send
        self.current.send = []
        come_back = []
        for name in names:
            step = order.step_now(name, self.part.step, current)
            if step is None:
                self._let_wait([name])
            elif step > self.part.step:
                self._add(step, [name])
            elif self.part.step is Step.REMOVED and not (
                step is Step.REMOVED or name.endswith(b"/") or name in self._entered
            ):
                come_back.append(name)  # it is newer than what was to be removed, and a change of its own
            else:
                self.current.send.append(name)
        if come_back:
            self.outdated.append(self._named(come_back))

    def _add(self, step: Step, names: Sequence[bytes]) -> None:
        if names:
            part = replace(self._named(names), step=step, ignore_times=False)
            self.parts = order.inserted(self.parts, part)

    def _put_aside(self, found: CurrentNames, other: UnderWay | None) -> None:
        """Take out what belongs to the other lane, and what that stands in the way of."""
        blocked = [name for name in found.send if other.is_in_the_way(name)] if other is not None else []
        if found.big:
            (self.big if self._is_first else self.later).append(self._named(found.big))
        if blocked:
            self.later.append(self._named(blocked))
        if other is not None and self.part.renames:
            renames = (one for one in self.part.renames if not (other.holds(one.old) or other.holds(one.new)))
            self.parts[0] = replace(self.part, renames=tuple(renames))
        if aside := {*found.big, *blocked}:
            found.send = [name for name in found.send if name not in aside]
            found.missing -= aside
            names = tuple(name for name in self.part.names if name not in aside)
            self.parts[0] = replace(self.part, names=names)

    def _named(self, names: Sequence[bytes]) -> Part:
        return replace(self.part, names=tuple(names), renames=())

    def leftovers(self) -> Leftovers:
        """Return what is to be sent after it."""
        return Leftovers(
            due=tuple(self.due),
            outdated=tuple(self.outdated),
            big=tuple(self.big),
            waiting=tuple(self.waiting),
            later=tuple(self.later),
            behind=tuple(self.behind),
        )

    def look_at_directories(self) -> None:
        """Have the directories of the first part's names looked at again.

        At its end rsync gives them the times that they had at its start; the first lane has been there since.
        """
        names = dict.fromkeys(filter(None, map(directory_of, self.current.send)))
        if names:
            self.later.append(Part(self.part.tree, False, tuple(names)))

    def take_renames(self) -> tuple[Rename, ...]:
        """Take the hints from the first part: each is followed once."""
        renames = self.part.renames
        self.parts[0] = replace(self.part, renames=())
        return renames

    def make_directories(self, directories: tuple[bytes, ...], renames: tuple[Rename, ...]) -> None:
        """Send what these renames need, with all else of the first part, before they are followed."""
        part = self.part
        if self.frozen_source:  # the copies are no place for directories
            first, others = replace(self._named(directories), step=Step.CHANGED), part.names
        else:
            before, others = order.around_renames(part.names, renames, directories)
            first = self._named(tuple(dict.fromkeys((*directories, *before))))
        self.parts[:1] = [first, replace(part, names=others, renames=renames)]
        left = set(others)
        self.current.send = [
            *directories,
            *(name for name in self.current.send if name not in left and name not in directories),
        ]
        self._made[part.tree] = directories

    def done_by_renames(self, done: Mapping[bytes, bool]) -> list[Part]:
        """Return what ``leave_out`` takes out."""
        parts = [part for part in self.parts if part.tree == self.part.tree and self._is_usual(part)]
        return [replace(part, names=order.without_renamed(part, done)[1]) for part in parts]

    def leave_out(self, done: Mapping[bytes, bool], entered: Set[bytes]) -> None:
        """Send nothing for renames that have come through but the times of directories with new files.

        ``done``: as for ``order.without_renamed``; ``entered``: these directories.
        """
        tree = self.part.tree
        found = self._without(self.parts, done) + self._without(self.big, done)
        self.arrived += [self._named(names) for names in found if names]
        self.big = [part for part in self.big if part.names]
        usual = [at for at, part in enumerate(self.parts) if part.tree == tree and self._is_usual(part)]
        last = max((at for at in usual if self.parts[at].names), default=0)
        self._entered |= entered
        names = tuple(dict.fromkeys((*self.parts[last].names, *sorted(entered))))
        self.parts[last] = replace(self.parts[last], names=names)
        left = {*self.current.send, *entered}
        self.current.send = [name for name in self.part.names if name in left]

    def _without(self, parts: list[Part], done: Mapping[bytes, bool]) -> list[tuple[bytes, ...]]:
        """Take out of parts of the tree what has come about by renames; return it."""
        found = []
        for at, part in enumerate(parts):
            if part.tree == self.part.tree and self._is_usual(part):
                names, gone = order.without_renamed(part, done)
                parts[at] = replace(part, names=names)
                found.append(gone)
        return found

    @staticmethod
    def _is_usual(part: Part) -> bool:
        return not (part.full or part.ignore_times)

    def _check_directories(self, lacking: Iterable[bytes]) -> None:
        """Follow no renames if what they need was not made: something else may be in its place."""
        tree = self.part.tree
        if not set(self._made.pop(tree, ())).isdisjoint(lacking):
            self.parts = [replace(part, renames=()) if part.tree == tree else part for part in self.parts]

    def skip_part(self) -> None:
        """Take out the first part: there is nothing of it to send."""
        self._check_directories(self._made.get(self.part.tree, ()))
        self.parts.pop(0)

    def hold_part(self) -> None:
        """Take out the first part and what follows of its tree: it was not sent, or not to its end."""
        tree = self.part.tree
        self.held[tree] = None
        self.parts = [part for part in self.parts if part.tree != tree]
        self.is_halted, self.attempts = False, 0

    def hold_tree(self, tree: int, is_running: bool) -> None:
        """Take out what is still to be sent of a tree, except for a first part that is running."""
        running, waiting = self.parts[:is_running], self.parts[is_running:]
        left = [part for part in waiting if part.tree != tree]
        if len(left) < len(waiting):
            self.held[tree] = None
        self.parts = running + left

    def came_through(self, outcome: Outcome, code: int) -> None:
        """The first part is done, as far as it could be."""
        if outcome.due or outcome.reason:
            self.code, self.worry = code, outcome.reason
        self.due += outcome.due
        lacking = (
            name for part in (*outcome.due, *outcome.instead) for name in part.names or self.part.names
        )
        self._check_directories(lacking)
        self._note_arrived(outcome)
        self._replace_first(outcome)
        self.attempts = 0

    def _replace_first(self, outcome: Outcome) -> None:
        """Run something in place of the first part; what is not of big files is for the first lane."""
        self.parts[:1] = outcome.instead if self._is_first else ()
        self.later += () if self._is_first else outcome.instead

    def give_up(self, code: int, reason: str) -> None:
        """Try nothing again: what is left has failed, or just the first part if rsync did not even start."""
        self.code, self.worry = code, reason
        count = len(self.parts) if code else 1
        self.due += self.parts[:count]
        del self.parts[:count]

    def _note_arrived(self, outcome: Outcome) -> None:
        left = (*outcome.due, *outcome.instead)
        if not left:  # nearly always: nothing is copied
            self.arrived.append(self.part)
            return
        lacking = {name for part in left for name in part.names}
        names = tuple(name for name in self.part.names if name not in lacking)
        is_full = self.part.full and not outcome.instead
        if is_full or (names and not any(part.full for part in left)):
            self.arrived.append(replace(self.part, names=names))

    def failed(self, outcome: Outcome, code: int, was_fed: bool) -> None:
        """The first part, or what is left of it, has to be sent again."""
        self._is_untidy = self._is_untidy or outcome.untidy
        self.interrupted = self.interrupted or (outcome.untidy and was_fed)
        if outcome.instead:
            # What tidies is among what was sent. Made anew, it would find again what was put aside.
            self._is_untidy = outcome.untidy
            self.code, self.worry = code, outcome.reason
            self.due += outcome.due
            self._replace_first(outcome)

    def superseded(self, was_fed: bool) -> None:
        """The first part has to be sent again because we have ended its transfer."""
        self._is_untidy = True
        self.interrupted = self.interrupted or was_fed
