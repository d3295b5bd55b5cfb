"""From time to time each node is compared in full, and what differs is sent to it again.

One node at a time, when it is ok and no node waits for a slot. The comparison changes nothing and runs beside
the batches (``worker.compare``), so no change waits for it. It takes no slot, because other nodes would wait.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import inf
from typing import cast

from inosync.changes import Change, Kind
from inosync.master import schedule
from inosync.master.mirror import Mirror
from inosync.master.schedule import Schedule
from inosync.nodes.batches import next_id
from inosync.nodes.messages import CancelCompare, Compare, Compared
from inosync.nodes.node import Node
from inosync.rsync import itemize
from inosync.rsync.itemize import Difference
from inosync.system import spool
from inosync.text import plural

log = logging.getLogger(__name__)

SETTLE_SECONDS = 1.5
"""From the end of a comparison until differences are judged, which may have been changes on their way; more
than open_files.CLOSE_WAIT_SECONDS."""
_LOGGED_PATHS = 5
SHOWN_PATHS = 1_000
"""Differences that a client is told."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the comparison of a node has found."""

    node: str
    """Its name."""
    reason: str = ""
    """Why it could not be compared; empty if it was."""
    seconds: float = 0.0
    count: int = 0
    """All differences."""
    differences: tuple[tuple[str, str], ...] = ()
    """The first of them: the path, and what is wrong in a word."""


@dataclass(eq=False, slots=True)
class Waiter:
    """A client that wants to know what the next comparison of a node finds."""

    node: str
    """Its name."""
    may_repair: bool
    """Whether what differs is sent; otherwise the node is only looked at."""
    done: Callable[[Comparison], None]


@dataclass(eq=False, slots=True)
class _Round:
    """The comparison of one node, tree after tree."""

    node: Node
    cursor: int
    """The node's cursor at the beginning: what was recorded after it may have been on its way."""
    began: float
    todo: list[int]
    """Trees that are still to be compared."""
    tree: int = 0
    """The tree that is being compared."""
    order: int = 0
    """The id of the outstanding ``Compare``; 0: there is none."""
    compared: int = 0
    """Trees that were compared."""
    found: dict[int, list[Difference]] = field(default_factory=dict)
    """By tree."""
    truncated: dict[int, int] = field(default_factory=dict)
    """By tree: how many more differences there are than in ``found``."""
    seconds: float = 0.0
    """How long the comparison took."""
    may_repair: bool = True
    """Whether what differs is sent."""
    waiters: list[Waiter] = field(default_factory=list)
    """The clients that are told what it finds."""


