"""What a machine of a fleet does with Redis in one go: an order of its master, and the report of it.

The master decides, and never waits for Redis; ``link`` has another process do the rounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from inosync.changes import Change
from inosync.fleet import order_store, service
from inosync.fleet.records import Arrived, JournalSpan, NodeRecord, OriginPosition
from inosync.fleet.recovery import Recovery

if TYPE_CHECKING:
    from inosync.fleet.store import Seen, Store

Positioned = Sequence[tuple[int, Change]]
"""Changes with their positions, in order."""

MAX_CHANGES = 5_000
"""Changes that a sender reads in one round."""
MAX_MEMBERS = 300_000
"""Changes that are kept in Redis; with more, the nodes that are farthest behind are compared in full."""
OFTEN_NODES = 1_000
"""So many nodes are all looked at as often as few."""
SELDOM = 5
"""With more of them that is done less often, down to a part of this."""


def look_seconds(seconds: float, nodes: int) -> float:
    """Return the time between two looks at all nodes, which is ``seconds`` for few.

    Each sender looks at the nodes of all, so what that costs grows with the square of the fleet.
    """
    return seconds * min(max(nodes / OFTEN_NODES, 1), SELDOM)


@dataclass(frozen=True, slots=True)
class OriginOrder:
    """What the origin wants to be done."""

    nodes: tuple[str, ...]
    senders: tuple[str, ...]
    value: bytes
    """The value of the lease of the origin."""
    own: bytes
    """How the values of earlier processes of this origin begin."""
    config: str
    is_new: bool = False
    """Whether the lease is taken, and nothing but read."""
    recovery: Recovery | None = None
    """What is written first when Redis is met."""
    span: JournalSpan | None = None
    """What the journal holds once ``changes`` are appended."""
    changes: Positioned = ()
    answer: OriginPosition | None = None
    arrived: Mapping[str, Arrived] = field(default_factory=dict)
    give: Mapping[str, bytes] = field(default_factory=dict)
    """Orders for nodes that Redis does not have yet."""
    find: tuple[str, ...] = ()
    """The nodes for whose comparison a client waits."""
    events_known: Mapping[str, bytes] = field(default_factory=dict)
    """By sender: the number of the events that the origin has."""
    reads_all: bool = True
    """Whether to look at nodes and senders, which takes longer the more of them there are."""


@dataclass(frozen=True, slots=True)
class OriginReport:
    """What has become of it."""

    is_origin: bool
    """False: another machine is the origin, and nothing was done."""
    seen: Seen | None = None
    """None: nodes and senders were not looked at."""
    asked: int = 0
    """The number of the last question of a sender."""
    statuses: Mapping[str, bytes] = field(default_factory=dict)
    crowded: int = 0
    """The position up to which there are too many changes; 0 if there are not."""
    orders: Mapping[str, bytes] = field(default_factory=dict)
    """The orders for nodes, and"""
    done: Mapping[str, bytes] = field(default_factory=dict)
    """what was done of them, if ``seen`` is there."""
    found: Mapping[str, bytes] = field(default_factory=dict)
    """What comparisons of the nodes of ``find`` have found."""
    ages: Mapping[str, float] = field(default_factory=dict)
    """By sender: how many seconds ago it was heard of."""
    events: Mapping[str, tuple[bytes, bytes]] = field(default_factory=dict)
    """By sender: number and text of events that the origin does not have."""


@dataclass(frozen=True, slots=True)
class SenderOrder:
    """What a sender wants to be done, in this order."""

    me: str
    nodes: tuple[str, ...]
    """The nodes whose leases are looked at; none: neither these nor the senders are."""
    senders: tuple[str, ...]
    copy: str
    beat: bytes
    epoch: str
    """That of the positions here; empty: the sender has none yet."""
    after: int
    """The position up to which it knows all changes."""
    status: bytes = b""
    events: tuple[int, bytes] | None = None
    """What happened to its nodes, and a number of that; None: nothing new."""
    confirm: Mapping[str, tuple[bytes, int]] = field(default_factory=dict)
    """By node: the value of the lease, and the cursor."""
    finish: Mapping[str, tuple[bytes, bytes, bytes]] = field(default_factory=dict)
    """By node: the value of the lease, which orders were done, and what a comparison has found."""
    release: Mapping[str, tuple[bytes, bool]] = field(default_factory=dict)
    """By node: the value of the lease, and whether all is tidy."""
    renew: Mapping[str, bytes] = field(default_factory=dict)
    take: Mapping[str, bytes] = field(default_factory=dict)
    ask: bool = False
    serve: Mapping[str, bytes] = field(default_factory=dict)
    """By node: the value of its lease. None of these may be sent what is not noted before."""
    start: Mapping[str, bytes] = field(default_factory=dict)
    """The same, of nodes that are served from now on."""
    mark: tuple[bytes | None, ...] = ()
    """What ``Store.mark`` was: if it still is, the round ends. Empty: it does not."""
    wait_seconds: float = 0.0
    """How long the round waits first, if nothing arrives before."""

    @property
    def does_something(self) -> bool:
        """Whether there is anything to be done but to look for new changes."""
        does = (
            self.nodes,
            self.status,
            self.events,
            self.confirm,
            self.finish,
            self.release,
            self.renew,
            self.take,
        )
        return self.ask or bool(self.start) or any(map(bool, does))


@dataclass(frozen=True, slots=True)
class SenderReport:
    """What has become of it."""

    seen: Seen
    settled_seconds: float
    confirmed: frozenset[str] = frozenset()
    renewed: frozenset[str] = frozenset()
    taken: Mapping[str, tuple[int, NodeRecord | None]] = field(default_factory=dict)
    question: int | None = None
    upto: int | None = None
    """The position up to which all changes are known now; None if there is nothing new."""
    changes: Positioned = ()
    begun: frozenset[str] = frozenset()
    """The nodes that may be sent all up to ``upto``, or up to the position before if there is none."""
    floor: int = 0
    """Changes up to here may be missing."""
    finished: frozenset[str] = frozenset()
    looked: tuple[str, ...] = ()
    """The nodes whose orders were looked at: those that are begun, and now and then all that are served."""
    orders: Mapping[str, bytes] = field(default_factory=dict)
    done: Mapping[str, bytes] = field(default_factory=dict)
    """Which of the orders were done."""
    mark: tuple[bytes | None, ...] = ()
    """``Store.mark`` before anything else was read."""


def origin_round(store: Store, order: OriginOrder) -> OriginReport:
    """Do what the origin wants; StoreError or InstanceChanged."""
    from inosync.fleet.origin_store import OriginStore  # it imports the client

    origin = OriginStore(store)
    if order.is_new:
        if not origin.take_origin(order.value, order.own):
            return OriginReport(False)
    elif not origin.renew_origin(order.value):
        return OriginReport(False)
    if order.recovery is not None:
        if not origin.recover(order.value, order.recovery, order.changes):
            return OriginReport(False)
        origin.set_config(order.config)
    elif order.span is not None and not origin.append(order.value, order.span, order.changes):
        return OriginReport(False)
    if order.answer is not None and not origin.say(order.value, order.answer, order.arrived):
        return OriginReport(False)
    if order.give and not order_store.give(store, order.value, order.give):
        return OriginReport(False)
    asked = store.asked()
    if not order.reads_all:
        return OriginReport(True, None, asked)
    seen = store.read(order.nodes, order.senders)
    too_many = origin.members() - MAX_MEMBERS
    crowded = origin.position_at(too_many + MAX_MEMBERS // 10) if too_many > 0 else 0
    orders, done = order_store.read(store, order.nodes)
    found = order_store.found(store, order.find)
    ages, statuses = origin.beat_ages(order.senders), origin.statuses(order.senders)
    events = origin.events(order.senders, order.events_known)
    return OriginReport(True, seen, asked, statuses, crowded, orders, done, found, ages, events)


def sender_round(store: Store, order: SenderOrder) -> SenderReport | None:
    """Do what a sender wants; None if there is nothing new. StoreError or InstanceChanged."""
    from inosync.fleet.sender_store import SenderStore  # it imports the client

    sender = SenderStore(store)
    if order.wait_seconds > 0:
        store.wait(order.me, order.wait_seconds)
    mark = store.mark(order.me)
    if order.mark == mark:
        return None
    confirmed = sender.confirm(order.confirm, order.epoch) if order.confirm else set()
    finished = {node for node, what in order.finish.items() if order_store.finish(store, node, *what)}
    for node, (value, is_tidy) in order.release.items():
        sender.release(node, value, is_tidy)
    renewed = sender.renew(order.renew) if order.renew else set()
    taken = {}
    for node, value in order.take.items():
        if (found := sender.take(node, value)) is not None:
            taken[node] = found
    question = sender.ask() if order.ask else None
    sender.beat(order.me, order.beat)
    if order.status:
        sender.tell(order.me, order.status)
    if order.events is not None:
        sender.tell_events(order.me, *order.events)
    seen = store.read((), order.senders if order.nodes else (order.me,), order.nodes)
    upto, changes, begun = None, list[tuple[int, Change]](), set[str]()
    looked = (*order.serve, *order.start) if order.nodes else tuple(order.start)
    orders, done = order_store.read(store, looked)
    span, floor = seen.span, 0 if seen.span is None else seen.span.floor
    if span is not None and span.epoch == order.epoch:
        wanted = service.reach(seen.arrived.get(order.me), order.copy, span)
        if wanted is not None and wanted > order.after:
            changes = sender.changes(order.after, wanted, MAX_CHANGES)
            upto = changes[-1][0] if len(changes) == MAX_CHANGES else wanted
        at = order.after if upto is None else upto
        values = order.start if upto is None else {**order.serve, **order.start}
        if values:
            begun = sender.begin(values, order.epoch, at)
        again = sender.span()  # what was dropped meanwhile may be missing in what was read
        if again is None or again.epoch != order.epoch:
            upto, changes, begun = None, [], set()
        else:
            floor = again.floor
    return SenderReport(
        seen,
        store.settled_seconds,
        frozenset(confirmed),
        frozenset(renewed),
        taken,
        question,
        upto,
        tuple(changes),
        frozenset(begun),
        floor,
        frozenset(finished),
        looked,
        orders,
        done,
        mark,
    )
