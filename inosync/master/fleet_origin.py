"""The origin of a fleet: appends its journal to Redis, and says how far the copies of its senders are.

Its ordinary nodes are the senders. All that waits for Redis is in another process (``fleet.link``).
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from inosync.config.fleet import Fleet
from inosync.fleet import codec, node_reports
from inosync.fleet.link import Link, RedisFailure
from inosync.fleet.node_reports import Event, ReportedNode
from inosync.fleet.records import Arrived, Beat, JournalSpan, NodeRecord, OriginPosition
from inosync.fleet.recovery import OwnBooks, Recovery, disposable, recover
from inosync.fleet.rounds import OriginOrder, OriginReport, look_seconds
from inosync.journal.journal import Journal
from inosync.master.fleet_orders import FleetOrders
from inosync.master.sender_copies import SenderCopies
from inosync.system.loop import Loop
from inosync.watch.watcher import FILE_CLOCK

if TYPE_CHECKING:
    from inosync.fleet.store import Seen

log = logging.getLogger(__name__)

IDLE_SECONDS = 0.2
"""The time between two rounds while nothing changes."""
AWAY_SECONDS = 1.0
"""The time between two tries while Redis is away."""
MEET_SECONDS = 5.0
"""How long the start waits for Redis, to find out whether there is another origin."""
FINISH_SECONDS = 3.0
_T = TypeVar("_T")


class OtherOrigin(OSError):
    """Another machine is the origin of this fleet: this one does not start."""


@dataclass(slots=True)
class FleetOrigin:
    """What the origin knows of its fleet."""

    fleet: Fleet
    config: str
    """The path of the configuration, which tells origins on one machine apart."""
    sender_copies: SenderCopies
    stop: Callable[[str], None]
    """Ends the daemon, and says why."""
    link: Link
    orders: FleetOrders
    """What the operator wants of the nodes of senders."""
    problem: str = "not reached yet"
    """Why Redis cannot be used; empty if it can."""
    records: dict[str, NodeRecord] = field(default_factory=dict)
    """How far the nodes of the fleet are, as Redis said last in this epoch."""
    holders: dict[str, str] = field(default_factory=dict)
    """By node: the sender that holds its lease."""
    beats: dict[str, Beat] = field(default_factory=dict)
    """What each sender said last that is there."""
    ages: Mapping[str, float] = field(default_factory=dict)
    """How many seconds before the last look each sender was heard of."""
    reported: dict[str, ReportedNode] = field(default_factory=dict)
    """How the nodes of the fleet are, as the senders say."""
    events: dict[str, dict[str, list[Event]]] = field(default_factory=dict)
    """By sender and node: what happened last."""
    recorded: int = 0
    """How often there was anything new in that."""
    epoch: str = field(default_factory=lambda: secrets.token_hex(8))
    appended: int = 0
    """Redis has all up to this position."""
    _value: bytes = b""
    """The value of the lease of the origin."""
    _own: bytes = b""
    """How the values of earlier processes begin."""
    _is_met: bool = False
    """Whether Redis has all that it needs, but for what is newer."""
    _recovery: Recovery | None = None
    """What is written first, once it is known."""
    _floor: int = 0
    _told_arrived: dict[str, Arrived] = field(default_factory=dict)
    """What Redis knows of ``arrived``."""
    _goes_on: bool = False
    """Whether the epoch is that of an earlier process, and Redis was not met yet."""
    _settled: int | None = None
    """The position at which all was recorded that had changed before this process; None: not yet."""
    _asked: int = 0
    """The number of the last question of a sender."""
    _asked_at: int = 0
    """When it was read, by the clock of files."""
    _answer: OriginPosition = field(default_factory=lambda: OriginPosition(0, "", 0))
    """The last answer."""
    _said: int = -1
    """The number of the question that Redis has the answer to."""
    _look_at: float = 0.0
    """When nodes and senders are looked at next."""
    _next_at: float = 0.0
    """When the next round is due by the clock, if nothing changes before."""
    _statuses: Mapping[str, bytes] = field(default_factory=dict)
    _events_known: dict[str, bytes] = field(default_factory=dict)
    """By sender: the number of ``events``."""

    def __post_init__(self) -> None:
        machine = _machine()
        self._own = f"{machine} {os.path.realpath(self.config)} ".encode("utf-8", "replace")
        self._value = self._own + secrets.token_hex(8).encode()
        self._answer = OriginPosition(0, self.epoch, self.journal.head)

    @property
    def journal(self) -> Journal:
        return self.sender_copies.mirror.journal

    @property
    def _loop(self) -> Loop:
        return self.sender_copies.mirror.loop

    def go_on(self, epoch: str, records: Mapping[str, NodeRecord], copies: Mapping[str, str]) -> None:
        """Go on with the epoch of an earlier process; the journal does, too."""
        self.epoch, self._goes_on = epoch, True
        self.records, self.sender_copies.copies = dict(records), dict(copies)
        self._answer = OriginPosition(0, epoch, self.journal.head)

    def meet(self) -> None:
        """Look for Redis, for a moment; OtherOrigin if there is another one."""
        self._begin_round()
        self.link.wait(MEET_SECONDS)
        if self.problem.startswith(_OTHER):
            self.link.close()
            raise OtherOrigin(f"{self.fleet}: {self.problem}")
        if self.problem and not self.link.is_busy:
            log.warning("Redis: %s; changes are kept in memory until it is there", self.problem)

    @property
    def copies(self) -> Mapping[str, str]:
        """Which copy each sender has."""
        return self.sender_copies.copies

    @property
    def arrived(self) -> Mapping[str, Arrived]:
        """How far the copy of each sender is complete."""
        return self.sender_copies.arrived

    @property
    def paused(self) -> Collection[str]:
        """The nodes that are sent nothing, as the operator wants it."""
        return self.orders.paused

    @property
    def owed(self) -> Collection[str]:
        """The nodes that are still to be compared in full, as the operator has ordered."""
        return [name for name in self.orders.names if self.orders.is_owed(name)]

    def keeps_after(self) -> float:
        """Return the position after which changes are still needed."""
        cursors = [record.cursor for record in self.records.values() if record.cursor is not None]
        return min([self.appended, *cursors]) if self.appended else 0

    # The loop ----------------------------------------------------------------------------------------

    def turn(self) -> None:
        """Begin a round, if there is anything to do. To be called in each turn of the loop."""
        if self.link.is_busy:
            return
        self._note_settled()
        if self._is_met:
            self._look_at_copies()
            self._note_answer()
            if not (
                self.journal.head > self.appended
                or self.arrived != self._told_arrived
                or self._answer.question != self._said
                or self.orders.pending
                or self._loop.clock() >= self._next_at
            ):
                return
        elif self._loop.clock() < self._next_at and self._recovery is None:
            return
        self._begin_round()

    def tick(self) -> None:
        """Look whether the process that talks to Redis hangs. To be called every second or so."""
        self.link.check()

    def _begin_round(self) -> None:
        recovery, head = self._recovery, self.journal.head
        span, after = None, head
        if self._is_met:
            arrived = [one.position for one in self.arrived.values()]
            names = [node.name for node in self.fleet.nodes]
            floor = disposable(self.epoch, names, self.records, arrived, self._floor)
            # Nothing that any node may still need, unless there was too much to be appended in time.
            missing = self.journal.floor if self.journal.floor > self.appended else 0
            self._floor = max(floor, missing, self._floor)
            span, after = JournalSpan(self.epoch, min(self._floor, head), head), self.appended
        elif recovery is not None:
            after = recovery.append_after
        has_span = self._is_met or recovery is not None
        order = OriginOrder(
            tuple(node.name for node in self.fleet.nodes),
            self.fleet.senders,
            self._value,
            self._own,
            self.fleet.fingerprint,
            is_new=not has_span,
            recovery=recovery,
            span=span,
            changes=self.journal.entries_after(after) if has_span else (),
            answer=self._answer if self._is_met else None,
            arrived=dict(self.arrived.items() - self._told_arrived.items()) if self._is_met else {},
            give=dict(self.orders.pending) if self._is_met else {},
            find=self.orders.looked_for,
            events_known=dict(self._events_known),
            reads_all=not self._is_met or self._loop.clock() >= self._look_at,
        )
        said = (self._answer.question, dict(self.arrived)) if self._is_met else None
        self.link.ask(order, lambda report: self._take(report, order, said))

    def _take(
        self,
        report: OriginReport | RedisFailure,
        order: OriginOrder,
        said: tuple[int, dict[str, Arrived]] | None,
    ) -> None:
        now = self._loop.clock()
        self._loop.call_at(now + IDLE_SECONDS, self.turn)  # the loop may have nothing else to wake for
        self._next_at = now + IDLE_SECONDS
        if isinstance(report, RedisFailure):
            self._lose(report)
        elif not report.is_origin:
            self._refuse(order)
        else:
            self.orders.given(order.give)
            if report.asked > self._asked:
                self._asked, self._asked_at = report.asked, time.clock_gettime_ns(FILE_CLOCK)
            if order.is_new:  # before what Redis says counts: it may have lost something
                self._plan_recovery(report)
            if report.seen is not None:
                self._look_at = now + look_seconds(IDLE_SECONDS, len(order.nodes))
                self._note_seen(report.seen, report.statuses)
                self.orders.note(report.orders, report.done, report.found)
                self.ages = report.ages
                for name, (number, text) in report.events.items():
                    self._events_known[name], self.events[name] = number, node_reports.decode_events(text)
                    self.recorded += 1
            if order.recovery is not None:
                self._recovery, self._is_met = None, True
                self.appended, self._floor = order.recovery.span.appended, order.recovery.span.floor
                self._told_arrived, self._said = {}, -1
                if self.problem:
                    log.info("Redis: fleet %s: its journal is there, up to date", self.fleet)
                self.problem = ""
            elif order.span is not None:
                self.appended = order.span.appended
                self._floor = max(self._floor, report.crowded)
                if said is not None:
                    self._said, self._told_arrived = said

    def _lose(self, failure: RedisFailure) -> None:
        if failure.reason != self.problem and not failure.has_changed:
            log.error("Redis: %s; changes are kept in memory until it is there again", failure.reason)
        elif failure.has_changed:
            log.warning("Redis: %s", failure.reason)
        self.problem = failure.reason
        self.orders.lost()
        self._is_met, self._recovery = False, None
        if not failure.has_changed:
            self._next_at = self._loop.clock() + AWAY_SECONDS

    def _refuse(self, order: OriginOrder) -> None:
        self._is_met, self._recovery = False, None
        if order.is_new:
            self.problem = f"{_OTHER}: only one machine can watch the trees"
            self.stop(f"{self.fleet}: {self.problem}")
        else:  # the lease was over, or Redis has lost it
            self._next_at = 0.0

    def _plan_recovery(self, report: OriginReport) -> None:
        assert report.seen is not None
        span, nodes = report.seen.span, report.seen.nodes
        is_ahead = span is not None and span.appended > self.journal.head
        if self._goes_on and span is not None and (span.epoch != self.epoch or is_ahead):
            self._begin_anew()
        self._goes_on = False
        own = OwnBooks(self.epoch, self.journal.head, self.journal.floor, self.records)
        self._recovery = recover(own, span, nodes)
        if self._recovery is None:
            self.problem = f"{_OTHER}: what Redis holds is ahead of this machine"
            self.stop(f"{self.fleet}: {self.problem}")

    def _begin_anew(self) -> None:
        """Give up the epoch of an earlier process: another one has written to Redis since, to nodes maybe."""
        log.warning(
            "%s: another process was the origin meanwhile: everything is compared in full", self.fleet
        )
        self.epoch = secrets.token_hex(8)
        self.records = {}
        self.sender_copies.forget()
        self._answer = OriginPosition(0, self.epoch, self.journal.head)

    def _note_seen(self, seen: Seen, statuses: Mapping[str, bytes]) -> None:
        for name, record in seen.nodes.items():
            if record.epoch == self.epoch:
                self.records[name] = record
        self.holders = readable(seen.leases, codec.holder)
        self.beats = readable(seen.beats, codec.decode_beat)
        if statuses != self._statuses:
            self._statuses, found = statuses, {}
            for sender, text in statuses.items():
                nodes = node_reports.decode_nodes(text)
                found.update({n: one for n, one in nodes.items() if self.holders.get(n, sender) == sender})
            self.reported = found
        for name, beat in self.beats.items():
            self.sender_copies.note(name, beat.copy)

    # What the origin says ----------------------------------------------------------------------------

    def _note_settled(self) -> None:
        """Note when all is recorded that changed before this process began.

        Until then positions of an earlier process say nothing: what a copy lacks may get a newer one.
        """
        if self._settled is not None or self.sender_copies.watcher.incomplete_trees:
            return
        if self.sender_copies.watcher.unclosed() is not None:  # all that was read is recorded
            self._settled = self.journal.head

    def _look_at_copies(self) -> None:
        if self._settled is not None:
            self.sender_copies.look(self.epoch, self._settled)

    def _note_answer(self) -> None:
        """Answer the last question once all events before it are read."""
        if (
            self._settled is not None
            and self._asked > self._answer.question
            and self.sender_copies.watcher.caught_up_at > self._asked_at
            and not self.sender_copies.watcher.is_walking
        ):
            self._answer = OriginPosition(self._asked, self.epoch, self.journal.head)

    def descriptors(self) -> list[int]:
        """What a forked child has to close."""
        return self.link.descriptors()

    def finish(self) -> None:
        """Append what is missing still, for a moment; the lease runs out, or the next process has it."""
        self.link.wait(FINISH_SECONDS)
        if self._is_met and not self.link.is_busy:
            self._look_at_copies()
            self._begin_round()
            self.link.wait(FINISH_SECONDS)
        self.link.close()


_OTHER = "another machine is its origin"


def _machine() -> str:
    """Return which machine this is. A clone with the same name and number counts as the same."""
    try:
        with open("/etc/machine-id", encoding="ascii") as file:
            number = file.read(64).strip()
    except (OSError, UnicodeDecodeError):
        number = "-"
    return f"{socket.gethostname()} {number}"


def readable(values: Mapping[str, bytes], decode: Callable[[bytes], _T]) -> dict[str, _T]:
    found = {}
    for name, value in values.items():
        try:
            found[name] = decode(value)
        except codec.BadValue as error:
            log.debug("%s: %s", name, error)
    return found