@dataclass(slots=True)
class Verification:
    """Decides which node is compared next, and has sent again what is found."""

    mirror: Mirror
    is_ok: Callable[[Node], bool]
    rand: Callable[[], float]
    _schedules: dict[str, Schedule] = field(default_factory=dict)
    """The nodes' schedules, by name."""
    _rdelete: bool | str = True
    """The setting: what may be deleted on a node."""
    _round: _Round | None = None
    """The verification of the node that is compared now."""
    _waiters: list[Waiter] = field(default_factory=list)
    """The clients whose comparison has not begun."""

    @property
    def cursor(self) -> float:
        """The journal's position after which nothing may be dropped."""
        return inf if self._round is None else self._round.cursor

    # Which node is next ------------------------------------------------------------------------------

    def configure(self, rdelete: bool | str) -> None:
        """Follow the settings, those of the nodes included."""
        self._rdelete = rdelete
        now, before, self._schedules = self.mirror.loop.clock(), self._schedules, {}
        for name, node in self.mirror.nodes.items():
            interval, rand = node.spec.rverify, self.rand()
            if known := before.get(name):
                new = schedule.configure(known, interval, node.verified_at, now, rand)
            else:
                new = schedule.first(interval, now, rand)
                if node.is_resumed and interval:
                    new = schedule.resumed(new, now, rand)
            self._schedules[name] = new
        if self._round is not None:
            node = self._round.node
            is_wanted = node.spec.rverify or before[node.name].requested
            if self.mirror.nodes.get(node.name) is not node or not (is_wanted or self._round.waiters):
                self._abort()
        for waiter in [waiter for waiter in self._waiters if waiter.node not in self.mirror.nodes]:
            self.cancel(waiter)
            waiter.done(Comparison(waiter.node, "is no node any more"))

    def start_if_due(self) -> None:
        """Begin with the next node, if it is time for that."""
        if self._round is not None or not self.mirror.dispatch.has_free_slot:
            return
        now = self.mirror.loop.clock()
        due = schedule.due_nodes(self._schedules, now)
        looks = [waiter.node for waiter in self._waiters if not waiter.may_repair]
        for name in dict.fromkeys([*looks, *due]):
            node = self.mirror.nodes[name]
            if self.is_ok(node):
                started = _Round(node, node.cursor, now, list(node.trees), may_repair=name in due)
                started.waiters = [one for one in self._waiters if one.node == name]
                if started.may_repair:  # a client that only looks waits for a round of its own
                    started.waiters = [one for one in started.waiters if one.may_repair]
                self._waiters = [one for one in self._waiters if one not in started.waiters]
                self._round = started
                log.debug("%s: verification started", node.name)
                self._compare_next(started)
                return

    def request(self, name: str) -> None:
        """Verify a node as soon as it can be, whatever its schedule is."""
        if self._round is None or self._round.node.name != name:
            self._schedules[name] = schedule.request(self._schedules[name], self.mirror.loop.clock())

    def wait(self, waiter: Waiter) -> None:
        """Tell a client what the next comparison of a node finds."""
        self._waiters.append(waiter)

    def cancel(self, waiter: Waiter) -> None:
        """Tell a client nothing any more."""
        for waiters in (self._waiters, self._round.waiters if self._round is not None else []):
            if waiter in waiters:
                waiters.remove(waiter)

    def hasten(self, node: Node) -> None:
        """Verify a node that was away soon."""
        if node.name in self._schedules:
            known, now = self._schedules[node.name], self.mirror.loop.clock()
            self._schedules[node.name] = schedule.hasten(known, node.verified_at, now, self.rand())

    def _compare_next(self, current: _Round) -> None:
        """Have the next tree compared that may be mirrored."""
        current.order = 0
        while current.todo:
            tree = current.todo.pop(0)
            may_be_sent = tree in current.node.trees and self.mirror.guard.check(tree)
            if current is not self._round:
                return  # the guard has halted a tree: the node is verified another time
            if may_be_sent:
                current.tree, current.order = tree, next_id()
                source = self.mirror.guard.source(tree, full=True)
                current.node.worker.put(Compare(current.order, tree, source, current.node.spec.rchecksum))
                return
        now = self.mirror.loop.clock()
        current.seconds = now - current.began
        settle = any(not one.negligible for found in current.found.values() for one in found)
        if settle:
            self.mirror.loop.call_at(now + SETTLE_SECONDS, lambda: self._judge(current))
        else:
            self._judge(current)

    # What is found -----------------------------------------------------------------------------------

    def compared(self, node: Node, report: Compared) -> None:
        """A worker has compared a tree."""
        current = self._round
        try:
            if current is None or current.node is not node or current.order != report.id:
                return
            if report.reason:
                self._fail(report.reason)
                return
            if not report.held:
                try:
                    lines = cast(tuple[bytes, ...], spool.unpack(report.payload, report.file))
                except OSError as error:
                    self._fail(f"{report.file}: {error.strerror}")
                    return
                current.compared += 1
                if found := [one for one in map(itemize.parse, lines) if one is not None]:
                    current.found[current.tree] = found
                    current.truncated[current.tree] = report.count - len(found)
            self._compare_next(current)
        finally:
            spool.discard(report.file)

    def disturbed(self, tree: int) -> None:
        """A tree is halted, or is sent as a whole: what was found in it may be no difference at all."""
        if self._round is not None and tree in self._round.node.trees:
            self._abort()

    def worker_died(self, node: Node) -> None:
        """The worker of a node has ended, and with it the comparison."""
        if self._round is not None and self._round.node is node:
            self._round.order = 0
            self._abort()

    def _abort(self) -> None:
        """End the round, and verify its node another time."""
        current, self._round = self._round, None
        assert current is not None
        if current.order:
            current.node.worker.put(CancelCompare())
        name = current.node.name
        log.debug("%s: verification put off", name)
        self._waiters += current.waiters
        if name in self._schedules and current.may_repair:
            self._schedules[name] = schedule.failed(
                self._schedules[name], self.mirror.loop.clock(), self.rand()
            )

    def _fail(self, reason: str) -> None:
        assert self._round is not None
        name, self._round.order = self._round.node.name, 0
        may_repair = self._round.may_repair
        self._tell(self._round, Comparison(name, reason))
        self._abort()
        if may_repair:
            pause = self._schedules[name].due - self.mirror.loop.clock()
            log.warning("%s: could not be verified: %s; next try in %.0f s", name, reason, pause)

    def _judge(self, current: _Round) -> None:
        """Have what was found sent again, and log it."""
        if current is not self._round:
            return
        node, now = current.node, self.mirror.loop.clock()
        changes, due = self.mirror.journal.since(current.cursor), list(node.retries.waiting)
        if current.found and current.may_repair:
            self._send_again(current, now)
            if current is not self._round:
                return  # the guard has looked at what is to be sent, and has halted a tree
        if not current.compared:
            self._tell(current, Comparison(node.name, "none of its trees can be compared now"))
            self._abort()
        elif changes is None:
            self._fail("too much has changed meanwhile to tell what is different")
        else:
            self._round = None
            found = [one for tree in current.found for one in _unexplained(current, tree, [*changes, *due])]
            count = len(found) + sum(current.truncated.values())
            if current.may_repair:
                self._schedules[node.name] = schedule.done(node.spec.rverify, now, self.rand())
                node.set_verified(now, count)
                self._log(current, found)
            shown = tuple((self._path(tree, one), one.word) for tree, one in found[:SHOWN_PATHS])
            self._tell(current, Comparison(node.name, "", current.seconds, count, shown))

    def _send_again(self, current: _Round, now: float) -> None:
        """Send again all that was found. Where the node is right by now, that costs no more than a look."""
        for tree, found in current.found.items():
            repairs = [one.repair(tree, self._rdelete) for one in found]
            root = os.fsencode(self.mirror.table.wpath(tree))
            if current.truncated[tree] or any(_is_below_symlink(root, one.path) for one in found):
                by_content = (one for one in repairs if one and one.ignore_times)
                repairs = [Change(tree, b"", Kind.TREE), *by_content]
            for change in filter(None, dict.fromkeys(repairs)):
                current.node.retry(change, now)
        self.mirror.dispatch.offer_batch(current.node)

    def _log(self, current: _Round, found: list[tuple[int, Difference]]) -> None:
        name, count = current.node.name, current.node.differences
        what = f"verified in {current.seconds:.1f} s, {plural(count, 'difference')}"
        if not count:
            log.info("%s: %s", name, what)
            return
        paths = [f"{self._path(tree, one)} ({one.word})" for tree, one in found[:_LOGGED_PATHS]]
        more = [f"{count - len(paths)} more"] if count > len(paths) else []
        log.warning("%s: %s, sent again: %s", name, what, ", ".join([*paths, *more]))

    def _path(self, tree: int, difference: Difference) -> str:
        return os.path.join(self.mirror.table.wpath(tree), os.fsdecode(difference.path))

    def _tell(self, current: _Round, comparison: Comparison) -> None:
        waiters, current.waiters = current.waiters, []
        for waiter in waiters:
            waiter.done(comparison)


def _is_below_symlink(root: bytes, path: bytes) -> bool:
    """Whether a path leads through a symlink: a batch never follows one, a full mirror with -k or -L does."""
    while path := os.path.dirname(path):
        if os.path.islink(os.path.join(root, path)):
            return True
    return False


def _unexplained(current: _Round, tree: int, changes: list[Change]) -> Iterator[tuple[int, Difference]]:
    """Yield the differences that are neither negligible nor changes on their way."""
    explains = itemize.explained(changes, tree)
    return ((tree, one) for one in current.found[tree] if not one.negligible and not explains(one))
