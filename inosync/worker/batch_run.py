"""A batch on its way: which parts of it are still to be sent, and in which order."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from typing import cast

from inosync.changes import Lane, OwedNames, Part, Rename, Step
from inosync.filters.rules import Excluded, Rules
from inosync.nodes.messages import Batch, Leftovers
from inosync.rsync.argv import EVERYTHING, TransferSettings
from inosync.rsync.names import CurrentNames, current_names, listing
from inosync.rsync.options import one_file_system
from inosync.rsync.outcome import Outcome
from inosync.rsync.source import SourceState, check_source
from inosync.system import spool
from inosync.text import plural
from inosync.worker import frozen, order, removals, renamed
from inosync.worker.lanes import UnderWay, directory_of
from inosync.worker.results import Results
from inosync.worker.switches import Switch


class BatchRun:
    """Decides what is sent next of a batch; the sender runs the transfers. OSError if its file is gone.

    ``copies``: the path for directories with copies of what is switched to; empty if there are to be none.
    """

    def __init__(self, batch: Batch, now: float, copies: str = "") -> None:
        self.batch, self.started_at = batch, now
        self._is_first = batch.lane is Lane.FIRST
        self.results = Results()
        self._cut = cast(tuple[Part, ...], spool.unpack(batch.payload, batch.file))
        self.parts = list(self._cut)
        """What has not come through yet. The first part is at work."""
        self._in_order: set[int] = set()  # trees of which the parts are as ``order`` wants them
        self.current = CurrentNames()  # what the names of the first part are now; nothing for FULL
        self.delete_nothing = False  # the first part is FULL, and its source is empty, perhaps by a loss
        self._copies = copies
        self._switches: defaultdict[int, Switch] = defaultdict(Switch)  # by tree
        self._is_untidy = batch.tidy_since is not None  # rsync may have left temporary files on the node
        self._is_ahead = batch.is_ahead or self._is_untidy  # the node may have more than was confirmed
        self._made: dict[int, tuple[bytes, ...]] = {}  # by tree, directories made for renames to come
        self._uncounted: dict[int, tuple[bytes, ...]] = {}  # by tree, what is gone: the node is to count it
        self._entered: set[bytes] = set()  # directories of renamed files, for their times
        self._mending: set[tuple[int, bytes]] = set()
        """Trees and relists for what was refused by its name: they wait for nothing."""
        self.interrupted = self._is_untidy  # the node may still be at work on a transfer that was ended

    @property
    def part(self) -> Part:
        """What is to be sent next."""
        return self.parts[0]

    @property
    def _switch(self) -> Switch:
        """What is switched to in the tree of the first part."""
        return self._switches[self.part.tree]

    @property
    def names(self) -> Sequence[bytes]:
        """What rsync is fed for it."""
        return EVERYTHING if self.part.full else self.current.send

    @property
    def uncounted(self) -> tuple[bytes, ...]:
        """What of the tree of the first part the node has to count before anything is sent."""
        return self._uncounted.get(self.part.tree, ())

    def counted(self) -> None:
        """The node may lose it."""
        del self._uncounted[self.part.tree]

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
                self.results.later.append(self.part)
                return False
            os.stat(settings.source)  # without it rsync would end in the same way as for wrong usage
            if self.part.step is Step.CHANGED and not self.delete_nothing:
                self.parts[:1] = order.in_two(self.part)
            return True

        def look(names: Iterable[bytes]) -> CurrentNames:
            # What was big when it was put aside is not handed back for a limit that has grown since. Where
            # nothing is sent, big files need not be found.
            size = big_size if self._is_first else big_size // 2
            size = 0 if order.only_removes(self.part) else size
            is_one = one_file_system(settings.extra)
            return current_names(settings.source, names, rules.excluded, settings.list_missing, is_one, size)

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
            self.results.worry = f"{plural(len(names), 'name')} too long for rsync, such as {example}..."
        if self._is_untidy and self._is_first and self.part.step is not Step.REMOVED:
            self._add(Step.REMOVED, order.tidying(self.current.send))
        return bool(self.current.send)

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
        own = [part for part in self.parts if part.tree == first.tree and renamed.is_usual(part)]
        hints = {name: part.step for part in own for name in part.names}
        renames = tuple(rename for part in own for rename in part.renames)
        again = frozenset[bytes]().union(*(part.again for part in own))
        wanted = order.spread(
            hints,
            lambda wire: listing(settings.source, wire, order.MAX_LISTED),
            renames,
            again,
            self._is_ahead,
        )
        # What is put aside may be anything by then.
        self.parts[0] = replace(first, names=tuple(wanted.hints), step=Step.CHANGED, renames=renames)
        self.current = look(wanted.hints)
        if first.allowance is not None and (gone := removals.to_be_counted(self.current, renames)):
            self._uncounted[first.tree] = gone
        self._switch.again = wanted.again
        self._leave_out_newer(settings.source)
        self.current.big = order.big_among(wanted, self.current.big)
        self._put_aside(self.current, other)
        steps, waiting = order.in_steps(wanted, self.current, self._is_ahead)
        self._let_wait(waiting)
        files = set(steps.get(Step.SWITCHED, ())).difference(self.current.links)
        self._switch.unknown = frozenset(name for name in files if wanted.hints.get(name) is Step.UNKNOWN)
        steps = self._freeze(settings, steps)
        by_step = order.renames_by_step(self.part.renames, steps)
        self.parts = [part for part in self.parts[1:] if part not in own]
        for step, names in (steps or {Step.CHANGED: []}).items():
            followed = by_step.get(step, ())
            part = replace(first, names=tuple(names), step=step, renames=followed, again=wanted.again)
            self.parts = order.inserted(self.parts, part)

    def _freeze(self, settings: TransferSettings, steps: dict[Step, list[bytes]]) -> dict[Step, list[bytes]]:
        """Copy what is switched to; return the steps without what has to wait for changes to come."""
        names, is_alone = steps.get(Step.SWITCHED), len(steps) == 1
        if not names:
            return steps
        self._switch.is_alone = is_alone
        if self._copies and not is_alone:  # that goes at once
            self._switch.copy(settings, names, f"{self._copies}-{self.part.tree}")
        # After they were copied, because a copy must not be newer, either.
        late = self._newer(settings.source, self._there(names), is_alone)
        if late:
            # What they lead to now may be among those; and what is gone by now they may have led to before.
            late |= set(steps.get(Step.REMOVED, ()))
            self._let_wait(late)
            self._switch.removals = self.results.waiting
            steps = {step: [name for name in names if name not in late] for step, names in steps.items()}
            steps = {step: names for step, names in steps.items() if names}
        if is_alone:
            return steps
        before = [n for step in sorted(steps) if step < Step.SWITCHED for n in steps[step]]
        before = [name for name in before if name not in self.current.missing and name != b"./"]
        links = [name for name in steps.get(Step.SWITCHED, ()) if name in self.current.links]
        self._switch.note_basis(settings.source, links, before)
        return steps

    def _there(self, names: Iterable[bytes]) -> Iterable[bytes]:
        return (name for name in names if name not in self.current.missing)

    def _newer(self, source: str, names: Iterable[bytes], is_alone: bool = False) -> set[bytes]:
        """Return the names that have changed after the changes of the batch.

        What has changed within the same tick of the clock for files is not known to be among these. It counts
        as newer, unless it goes alone: most isolated changes are seen within their tick, and must not wait.
        """
        at = self.batch.complete_at
        return frozen.newer(source, names, at + is_alone, time.time_ns()) if at else set()

    def leave_newer(self, source: str) -> None:
        """Leave to a later batch what has become newer, or is gone, since ``has_something``.

        rsync has connected meanwhile. OSError if the tree is not there.
        """
        part = self.part
        if part.full or self.frozen_source or not (self._is_first or part.ignore_times):
            return
        if part.ignore_times:
            late = self._newer(source, part.names)
            self._leave(late, self.results.outdated, part.step)
        elif part.step < Step.SWITCHED:
            self._leave_out_newer(source)
            self._leave(frozen.gone(source, self._there(self.current.send)), self.results.waiting)
        elif part.step is Step.SWITCHED:
            if late := self._newer(source, self._there(part.names), self._switch.is_alone):
                unknown = self._switch.unknown.intersection(late)
                self._leave(late - unknown, self.results.waiting)
                self._leave(unknown, self.results.waiting, Step.UNKNOWN)
                self._switch.removals = self.results.waiting
        else:
            self._hold_removals(source)
        left = set(part.names).difference(self.part.names)
        self.current.send = [name for name in self.current.send if name not in left]

    def _leave_out_newer(self, source: str) -> None:
        """Leave to a later second look what only this one has found, and what is newer than the batch."""
        names = self._switch.again.intersection(self._there(self.current.send))
        if names and (newer := self._newer(source, names)):
            self.current.send = [name for name in self.current.send if name not in newer]
            kept = tuple(name for name in self.part.names if name not in newer)
            self.results.outdated.append(
                replace(self._named(newer), step=Step.SWITCHED, again=frozenset(newer))
            )
            self.parts[0] = replace(self.part, names=kept)

    def _hold_back(self, source: str) -> None:
        """Leave to a later batch what must not arrive before names that have failed, or are big."""
        part = self.part
        owed = self.results.lacking([each for each in self._cut if each.tree == part.tree])
        if owed == OwedNames():
            return
        led_to = self._switch.led_to(source, part) if part.step is Step.SWITCHED else {}
        names = [name for name in part.names if (part.tree, name) not in self._mending]
        behind = order.behind(names, led_to, part.step, owed)
        if behind:
            self._leave(behind, self.results.behind)
        # A removal may make the room that something hopeless needs.
        hopeful = replace(owed, hopeless=())
        if behind and part.step is Step.SWITCHED and order.behind(behind, led_to, part.step, hopeful):
            self._switch.removals = self.results.behind

    def _hold_removals(self, source: str) -> None:
        """Leave to a later batch the removals of what links that wait may lead to on the node.

        That is what is gone from a directory since the batch was cut, too: its relist would remove it; and a
        directory that is gone itself.
        """
        if self.part.step is not Step.REMOVED:
            return
        if (place := self._switch.removals) is not None:
            self._leave(self.part.names, place)
        elif relists := [name for name in self.part.names if name.endswith(b"/")]:
            self._leave(self._newer(source, relists), self.results.waiting)

    def _leave(self, names: Collection[bytes], place: list[Part], step: Step = Step.REMOVED) -> None:
        """Take names out of the first part: they are for a later batch."""
        if names:
            part, left = self.part, frozenset(names)
            place.append(replace(self._named(names), step=step))
            renames = tuple(rename for rename in part.renames if rename.new not in left)
            kept = tuple(name for name in part.names if name not in left)
            self.parts[0] = replace(part, names=kept, renames=renames)

    def _has_its_basis(self, source: str) -> bool:
        """Return whether what was sent before the first part was there to the end.

        If not, all that follows of the tree waits: the next release has taken its place by now.
        """
        tree = self.part.tree
        if self._switch.has_its_basis(source):
            return True
        late = [part for part in self.parts if part.tree == tree and part.step >= Step.SWITCHED]
        self._let_wait([name for part in late for name in part.names])
        self._switch.removals = self.results.waiting
        first = replace(late[0], names=(), renames=())
        self.parts = [first, *(part for part in self.parts if part not in late)]
        return False

    def _let_wait(self, names: Collection[bytes]) -> None:
        """Send these when the changes that follow are sent. What is gone by then was removed."""
        unknown = self._switch.unknown.intersection(names)
        for step, found in ((Step.UNKNOWN, unknown), (Step.REMOVED, set(names) - unknown)):
            if found:
                self.results.waiting.append(replace(self._named(found), step=step))

    def _is_frozen(self) -> bool:
        """Return whether copies are sent for the first part.

        What of it has no copy becomes a part of its own.
        """
        own = self._switch.copied(self.part)
        if own and own != self.part.names:
            copied = frozenset(own)
            rest = self._named(name for name in self.part.names if name not in copied)
            self.parts[:1] = [replace(self.part, names=own), rest]
        return bool(own)

    @property
    def frozen_source(self) -> str:
        """The directory with the copies that are sent for the first part; empty if it is the tree's own."""
        return self._switch.source(self.part)

    @property
    def has_more(self) -> bool:
        """Whether anything but the first part is, or stays, to be sent; or that is FULL, or was cut off.

        In the second lane that is not known.
        """
        results = self.results
        left = results.held or results.code or results.leftovers() != Leftovers()
        is_last = len(self.parts) == 1 and self._is_first and not self.part.full
        return bool(left or not is_last or self.interrupted)

    def end(self) -> None:
        for switch in self._switches.values():
            switch.end()

    def _look_again(self, current: CurrentNames, other: UnderWay | None) -> None:
        """Leave to a later part what has become something else since the parts were put in order."""
        self._put_aside(current, other)
        self.current, names = current, current.send
        self.current.send = []
        relists = frozenset(name for name in self.part.names if name.endswith(b"/"))
        come_back = []
        for name in names:
            step = order.step_now(name, self.part.step, current, self._is_ahead)
            if step is None or (name in current.missing and name + b"/" in relists):
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
            self.results.outdated.append(self._named(come_back))

    def _add(self, step: Step, names: Sequence[bytes]) -> None:
        if names:
            part = replace(self._named(names), step=step, ignore_times=False)
            self.parts = order.inserted(self.parts, part)

    def _put_aside(self, found: CurrentNames, other: UnderWay | None) -> None:
        """Take out what belongs to the other lane, and what that stands in the way of."""
        blocked = [name for name in found.send if other.is_in_the_way(name)] if other is not None else []
        if found.big:
            (self.results.big if self._is_first else self.results.later).append(self._named(found.big))
        if blocked:
            self.results.later.append(self._named(blocked))
        if other is not None and self.part.renames:
            renames = (one for one in self.part.renames if not (other.holds(one.old) or other.holds(one.new)))
            self.parts[0] = replace(self.part, renames=tuple(renames))
        if aside := {*found.big, *blocked}:
            found.send = [name for name in found.send if name not in aside]
            found.missing -= aside
            names = tuple(name for name in self.part.names if name not in aside)
            self.parts[0] = replace(self.part, names=names)

    def _named(self, names: Iterable[bytes]) -> Part:
        return replace(self.part, names=tuple(names), renames=())

    def look_at_directories(self) -> None:
        """Have the directories of the first part's names looked at again.

        At its end rsync gives them the times that they had at its start; the first lane has been there since.
        """
        names = dict.fromkeys(filter(None, map(directory_of, self.current.send)))
        if names:
            self.results.later.append(Part(self.part.tree, False, tuple(names)))

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
        self.parts, found = renamed.without(self.parts, tree, done)
        big, found_big = renamed.without(results.big, tree, done)
        results.big = [part for part in big if part.names]
        results.arrived += [part for part in (*found, *found_big) if part.names]
        usual = [at for at, part in enumerate(self.parts) if part.tree == tree and renamed.is_usual(part)]
        last = max((at for at in usual if self.parts[at].names), default=0)
        self._entered |= entered
        names = tuple(dict.fromkeys((*self.parts[last].names, *sorted(entered))))
        self.parts[last] = replace(self.parts[last], names=names)
        left = {*self.current.send, *entered}
        self.current.send = [name for name in self.part.names if name in left]

    def _check_directories(self, lacking: Iterable[bytes]) -> None:
        """Follow no renames if what they need was not made: something else may be in its place."""
        tree = self.part.tree
        if not set(self._made.pop(tree, ())).isdisjoint(lacking):
            self.parts = [replace(part, renames=()) if part.tree == tree else part for part in self.parts]

    def answered(self, lacking: Mapping[bytes, bool], is_all: bool, source: str, big_size: int) -> None:
        """The first part was a question: send what the node lacks before it is switched to anything.

        ``lacking``: the names, and whether each is a link, which is switched to; ``is_all``: whether the node
        lacks nothing else. OSError if the tree is not there.
        """
        asked = self.parts.pop(0)
        new = tuple(name for name in sorted(lacking) if not lacking[name])
        if not asked.full:
            new = tuple(name for name in asked.names if name in lacking)
            self.parts = [
                self._without(part, new) if part.tree == asked.tree and part.step is Step.SWITCHED else part
                for part in self.parts
            ]
        elif not is_all or b"" in lacking or frozen.any_larger(source, new, big_size):
            self.parts.insert(0, replace(asked, step=Step.NEW))
            return
        elif lacking.keys() >= set(os.listdir(os.fsencode(source))):
            return  # the node is empty: nothing can be led to too early
        if new:
            self._in_order.add(asked.tree)
            self.parts.insert(0, replace(asked, full=False, names=new, step=Step.NEW))

    def _without(self, part: Part, names: Collection[bytes]) -> Part:
        left = frozenset(names)
        return replace(part, names=tuple(name for name in part.names if name not in left))

    def skip_part(self) -> None:
        """Take out the first part: there is nothing of it to send."""
        self._check_directories(self._made.get(self.part.tree, ()))
        self.parts.pop(0)

    def hold_part(self) -> None:
        """Take out the first part and what follows of its tree: it was not sent, or not to its end."""
        tree = self.part.tree
        self.results.held[tree] = None
        self.parts = [part for part in self.parts if part.tree != tree]

    def hold_tree(self, tree: int, is_running: bool) -> None:
        """Take out what is still to be sent of a tree, except for a first part that is running."""
        running, waiting = self.parts[:is_running], self.parts[is_running:]
        left = [part for part in waiting if part.tree != tree]
        if len(left) < len(waiting):
            self.results.held[tree] = None
        self.parts = running + left

    def came_through(self, outcome: Outcome, code: int) -> None:
        """The first part is done, as far as it could be."""
        lacking = (
            name for part in (*outcome.due, *outcome.instead) for name in part.names or self.part.names
        )
        self._check_directories(lacking)
        self.results.came_through(self.part, outcome, code)
        self._replace_first(outcome)

    def _replace_first(self, outcome: Outcome) -> None:
        """Run something in place of the first part; what is not of big files is for the first lane."""
        self.parts[:1] = outcome.instead if self._is_first else ()
        for part in outcome.instead:
            self._mending.update((part.tree, name) for name in part.names if name.endswith(b"/"))
        self.results.later += () if self._is_first else outcome.instead

    def give_up(self, code: int, reason: str) -> None:
        """Try nothing again: what is left has failed, or just the first part if rsync did not even start."""
        count = len(self.parts) if code else 1
        self.results.failed(self.parts[:count], code, reason)
        del self.parts[:count]

    def failed(self, outcome: Outcome, code: int, was_fed: bool) -> None:
        """The first part, or what is left of it, has to be sent again."""
        self._is_untidy = self._is_untidy or outcome.untidy
        self._is_ahead = self._is_ahead or was_fed
        self.interrupted = self.interrupted or (outcome.untidy and was_fed)
        if outcome.instead:
            # What tidies is among what was sent. Made anew, it would find again what was put aside.
            self._is_untidy = outcome.untidy
            self.results.failed(outcome.due, code, outcome.reason)
            self._replace_first(outcome)

    def superseded(self, was_fed: bool) -> None:
        """The first part has to be sent again because we have ended its transfer."""
        self._is_untidy = True
        self._is_ahead = self._is_ahead or was_fed
        self.interrupted = self.interrupted or was_fed
