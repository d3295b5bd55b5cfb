"""A sender of a fleet: follows the journal in Redis, and serves the nodes that it has the leases of.

Its nodes are ordinary ones, and so is its journal, which has the positions of Redis. One rule makes that
safe: the journal goes on only when Redis has noted, for each node that is served, that it may be sent so
much. All that waits for Redis is in another process (``fleet.link``).
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

from inosync.config.fleet import Fleet
from inosync.fleet import codec, copies, leases, service, shares
from inosync.fleet.lateness import Lateness
from inosync.fleet.link import Link, RedisFailure
from inosync.fleet.records import Beat, JournalSpan
from inosync.fleet.rounds import SenderOrder, SenderReport, look_seconds
from inosync.fleet.shares import FleetView
from inosync.master.fleet_origin import readable
from inosync.master.fleet_tasks import SenderTasks
from inosync.master.fleet_texts import StatusTexts
from inosync.master.held_nodes import HeldNodes
from inosync.master.mirror import Mirror
from inosync.master.sender_copies import NO_COPY
from inosync.master.worker_pool import WorkerPool

log = logging.getLogger(__name__)

POLL_SECONDS = 0.05
"""The time between two rounds for anything but what has arrived, while there is anything to do."""
AWAY_SECONDS = 0.5
LEASES_SECONDS = 0.4
"""The time between two looks at all leases, which are many."""
LOOK_SECONDS = 1.0
"""The time between two looks at the copies, and between two texts about the nodes."""
FINISH_SECONDS = 3.0


@dataclass(slots=True)
class FleetSender:
    """What a sender knows of its fleet."""

    fleet: Fleet
    wpaths: tuple[str, ...]
    """The roots of its copies."""
    holdings: HeldNodes
    texts: StatusTexts
    """What is said of the nodes at the origin."""
    link: Link
    tasks: SenderTasks
    """What the operator has ordered at the origin."""
    now: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME)
    """The clock of leases, which counts the time in which the machine sleeps."""
    problem: str = "not reached yet"
    """Why Redis cannot be used; empty if it can."""
    reason: str = "the origin has not been heard of"
    """Why no nodes are taken; empty if they are."""
    _epoch: str = ""
    """That of the positions of the journal; empty: it has none."""
    _copy: str = NO_COPY
    _proof: str = ""
    """What proves to the origin that this machine sees its storage, until it knows."""
    _met_at: float | None = None
    """Since when this instance of Redis is known, by the clock of leases; None: it is not."""
    _has_changed: bool = False
    """Whether Redis may have lost what was written last, since this sender began."""
    _report: SenderReport | None = None
    """The last one."""
    _ask: bool = False
    """Whether the origin is asked in the next round where it stands."""
    _next_at: float = 0.0
    """When the next round is due, by the clock of the loop."""
    _look_at: float = 0.0
    """When the copies are looked at next."""
    _full_at: float = 0.0
    """Until then a round is only for what has arrived, by the clock of the loop."""
    _leases_at: float = 0.0
    """When all leases are looked at next, by the clock of the loop."""
    _view: FleetView | None = None
    """The fleet as it was seen last; None: not yet, or what was seen led to something already."""
    _status: bytes = b""
    """What Redis is to say of the nodes; empty: nothing new."""
    _events: bytes = b""
    """What happened to the nodes, as Redis is to have it."""
    _told_events: bytes = b""
    """What Redis has of that; empty: it is not known."""
    _floor: int = 0
    _mark: tuple[bytes | None, ...] = ()
    """As long as Redis has this, there is nothing new to be sent; empty: it is not known."""
    _lateness: Lateness = field(default_factory=Lateness)
    """Whether the copies of others have what this one lacks."""
    _told_beat: bytes = b""
    """What Redis has as the heartbeat."""

    @property
    def _pool(self) -> WorkerPool:
        return self.holdings.pool

    @property
    def _mirror(self) -> Mirror:
        return self._pool.mirror

    def keeps_after(self) -> float:
        """Return the position after which changes are still needed, by any node of the fleet."""
        return self._floor

    def descriptors(self) -> list[int]:
        """What a forked child has to close."""
        return self.link.descriptors()

    def tick(self) -> None:
        """Look whether the process that talks to Redis hangs. To be called every second or so."""
        self.link.check()

    # The loop ----------------------------------------------------------------------------------------

    def turn(self) -> None:
        """Do what is due. To be called in each turn of the loop."""
        self.holdings.end_late(self.now())
        self.holdings.leave(self._epoch)
        if not self.link.is_busy and self._mirror.loop.clock() >= self._next_at:
            self._look()
            self._begin_round()

    def _look(self) -> None:
        """Look at the copies, and at the nodes, if it is time for that."""
        if self._mirror.loop.clock() < self._look_at:
            return
        self._look_at = self._mirror.loop.clock() + LOOK_SECONDS
        try:
            if self.fleet.shares_storage:
                self._copy, self._proof = copies.storage(self.wpaths), ""
                if not self._is_known():
                    self._proof = f".{copies.proof(self.wpaths)}"
            else:
                for wpath in self.wpaths:
                    copies.prepare(wpath)
                self._copy = copies.identity(self.wpaths)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            self._copy, self._proof, self.reason = NO_COPY, "", f"{where}{error.strerror or error}"
        self._status, self._events = self.texts.of_nodes(self.holdings.nodes()), self.texts.of_events()

    def _begin_round(self) -> None:
        now = self.now()
        reason = self._why_not()
        if reason != self.reason:
            log.log(logging.WARNING if reason else logging.INFO, "%s", reason or "ready: nodes are taken")
            self.reason = reason
        is_ready, copy = not reason and not self._pool.is_stopping, self._copy + self._proof
        is_late = is_ready and self._lateness.is_late
        beat = Beat(is_ready, copy, self.fleet.fingerprint, _LATE if is_late else reason, is_late)
        order = SenderOrder(
            self.fleet.me,
            (),
            self.fleet.senders,
            self._copy,
            codec.encode_beat(beat),
            self._epoch,
            self._mirror.journal.head,
            serve=self.holdings.served(),
        )
        is_told = order.beat == self._told_beat
        if is_told and self._mark and (left := self._full_at - self._mirror.loop.clock()) > 0:
            order = replace(order, mark=self._mark, wait_seconds=left)
        else:
            order = self._with_all(order, now)
            is_waiting = any(not one.is_served for one in self.holdings.held.values())
            if is_told and not (order.does_something or is_waiting):
                order = replace(
                    order, mark=self._mark, wait_seconds=self._idle_seconds() if self._mark else 0.0
                )
        self.link.ask(order, lambda report: self._take(report, order, now))

    def _idle_seconds(self) -> float:
        """Return how long a round waits that has nothing to do: not long if a node may confirm something."""
        head, nodes = self._mirror.journal.head, self.holdings.nodes()
        is_level = all(node.cursor >= head and not node.retries.count for node in nodes)
        until_leases = min(self._leases_at - self._mirror.loop.clock(), LEASES_SECONDS)
        return max(until_leases, POLL_SECONDS) if is_level else POLL_SECONDS

    def _with_all(self, order: SenderOrder, now: float) -> SenderOrder:
        """Return an order with all that is to be done."""
        ask, self._ask = self._ask, False
        values = self.holdings.values()
        status, self._status = self._status, b""
        looks = self._mirror.loop.clock() >= self._leases_at
        return replace(
            order,
            nodes=tuple(node.name for node in self.fleet.nodes) if looks else (),
            status=status,
            events=None if self._events == self._told_events else (time.time_ns(), self._events),
            confirm=self.holdings.cursors(self._epoch),
            finish=self.tasks.finished(values),
            release=self.holdings.released(),
            renew=self.holdings.due(now),
            take=self._wanted(now),
            ask=ask,
            start={name: values[name] for name in self._startable()},
        )

    def _why_not(self) -> str:
        """Return why this sender takes no nodes; empty if it does."""
        if self._copy == NO_COPY:
            return self.reason or "it has no copy"
        if self._mirror.guard.halted:
            return "; ".join(self._mirror.guard.reasons(self._mirror.guard.halted))
        if self._report is None:
            return "Redis has not been reached yet"
        seen = self._report.seen
        if seen.span is None:
            return "there is no origin yet"
        if seen.config != self.fleet.fingerprint:
            return "the configuration is not that of the origin"
        if not self._is_known():
            shared = "the origin has not found yet that it sees the same storage"
            return shared if self.fleet.shares_storage else "its copy is not complete yet"
        return ""

    def _is_known(self) -> bool:
        """Whether the origin has said how far this copy is."""
        seen = None if self._report is None else self._report.seen
        if seen is None or seen.span is None:
            return False
        return service.may_send(seen.arrived.get(self.fleet.me), self._copy, seen.span)

    # Leases ------------------------------------------------------------------------------------------

    def _wanted(self, now: float) -> dict[str, bytes]:
        """Return the leases to be taken, with their values; and have others given up."""
        if self._view is None or self._met_at is None or self._pool.is_stopping or not self._epoch:
            return {}
        change, self._view = shares.shift(self._view, self.fleet.me), None
        self.holdings.hand_over(change.give_up)
        if now < leases.may_take_at(self._met_at):
            return {}
        # Not while a worker of ours may still be writing there.
        busy = {node.name for node in self._pool.alive()} | self.holdings.held.keys()
        return {
            name: codec.encode_lease(self.fleet.me, secrets.token_hex(8))
            for name in change.take
            if name not in busy
        }

    def _seen(self, report: SenderReport) -> FleetView:
        beats = readable(report.seen.beats, codec.decode_beat)
        ready = {
            name for name, beat in beats.items() if beat.is_ready and beat.config == self.fleet.fingerprint
        }
        late = {name for name in ready if beats[name].is_late and name != self.fleet.me}
        if self.reason:
            ready.discard(self.fleet.me)
        elif self._is_late(report, ready - late):
            late.add(self.fleet.me)
        held = readable(report.seen.leases, codec.holder)
        return FleetView({node.name: node.senders for node in self.fleet.nodes}, ready, held, late)

    def _is_late(self, report: SenderReport, prompt: Collection[str]) -> bool:
        """Note how far the copies of the others are, ``prompt`` of which take nodes."""
        at = {name: one.position for name, one in report.seen.arrived.items() if one.epoch == self._epoch}
        was_late, me = self._lateness.is_late, self.fleet.me
        others = [position for name, position in at.items() if name != me and name in prompt]
        is_late = self._lateness.note(self.now(), at.get(me, 0), others, leases.LATE_SECONDS)
        if is_late is not was_late:
            log.warning("%s", _LATE if is_late else "its copy has what those of other senders have")
        return is_late

    # What Redis says ---------------------------------------------------------------------------------

    def _take(self, report: SenderReport | RedisFailure | None, order: SenderOrder, asked_at: float) -> None:
        clock = self._mirror.loop.clock()
        if isinstance(report, RedisFailure):
            self._lose(report)
            self._mark = ()
            self._next_at = clock + (0.0 if report.has_changed else AWAY_SECONDS)
        elif report is None:
            self._next_at = clock  # the round has waited
        else:
            if self.problem:
                log.info("Redis: fleet %s is there", self.fleet)
                self.problem = ""
            if self._met_at is None:
                self._met_at = self.now() - report.settled_seconds
            is_first, self._report = self._report is None, report
            if order.events is not None:
                self._told_events = order.events[1]
            self.holdings.note(report, order, asked_at, self.now(), self._has_changed)
            if order.nodes:
                self._leases_at = clock + look_seconds(LEASES_SECONDS, len(order.nodes))
                self._view = self._seen(report)
            is_new = self._note_epoch(report.seen.span)
            if not is_new and order.epoch == self._epoch:
                self._follow(report, order)
            self.tasks.written({name: order.finish[name] for name in report.finished})
            self.tasks.take(report.looked, report.orders, report.done)
            has_more = is_first or is_new or report.upto is not None or bool(report.taken)
            self._mark, self._told_beat = () if has_more else report.mark, order.beat
            self._next_at, self._full_at = clock, clock + POLL_SECONDS
        self._mirror.loop.call_at(self._next_at, self.turn)

    def _lose(self, failure: RedisFailure) -> None:
        if failure.has_changed:
            log.warning("Redis: %s: nothing is taken from it for a while", failure.reason)
            self._met_at, self._has_changed, self._told_events = None, True, b""
            self.holdings.forget_confirmed()
        elif failure.reason != self.problem:
            log.error("Redis: %s; what is being sent goes on until leases end", failure.reason)
        self.problem = failure.reason

    def _note_epoch(self, span: JournalSpan | None) -> bool:
        """Begin anew if the positions do; return whether that is so."""
        if span is None or span.epoch == self._epoch:
            return False
        if self._epoch:
            log.warning("the origin has begun anew: every node is compared in full")
        self.holdings.drop_all()
        self._epoch, self._floor = span.epoch, span.floor
        self._mirror.journal.follow(span.floor, span.floor, (), self._mirror.loop.clock())
        return True

    def _follow(self, report: SenderReport, order: SenderOrder) -> None:
        """Let the journal go on, and begin to serve nodes."""
        self._floor = max(self._floor, report.floor)
        if report.upto is not None:
            self.holdings.drop_others(report.begun)
        head = self._mirror.journal.head if report.upto is None else report.upto
        self._mirror.journal.follow(head, self._floor, report.changes, self._mirror.loop.clock())
        # What is halted counts as sent to nodes that come later: they would miss it.
        if self._pool.is_stopping or self._mirror.guard.halted:
            return
        for name, holding in list(self.holdings.waiting()):
            if name in report.begun and holding.lease.value == order.start.get(name):
                self._serve(name, report.orders.get(name))

    # Serving -----------------------------------------------------------------------------------------

    def _startable(self) -> list[str]:
        """Return the nodes that are held and can be served from now on."""
        report = self._report
        if report is None or report.seen.span is None or report.seen.span.epoch != self._epoch:
            return []
        seen, found = report.seen, []
        span = report.seen.span
        for name, holding in self.holdings.waiting() if not self.reason else ():
            since = service.bound(holding.question, seen.position)
            arrived = seen.arrived.get(self.fleet.me)
            what = service.next_service(arrived, self._copy, since, holding.record, span)
            if isinstance(what, service.Wait):
                self._ask |= what.ask
            else:
                found.append(name)
        return found

    def _serve(self, name: str, orders: bytes | None) -> None:
        spec = next(node for node in self.fleet.nodes if node.name == name)
        span = self._mirror.journal.floor, self._mirror.journal.head
        clock = self._mirror.loop.clock()
        self.holdings.serve(spec, self._epoch, span, clock, lambda node: self.tasks.prepare(node, orders))

    def finish(self) -> None:
        """Hand over all nodes, with their cursors, and end the process that talks to Redis."""
        self.link.wait(FINISH_SECONDS)
        if not self.link.is_busy and self.holdings.held:
            self.holdings.release_all()
            self._copy, self._proof, self._mark = NO_COPY, "", ()
            self._begin_round()
            self.link.wait(FINISH_SECONDS)
        self.link.close()


_LATE = "its copy stays behind those of other senders, which serve what they may"
