"""Every now and then each node is compared in full, and what differs is sent to it again.

One node at a time, when it is ok and nobody waits for a slot. The comparison changes nothing, and runs
beside the batches (``comparer``), so that no change waits for it. A slot it does not take: others would wait.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import cast

from inosync.guard.guard import Guard
from inosync.journal.journal import Journal
from inosync.master import rounds
from inosync.master.rounds import Round
from inosync.messages import CancelCompare, Change, Compare, Compared, Kind
from inosync.nodes.batches import next_id
from inosync.nodes.dispatch import Dispatcher
from inosync.nodes.node import Node
from inosync.rsync import itemize
from inosync.rsync.itemize import Difference
from inosync.system import spool
from inosync.text import plural

log = logging.getLogger(__name__)

SETTLE = 1.5
"""Seconds until it is judged whether differences were changes on their way; more than writers.CLOSE_WAIT."""
_SHOWN = 5


@dataclass(slots=True)
class _Visit:
    """The node that is compared at the moment."""

    node: Node
    cursor: int
    """That of the node at the beginning: what was recorded after it may have been on its way."""
    began: float
    todo: list[int]
    """Trees."""
    tree: int = 0
    """The one that is compared now ..."""
    id: int = 0
    """... by this order; 0: none is."""
    compared: int = 0
    """How many were."""
    found: dict[int, list[Difference]] = field(default_factory=dict)
    """By tree."""
    truncated: dict[int, int] = field(default_factory=dict)
    """How many more there are of a tree."""
    took: float = 0.0


class Verification:
    """``nodes`` is the master's own, by name; ``is_ok`` tells whether one is; ``wpath`` is that of a tree.

    ``at`` calls back at a time of the clock; ``repair`` is called for a node that is owed something.
    """

    def __init__(
        self,
        nodes: Mapping[str, Node],
        journal: Journal,
        guard: Guard,
        dispatch: Dispatcher,
        is_ok: Callable[[Node], bool],
        wpath: Callable[[int], str],
        repair: Callable[[Node], None],
        at: Callable[[float, Callable[[], None]], None],
        clock: Callable[[], float],
        rand: Callable[[], float],
    ) -> None:
        self._nodes, self._journal, self._guard, self._dispatch = nodes, journal, guard, dispatch
        self._is_ok, self._wpath, self._repair = is_ok, wpath, repair
        self._at, self._clock, self._chance = at, clock, rand
        self._plans: dict[str, Round] = {}
        self._rdelete: bool | str = True
        self._visit: _Visit | None = None

    @property
    def cursor(self) -> float:
        """The position in the journal after which nothing must be forgotten."""
        return self._visit.cursor if self._visit is not None else float("inf")

    # Whose turn it is --------------------------------------------------------------------------------

    def plan(self, rdelete: bool | str) -> None:
        """Follow what the settings are, those of the nodes included."""
        self._rdelete = rdelete
        now = self._clock()
        plans = {}
        for name, node in self._nodes.items():
            every, known = node.spec.rverify, self._plans.get(name)
            if known is None:
                plans[name] = rounds.first(every, now, self._chance())
            else:
                plans[name] = rounds.retuned(known, every, node.verified_at, now, self._chance())
        self._plans = plans
        visit = self._visit
        if visit is not None and (
            self._nodes.get(visit.node.name) is not visit.node
            or not (visit.node.spec.rverify or self._plans[visit.node.name].asked)
        ):
            self._drop()

    def look(self) -> None:
        """Begin with the next node, if it is time for that."""
        if self._visit is not None or not self._dispatch.has_free_slot:
            return
        now = self._clock()
        for name in rounds.next_ones(self._plans, now):
            node = self._nodes[name]
            if self._is_ok(node):
                self._visit = _Visit(node, node.cursor, now, list(node.trees))
                log.debug("%s: is verified", name)
                self._next(self._visit)
                return

    def ask(self, name: str) -> None:
        """Compare a node as soon as it can be, whatever its turn is."""
        if self._visit is None or self._visit.node.name != name:
            self._plans[name] = rounds.now(self._plans[name], self._clock())

    def _next(self, visit: _Visit) -> None:
        """Compare the next tree that may be mirrored."""
        visit.id = 0
        while visit.todo:
            tree = visit.todo.pop(0)
            good = tree in visit.node.trees and self._guard.check(tree)
            if visit is not self._visit:
                return  # the guard has halted a tree: all is compared another time
            if good:
                visit.tree, visit.id = tree, next_id()
                source = self._guard.source(tree, full=True)
                visit.node.send_compare(Compare(visit.id, tree, source, visit.node.spec.rchecksum))
                return
        visit.took = self._clock() - visit.began
        if any(not one.negligible for found in visit.found.values() for one in found):
            self._at(self._clock() + SETTLE, lambda: self._judge(visit))
        else:
            self._judge(visit)

    # What comes of it --------------------------------------------------------------------------------

    def compared(self, node: Node, report: Compared) -> None:
        """A worker has compared a tree."""
        visit = self._visit
        try:
            if visit is None or visit.node is not node or visit.id != report.id:
                return
            lines = () if report.reason or report.held else spool.unpack(report.payload, report.file)
        except OSError as error:
            self._fail(f"{report.file}: {error.strerror}")
        else:
            if report.reason:
                self._fail(report.reason)
            else:
                self._take(visit, report, cast(tuple[bytes, ...], lines))
        finally:
            spool.discard(report.file)

    def _take(self, visit: _Visit, report: Compared, lines: tuple[bytes, ...]) -> None:
        if not report.held:
            visit.compared += 1
            if found := [one for one in map(itemize.parse, lines) if one is not None]:
                visit.found[visit.tree] = found
                visit.truncated[visit.tree] = report.count - len(found)
        self._next(visit)

    def touched(self, tree: int) -> None:
        """A tree is halted, or owed as a whole: what was found of it may be no difference at all."""
        visit = self._visit
        if visit is not None and tree in visit.node.trees:
            self._drop()

    def gone(self, node: Node) -> None:
        """A worker is dead."""
        if self._visit is not None and self._visit.node is node:
            self._visit.id = 0
            self._drop()

    def _drop(self) -> None:
        """Come back to it later."""
        visit = self._visit
        assert visit is not None
        self._visit = None
        if visit.id:
            visit.node.send_compare(CancelCompare())
        name = visit.node.name
        log.debug("%s: is verified another time", name)
        if name in self._plans:
            self._plans[name] = rounds.failed(self._plans[name], self._clock(), self._chance())

    def _fail(self, reason: str) -> None:
        visit = self._visit
        assert visit is not None
        visit.id = 0
        self._drop()
        name = visit.node.name
        pause = self._plans[name].due - self._clock()
        log.warning("%s: could not be verified: %s; next try in %.0f s", name, reason, pause)

    def _judge(self, visit: _Visit) -> None:
        """Tell what was found, and have it sent."""
        if visit is not self._visit:
            return
        node, now = visit.node, self._clock()
        changes, due = self._journal.since(visit.cursor), list(node.retries.waiting)
        if visit.found:
            self._owe(visit, now)
            self._repair(node)
            if visit is not self._visit:
                return  # what is to be sent was looked at, and the guard has halted a tree
        if not visit.compared:
            self._drop()
        elif changes is None:
            self._fail("too much has changed meanwhile to tell what is different")
        else:
            self._visit = None
            self._plans[node.name] = rounds.done(self._plans[node.name], now, self._chance())
            found = [one for tree in visit.found for one in self._unexplained(visit, tree, [*changes, *due])]
            node.set_verified(now, len(found) + sum(visit.truncated.values()))
            self._tell(visit, found)

    def _owe(self, visit: _Visit, now: float) -> None:
        """Whatever it comes from, all of it is sent again: what is level by now costs no more than a look."""
        for tree, found in visit.found.items():
            repairs = [one.repair(tree, self._rdelete) for one in found]
            if visit.truncated[tree]:
                repairs = [
                    Change(tree, b"", Kind.TREE),
                    *(one for one in repairs if one and one.ignore_times),
                ]
            for change in dict.fromkeys(repairs):
                if change is not None:
                    visit.node.retry(change, now)

    def _unexplained(
        self, visit: _Visit, tree: int, changes: list[Change]
    ) -> Iterator[tuple[int, Difference]]:
        known = itemize.explained(changes, tree)
        return ((tree, one) for one in visit.found[tree] if not one.negligible and not known(one))

    def _tell(self, visit: _Visit, found: list[tuple[int, Difference]]) -> None:
        node = visit.node
        what = f"verified in {visit.took:.1f} s, {plural(node.differences, 'difference')}"
        if not node.differences:
            log.info("%s: %s", node.name, what)
            return
        shown = [f"{self._path(tree, one)} ({one.word})" for tree, one in found[:_SHOWN]]
        more = [f"{node.differences - len(shown)} more"] if node.differences > len(shown) else []
        log.warning("%s: %s, sent again: %s", node.name, what, ", ".join([*shown, *more]))

    def _path(self, tree: int, difference: Difference) -> str:
        return os.path.join(self._wpath(tree), os.fsdecode(difference.path))
