"""Keeps the state of the daemon on disk, so that the next start needs no full mirrors (``resume``)."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from inosync.changes import Change, Kind
from inosync.config.load import Config
from inosync.master.mirror import Mirror
from inosync.master.resume import Resume
from inosync.nodes.node import Node
from inosync.state import facts, trust
from inosync.state.document import NodeEvent, Owed, SavedNode, SavedTree, State, encode
from inosync.state.marks import Mark, Marks
from inosync.state.trust import TreeFacts
from inosync.state.writer import StateWriter
from inosync.status.events import NodeEvents
from inosync.watch.watcher import Watcher

if TYPE_CHECKING:  # loaded where there is a fleet
    from inosync.master.fleet_state import FleetState
    from inosync.state.saved_fleet import SavedFleet

MIN_PAUSE_SECONDS = 2.0
"""The shortest time between two writes."""
COST_FACTOR = 50
"""Making the state may take a fiftieth of the time."""
MAX_READ_SECONDS = 0.05
"""How long events are read for a mark; while more of them come all the time, there is none."""
MAX_UNCLOSED = 1_000
"""With more files that wait for their close there is no mark."""
MAX_EVENTS = 2_000
"""Events that are kept of all nodes together, about; and of each:"""
MIN_EVENTS = 2
LAST_WRITE_SECONDS = 5.0
"""How long the end of the daemon waits for the last write."""


@dataclass(slots=True)
class StateKeeper:
    """Looks every second or so whether there is something new to keep."""

    mirror: Mirror
    watcher: Watcher
    resume: Resume
    """What the nodes had at the start."""
    events: NodeEvents
    config: Callable[[], Config]
    writer: StateWriter
    fleet: FleetState | None = None
    """What is kept of a fleet; None: this is not the origin of one."""
    _marks: Marks = field(default_factory=Marks)
    _kept: object = None
    """What the state was made of that was written last."""
    _last: State | None = None
    """That state; None: none was written by this process."""
    _kept_orders: object = None
    """The operator's standing orders, as they were written last."""
    _next_at: float = -math.inf
    """When the next state may be written, by the clock."""
    _facts: dict[str, TreeFacts] = field(default_factory=dict)
    """What the roots are, by wpath, with the mounts ``_facts_of``."""
    _facts_of: object = None
    _mounts: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """What was mounted in each tree, by wpath, when it was last looked at."""
    _unreadable: dict[int, int] = field(default_factory=dict)
    """How many directories could not be read then, by tree."""
    _decisive: dict[tuple[str, str], Mapping[str, str]] = field(default_factory=dict)
    """What decides what nodes are sent, by name and wpath, for the configuration ``_decisive_for``."""
    _decisive_for: Config | None = None

    def keep_orders(self) -> None:
        """Have a new state written if there is another order of the operator: it holds even if we die now."""
        if self._orders() != self._kept_orders:
            self.keep()

    def keep(self) -> None:
        """Have a new state written if anything is different; at once if it is an order of the operator."""
        self._mark()
        now, orders = self.mirror.loop.clock(), self._orders()
        has_orders = orders != self._kept_orders
        if self.writer.is_busy or not (has_orders or now >= self._next_at):
            return
        # What has to be compared as a whole is owed only when it was walked: until then the last state holds.
        if self.watcher.incomplete_trees:
            before = self._before_walk() if has_orders else None
            if before is None or self.writer.write(encode(replace(before, clean=False))):
                self._kept, self._kept_orders = None, orders
            return
        seen, pause = self._fingerprint(), 0.0
        if seen != self._kept:
            state = self._state(clean=False)
            if self.writer.write(encode(state)):
                self._kept, self._kept_orders, self._last = seen, orders, state
            pause = MIN_PAUSE_SECONDS
        self._next_at = now + max(pause, COST_FACTOR * (self.mirror.loop.clock() - now))

    def finish(self) -> None:
        """Write the last state, once all workers have ended."""
        self._mark()
        state = self._before_walk() if self.watcher.incomplete_trees else self._state(clean=True)
        self.writer.finish(None if state is None else encode(state), LAST_WRITE_SECONDS)

    def _before_walk(self) -> State | None:
        """The state of before a walk that has not ended, with what the operator has ordered since."""
        last = self._last or self.resume.state
        if last is None:
            return None
        nodes = {
            name: replace(_stopped(saved, self.mirror.nodes.get(name)), events=self._events_of(name))
            for name, saved in last.nodes.items()
        }
        found = replace(
            last, nodes=nodes, held_until=self._by_wall(self.mirror.dispatch.held_until), fleet=None
        )
        if self.fleet is None:
            return found
        return replace(found, fleet=self.fleet.before_walk(last.fleet), far_orders=self.fleet.orders)

    def _orders(self) -> object:
        """What is written at once: what the operator has ordered until it is taken back, and the position
        beyond which none is given before another one is kept."""
        paused = [node.name for node in self.mirror.nodes.values() if node.paused]
        return (
            paused,
            self.mirror.dispatch.held_until,
            self.fleet and (self.fleet.reserved, self.fleet.orders),
        )

    # Marks -------------------------------------------------------------------------------------------

    def _mark(self) -> None:
        """Note up to which time everything is in the journal.

        The time is that of before the events are read: what changes later may be read later.
        """
        if self._lets_old_in():
            self._marks.cut()
        wall, until = self.resume.wall(), self.mirror.loop.clock() + MAX_READ_SECONDS
        while self.watcher.read():
            if self.mirror.loop.clock() >= until:
                return
        unclosed = self.watcher.unclosed()
        if unclosed is None or len(unclosed) > MAX_UNCLOSED:
            return
        polled = self.watcher.coverage.polled_since
        if polled is not None:
            if polled == -math.inf:
                return
            wall -= max(self.mirror.loop.clock() - polled, 0.0)
        self._marks.add(Mark(self.mirror.journal.head, wall, unclosed))
        needed = [node.cursor for node in self.mirror.nodes.values()]
        if self.fleet is not None:
            needed.append(self.fleet.needs_after())
        if needed:
            self._marks.drop_before(min(needed))

    def _lets_old_in(self) -> bool:
        """Whether files may have come into trees since the last call that have old times.

        They are recorded, but a start does not find them: nodes that lack them have no time.
        """
        return any([self._has_other_rules_or_mounts(), self._can_read_more()])

    def _has_other_rules_or_mounts(self) -> bool:
        config, is_first = self.config(), self._facts_of is None
        if config is self._decisive_for and self.watcher.mounts.known == self._facts_of:
            return False
        if config is not self._decisive_for:
            self._facts = {}  # other rules may hide other mounts
        mounts, before = self._mounts, self._decisive
        self._mounts = mounts | {wpath: found.mounts for wpath, found in self._roots().items()}
        if config is not self._decisive_for:
            pairs = [(spec, tree) for spec in config.nodes for tree in config.trees if spec.gets(tree)]
            self._decisive = {(spec.name, tree.wpath): trust.decisive(spec, tree) for spec, tree in pairs}
            self._decisive_for = config
        if is_first:
            return False
        has_other_rules = any(
            key in before and before[key]["rules"] != now["rules"] for key, now in self._decisive.items()
        )
        return has_other_rules or any(mounts.get(wpath, {}) != now for wpath, now in self._mounts.items())

    def _can_read_more(self) -> bool:
        numbers, before = self.mirror.table.numbers.values(), self._unreadable
        if not before and not self.watcher.coverage.unreadable(numbers):
            return False
        self._unreadable = {number: self.watcher.coverage.unreadable([number]) for number in numbers}
        return any(self._unreadable.get(number, 0) < count for number, count in before.items())

    def _fingerprint(self) -> object:
        """Something that differs when the state does, but for the time alone."""
        offset = round(facts.moment().clock_offset)
        nodes = [
            (name, node.cursor, self._position(node), *_books(node))
            for name, node in self.mirror.nodes.items()
        ]
        halted, events = len(self.mirror.guard.halted), self.events.recorded
        fleet = self.fleet and self.fleet.books(self._fleet_mark(self.fleet))
        return (
            offset,
            self.config(),
            self.watcher.mounts.known,
            halted,
            events,
            self.mirror.dispatch.held_until,
            fleet,
            nodes,
        )

    def _fleet_mark(self, fleet: FleetState) -> Mark | None:
        return self._marks.at(fleet.needs_after())

    def _position(self, node: Node) -> object:
        mark = self._marks.at(node.cursor)
        return mark and (mark.position, mark.unclosed)

    # The state ---------------------------------------------------------------------------------------

    def _state(self, clean: bool) -> State:
        config, now = self.config(), facts.moment()
        wpaths = {number: wpath for wpath, number in self.mirror.table.numbers.items()}
        return State(
            config=os.path.realpath(config.path),
            written=now.wall,
            boot=now.boot,
            clock_offset=now.clock_offset,
            clean=clean,
            common=trust.decisive_for_all(config.ruser, config.emask, config.rdelete),
            trees=dict(self._trees()),
            nodes={name: self._node(node, wpaths) for name, node in self.mirror.nodes.items()},
            held_until=self._by_wall(self.mirror.dispatch.held_until),
            fleet=None if self.fleet is None else self._saved_fleet(self.fleet, wpaths),
            far_orders=None if self.fleet is None else self.fleet.orders,
        )

    def _saved_fleet(self, fleet: FleetState, wpaths: Mapping[int, str]) -> SavedFleet | None:
        return fleet.saved(self._fleet_mark(fleet), wpaths, not self._marks.were_cut)

    def _trees(self) -> Iterator[tuple[str, SavedTree]]:
        for wpath, found in self._roots().items():
            number = self.mirror.table.numbers[wpath]
            unreadable = bool(self.watcher.coverage.unreadable([number]))
            yield wpath, SavedTree(found.root, found.mounts, self.mirror.guard.memory_of(number), unreadable)

    def _roots(self) -> Mapping[str, TreeFacts]:
        """What the roots are that are watched, by wpath; looked at anew when they or the mounts change."""
        points = self.watcher.mounts.known
        if points != self._facts_of:
            self._facts, self._facts_of = {}, points
        before, self._facts = self._facts, {}
        for wpath, number in self.mirror.table.numbers.items():
            identity, known = self.watcher.roots.identity(number), before.get(wpath)
            if identity is None:
                continue
            if known is None or known.identity != identity:
                try:
                    known = facts.of_tree(wpath, points, self.mirror.table.excluded[number])
                except OSError:
                    continue
            if known.identity == identity:
                self._facts[wpath] = known
        return self._facts

    def _node(self, node: Node, wpaths: Mapping[int, str]) -> SavedNode:
        mark = self._marks.at(node.cursor)
        time = None
        if node.cursor >= self.mirror.journal.floor:
            if mark is not None:
                time = mark.wall
            elif node.is_resumed and not self._marks.were_cut:
                time = self.resume.time_of(node.name)
        owed = [
            _owed(wpaths[change.tree], change, retry.attempt, self._by_wall(retry.since))
            for change, retry in node.retries.items()
            if change.tree in wpaths
        ]
        unclosed = mark.unclosed if mark is not None else ()
        owed += [Owed(wpaths[tree], path) for tree, path in unclosed if tree in node.trees and tree in wpaths]
        return SavedNode(
            time=time,
            trees={
                wpath: decisive
                for tree in node.trees
                if (wpath := wpaths.get(tree)) and (decisive := self._decisive.get((node.name, wpath)))
            },
            owed=tuple(owed),
            problem=node.problem,
            paused=node.paused,
            untidy=node.untidy_since is not None or _is_sending(node),
            hooks_lost=node.worker.hooks_lost,
            last_ok=self._by_wall(node.last_ok),
            verified_at=self._by_wall(node.verified_at),
            differences=node.differences,
            events=self._events_of(node.name),
        )

    def _events_of(self, name: str) -> tuple[NodeEvent, ...]:
        return self.events.of(name, max(MAX_EVENTS // max(len(self.mirror.nodes), 1), MIN_EVENTS))

    def _by_wall(self, at: float | None) -> float | None:
        if at is None or at == math.inf:
            return None
        return self.resume.wall() - (self.mirror.loop.clock() - at)


def _stopped(saved: SavedNode, node: Node | None) -> SavedNode:
    """What was known of a node before a walk that has not ended."""
    if node is None:
        return saved
    return replace(saved, paused=node.paused, untidy=saved.untidy or node.untidy_since is not None)


def _owed(wpath: str, change: Change, attempt: int, since: float | None) -> Owed:
    return Owed(wpath, change.path, change.kind, change.ignore_times, attempt, since)


def _is_sending(node: Node) -> bool:
    return node.outstanding is not None or node.second is not None


def _books(node: Node) -> tuple[object, ...]:
    retries, trees = node.retries, node.trees
    whole = sum(change.kind is Kind.TREE for change, _ in retries.items())
    is_untidy = node.untidy_since is not None or _is_sending(node)
    return retries.count, whole, trees, node.problem, node.paused, is_untidy, node.last_ok, node.verified_at
