"""A fleet in memory: real decisions; simulated machines, transfers and requests."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import replace

from unit.fleet.machines import (
    LINKS,
    NODES,
    PATHS,
    SENDERS,
    Away,
    Data,
    Held,
    InstanceChanged,
    Machine,
    Origin,
    Redis,
    Sender,
    T,
    covered,
)

from inosync.fleet import leases, recovery, service
from inosync.fleet.leases import TTL_SECONDS, LeasePhase
from inosync.fleet.records import Arrived, NodeRecord, OriginPosition, merged
from inosync.fleet.recovery import OwnBooks, Recovery
from inosync.fleet.service import SendChanges, SendFull, Wait
from inosync.fleet.shares import FleetView, shift


class World:
    """Everything, and what must never happen."""

    def __init__(self, seed: int, drift: float = leases.DRIFT) -> None:
        self.rng = random.Random(seed)

        def rate() -> float:
            return self.rng.choice((1 - drift, 1.0, 1 + drift))

        self.now = 1_000.0
        self.redis = Redis(rate())
        self.origin = Origin(rate(), self.rng.uniform(0, 1e6))
        self.senders = {name: Sender(name, rate(), self.rng.uniform(0, 1e6)) for name in SENDERS}
        self.nodes = {name: dict.fromkeys(PATHS, 0) for name in NODES}
        self.pending: list[Callable[[Data, float], object]] = []
        """Requests that Redis has received and not executed yet."""
        self.changes = self.epochs = self.copies = self.fulls = 0
        self.true_cursors: dict[str, int] = {}
        """Cursors of this epoch that the origin has seen, and kept over its restart."""

    # Clocks and requests

    def clock(self, machine: Machine) -> float:
        return machine.offset + self.now * machine.rate

    def call(self, machine: Machine, act: Callable[[Data, float], T]) -> T:
        """Send a request to Redis."""
        if self.redis.is_down or machine.link == "down":
            raise Away
        if machine.instance != self.redis.instance:
            machine.instance, machine.met_at = self.redis.instance, self.clock(machine)
            raise InstanceChanged
        if machine.link in ("late", "twice"):
            self.pending.append(act)
        if machine.link == "late":
            self.now += 0.5
            raise Away
        slow = self.rng.uniform(0, 4) if machine.link == "slow" else 0.0
        self.now += slow * self.rng.random()
        answer = self.redis.execute(act, self.now)
        self.now += slow
        self.check()
        return answer

    def deliver(self) -> None:
        """Execute what was held up, in any order."""
        self.rng.shuffle(self.pending)
        waiting, self.pending = self.pending, []
        for act in waiting:
            self.redis.execute(act, self.now)

    def restart_redis(self, how: str) -> None:
        """Let Redis go and come back: as it was, without its last second or two, or empty."""
        self.pending = []
        data = {"empty": Data(), "whole": self.redis.data}.get(how)
        self.redis.restart(
            data or self.rng.choice([each for _, each in self.redis.kept] or [self.redis.data])
        )

    # The origin

    def change(self, path: str, relist: bool) -> None:
        self.changes += 1
        self.origin.files[path] = self.changes
        self.origin.events.append(path.partition("/")[0] + "/" if relist else path)

    def restart_origin(self, with_state: bool) -> None:
        epoch = self.origin.epoch
        if with_state:
            self.origin.restart(self.rng.randrange(3))
            kept = {node: record.cursor for node, record in self.origin.seen.items() if record.epoch == epoch}
            self.true_cursors = {node: cursor for node, cursor in kept.items() if cursor is not None}
        else:
            self.epochs += 1
            self.true_cursors = {}
            self.origin.begin_epoch(f"e{self.epochs}")
        self.origin.instance = None

    def origin_beat(self) -> None:
        origin = self.origin
        if not origin.is_up:
            return
        origin.read_events()
        try:
            if origin.appended is None:
                self._recover()
            asked = self.call(origin, lambda data, _: data.asked)
            origin.read_events()
            self._write(asked)
        except Away:
            pass
        except InstanceChanged:
            origin.appended = None

    def _recover(self) -> None:
        origin = self.origin
        span, records = self.call(origin, lambda data, _: (data.span, dict(data.records)))
        books = OwnBooks(origin.epoch, origin.head, origin.floor, dict(origin.seen))
        found = recovery.recover(books, span, records)
        assert found is not None, "Redis is ahead of the only origin"
        done: Recovery = found
        missing = origin.after(done.append_after)

        def act(data: Data, _: float) -> None:
            if data.span != span:
                return
            if done.reset:
                data.journal = {}
            for name, at in missing.items():
                data.journal[name] = max(at, data.journal.get(name, 0))
            for node, record in done.restore.items():
                best = merged(record, data.records.get(node), origin.epoch)
                assert best is not None
                data.records[node] = best
            data.span = done.span

        self.call(origin, act)
        origin.appended = done.span.appended

    def _write(self, asked: int) -> None:
        origin = self.origin
        epoch, head, appended = origin.epoch, origin.head, origin.appended
        assert appended is not None
        new = origin.after(appended)
        settled = origin.settled if origin.settled is not None else recovery.MAX_POSITION
        clean = {
            name: mirror
            for name, mirror in origin.mirrors.items()
            if mirror.copy and mirror.cursor >= settled
        }
        arrived = {name: Arrived(epoch, mirror.cursor, mirror.copy) for name, mirror in clean.items()}

        def act(data: Data, _: float) -> Data:
            if data.span is not None and data.span.epoch == epoch:
                for name, at in new.items():
                    data.journal[name] = max(at, data.journal.get(name, 0))
                data.span = replace(data.span, appended=max(head, data.span.appended))
                data.position = OriginPosition(asked, epoch, head)
                data.arrived |= arrived
            return data.copy()

        data = self.call(origin, act)
        origin.appended = head
        if data.span is None or data.span.epoch != epoch:
            origin.appended = None
            return
        origin.seen = data.records
        for node, record in data.records.items():
            if record.epoch == epoch and record.cursor is not None:
                self.true_cursors[node] = max(self.true_cursors.get(node, 0), record.cursor)
        for name, (copy, _, _) in data.beats.items():
            mirror = origin.mirrors[name]
            if copy != mirror.copy:
                mirror.copy = ""
                if mirror.to_copy != copy:
                    mirror.upto, mirror.to_copy = None, copy
        if self.clock(origin) < leases.may_take_at(origin.met_at):
            return  # senders may still restore records
        positions = [one.position for one in arrived.values()]
        low = recovery.disposable(epoch, NODES, data.records, positions, data.span.floor)

        def trim(data: Data, _: float) -> None:
            if data.span is not None and data.span.epoch == epoch:
                data.journal = {name: at for name, at in data.journal.items() if at > low}
                data.span = replace(data.span, floor=max(low, data.span.floor))

        self.call(origin, trim)
        origin.floor = max(origin.floor, min([low, *(one.cursor for one in clean.values())]))
        origin.journal = origin.after(origin.floor)
        copies = {name: mirror.copy for name, mirror in origin.mirrors.items()}
        origin.saved = [*origin.saved[-2:], (origin.floor, dict(data.records), copies)]

    def mirror(self, name: str) -> None:
        """Do one step of the transfer from the origin to a sender."""
        origin, mirror, sender = self.origin, self.origin.mirrors[name], self.senders[name]
        if not origin.is_up or not sender.is_reached:
            return
        if mirror.upto is None:
            if not mirror.copy and not mirror.to_copy:
                return
            origin.read_events()
            names: Iterable[str] = origin.after(mirror.cursor) if mirror.copy else PATHS
            mirror.todo = list(dict.fromkeys(path for each in names for path in covered(each)))
            mirror.upto = origin.head
        elif mirror.todo:
            path = mirror.todo.pop(self.rng.randrange(len(mirror.todo)))
            sender.files[path] = origin.files[path]
        else:
            mirror.cursor = mirror.upto
            mirror.copy = mirror.copy or mirror.to_copy
            mirror.upto = None

    # The senders

    def replace_copy(self, name: str, whole: bool) -> None:
        """Let a copy go back to what was there earlier, or mount an empty one."""
        sender = self.senders[name]
        self.copies += 1
        sender.copy = f"{name} {self.copies}"
        for path in PATHS:
            if not whole or self.rng.random() < 0.5:
                sender.files[path] = 0
        sender.held, sender.known, sender.instance = {}, {}, None

    def kill_sender(self, name: str) -> None:
        sender = self.senders[name]
        sender.is_up = False
        sender.held, sender.known, sender.instance = {}, {}, None

    def sender_beat(self, name: str) -> None:
        sender = self.senders[name]
        if not sender.is_up:
            return
        self._let_go(sender)
        try:
            if sender.must_restore:
                self._restore(sender)
            self._renew(sender)
            self._shift(sender)
        except Away:
            pass
        except InstanceChanged:
            sender.must_restore = True

    def _let_go(self, sender: Sender) -> None:
        for node, held in list(sender.held.items()):
            phase = held.lease.phase(self.clock(sender))
            if phase is LeasePhase.OVER:
                del sender.held[node]
            elif phase is LeasePhase.STOP and held.upto is not None:
                held.upto, held.has_failed = None, True

    def _restore(self, sender: Sender) -> None:
        known = dict(sender.known)

        def act(data: Data, _: float) -> bool:
            if data.span is None:
                return False
            for node, record in known.items():
                best = merged(record, data.records.get(node), data.span.epoch)
                if best is not None and record.epoch == data.span.epoch:
                    data.records[node] = best
            return True

        sender.must_restore = not self.call(sender, act)

    def _renew(self, sender: Sender) -> None:
        for node, held in list(sender.held.items()):
            asked_at = self.clock(sender)
            value = held.lease.value
            if held.lease.phase(asked_at) is LeasePhase.HELD:
                continue

            def act(data: Data, clock: float, node: str = node, value: bytes = value) -> bool:
                has = data.has_lease(node, value)
                if has:
                    data.leases[node] = (value, clock + TTL_SECONDS)
                return has

            has = self.call(sender, act)
            lease = held.lease.renewed(asked_at, self.clock(sender)) if has else None
            if lease is None:
                del sender.held[node]
            else:
                held.lease = lease

    def _shift(self, sender: Sender) -> None:
        may_take = self.clock(sender) >= leases.may_take_at(sender.met_at)
        name, copy = sender.name, sender.copy

        def beat(data: Data, clock: float) -> Data:
            arrived = data.arrived.get(name)
            clean = data.span is not None and service.may_send(arrived, copy, data.span)
            data.beats[name] = (copy, clean and may_take, clock + TTL_SECONDS)
            return data.copy()

        data = self.call(sender, beat)
        ready = {each for each, (_, ready, _) in data.beats.items() if ready}
        holders = {node: value.decode().split()[0] for node, (value, _) in data.leases.items()}
        found = shift(FleetView(NODES, ready, holders), name)
        for node in found.give_up:
            held = sender.held.get(node)
            if held is None or held.upto is None:
                value = held.lease.value if held else data.leases[node][0]
                sender.held.pop(node, None)
                self._release(sender, node, value, held is not None and not held.has_failed)
        for node in found.take:
            self._take(sender, node)
        for node, held in sender.held.items():
            if held.upto is None:
                self._begin(sender, node, held, data)

    def _release(self, sender: Sender, node: str, value: bytes, tidy: bool) -> None:
        def act(data: Data, _: float) -> None:
            if data.has_lease(node, value):
                del data.leases[node]
                if node in data.records:
                    data.records[node] = replace(data.records[node], tidy=tidy)

        self.call(sender, act)

    def _take(self, sender: Sender, node: str) -> None:
        sender.taken += 1
        value = f"{sender.name} {self.rng.random()} {sender.taken}".encode()
        asked_at = self.clock(sender)

        def act(data: Data, clock: float) -> tuple[int, NodeRecord | None] | None:
            if node in data.leases:
                return None
            data.leases[node] = (value, clock + TTL_SECONDS)
            data.asked += 1
            record = data.records.get(node)
            if record is not None:
                data.records[node] = replace(record, tidy=False)
            return data.asked, record

        got = self.call(sender, act)
        lease = leases.taken(value, asked_at, self.clock(sender)) if got else None
        if got and lease:
            sender.held[node] = Held(lease, *got)

    def _begin(self, sender: Sender, node: str, held: Held, data: Data) -> None:
        """Begin the next batch to a node, if there is one. ``data``: what was read."""
        if data.span is None or held.lease.phase(self.clock(sender)) in (LeasePhase.STOP, LeasePhase.OVER):
            return
        held.since = held.since or service.bound(held.question, data.position)
        record = data.records.get(node)
        epoch, value = data.span.epoch, held.lease.value
        next_one = service.next_service(
            data.arrived.get(sender.name), sender.copy, held.since, record, data.span
        )
        if isinstance(next_one, Wait) and next_one.ask:

            def ask(data: Data, _: float) -> int:
                data.asked += 1
                return data.asked

            held.question, held.since = self.call(sender, ask), None
        if not isinstance(next_one, SendFull | SendChanges):
            return
        upto, after = next_one.upto, next_one.after if isinstance(next_one, SendChanges) else None

        def act(data: Data, _: float) -> dict[str, int] | None:
            base = upto if after is None else after
            span = data.span
            if not data.has_lease(node, value) or span is None or span.epoch != epoch or base < span.floor:
                return None
            data.records[node] = service.begun(data.records.get(node), epoch, upto)
            return {name: at for name, at in data.journal.items() if base < at <= upto}

        names = self.call(sender, act)
        if names is None:
            return
        if after is None:
            self.fulls += 1
            known = self.origin.seen.get(node)
            if self.origin.appended is not None and self.origin.instance == self.redis.instance:
                cursor = known.cursor if known is not None and known.epoch == epoch else None
                fallen = cursor is None or cursor < data.span.floor
                assert fallen, f"{node}: full mirror with a cursor {cursor}"
        files = dict.fromkeys(path for each in names for path in covered(each))
        held.record = service.begun(record, epoch, upto)
        held.todo, held.upto = list(PATHS if after is None else files), upto

    def send(self, name: str, node: str) -> None:
        """Do one step of the transfer from a sender to a node."""
        sender = self.senders[name]
        held = sender.held.get(node)
        if held is None or held.upto is None or not sender.is_up:
            return
        if held.lease.phase(self.clock(sender)) in (LeasePhase.STOP, LeasePhase.OVER):
            return
        if held.todo:
            path = held.todo.pop(self.rng.randrange(len(held.todo)))
            before, now = self.nodes[node][path], sender.files[path]
            assert now >= before, f"{node}: {name} replaces {before} of {path} by {now}"
            self.nodes[node][path] = now
            return
        assert held.record is not None
        upto, value = held.upto, held.lease.value
        record = service.confirmed(held.record, upto)
        held.upto = None
        held.record = sender.known[node] = record

        def act(data: Data, _: float) -> None:
            if data.has_lease(node, value) and data.span is not None and data.span.epoch == record.epoch:
                data.records[node] = merged(record, data.records.get(node), record.epoch) or record

        try:
            self.call(sender, act)
        except Away:
            held.has_failed = True
        except InstanceChanged:
            held.has_failed = sender.must_restore = True

    # What must be so

    def check(self) -> None:
        """No two senders write to one node; no cursor that is known falls off the journal."""
        for node in NODES:
            writers = [
                sender.name
                for sender in self.senders.values()
                if node in sender.held
                and sender.held[node].lease.phase(self.clock(sender)) is not LeasePhase.OVER
            ]
            assert len(writers) <= 1, f"{node}: {writers} at once"
        span = self.redis.data.span
        if span is not None and span.epoch == self.origin.epoch:
            fallen = {node: at for node, at in self.true_cursors.items() if at < span.floor}
            assert not fallen, f"the journal begins at {span.floor}, and cursors are {fallen}"

    def healthy_round(self, seconds: float) -> None:
        """Let everything do what it has to do."""
        self.now += seconds
        self.deliver()
        self.origin_beat()
        for name in SENDERS:
            for _ in range(len(PATHS) + 3):
                self.mirror(name)
            self.sender_beat(name)
            for node in NODES:
                for _ in range(len(PATHS) + 2):
                    self.send(name, node)
        self.check()

    def heal(self) -> None:
        self.redis.is_down = False
        self.origin.is_up = True
        self.origin.link = "ok"
        for sender in self.senders.values():
            sender.link, sender.is_up, sender.is_reached = "ok", True, True

    def is_level(self) -> bool:
        return all(files == self.origin.files for files in self.nodes.values())

    def settle(self) -> None:
        """Heal everything and wait until all nodes are level."""
        self.heal()
        for _ in range(60):
            self.healthy_round(2.0)
            if self.is_level() and not self.origin.events:
                return
        raise AssertionError(f"not level: {self.nodes} {self.origin.files} {self.redis.data}")

    def storm(self, steps: int, faults: float) -> None:
        """Do as many things at random; this part of them are faults."""
        for _ in range(steps):
            if self.rng.random() < faults:
                self._fault()
            else:
                self.step()

    def _fault(self) -> None:
        rng = self.rng
        name = rng.choice(SENDERS)
        machine = rng.choice([self.origin, *self.senders.values()])
        acts: list[Callable[[], object]] = [
            *[lambda: setattr(machine, "link", rng.choice(LINKS))] * 4,
            *[self.deliver] * 2,
            *[lambda: setattr(self, "now", self.now + rng.uniform(0, 20))] * 2,
            lambda: setattr(self.redis, "is_down", not self.redis.is_down),
            lambda: self.restart_redis(rng.choice(("whole", "older", "older", "empty"))),
            *[lambda: setattr(self.senders[name], "is_reached", rng.random() < 0.4)] * 3,
            lambda: self.kill_sender(name),
            *[lambda: setattr(machine, "is_up", True)] * 3,
            lambda: self.replace_copy(name, whole=rng.random() < 0.5),
            lambda: setattr(self.origin, "is_up", False),
            lambda: self.restart_origin(with_state=rng.random() < 0.7),
        ]
        rng.choice(acts)()

    def step(self) -> None:
        """Do something at random, as a machine would do it by itself."""
        rng = self.rng
        name = rng.choice(SENDERS)
        node = rng.choice(list(NODES))
        acts: list[Callable[[], object]] = [
            self.origin_beat,
            *[lambda: self.mirror(name)] * 3,
            *[lambda: self.sender_beat(name)] * 3,
            *[lambda: self.send(name, node)] * 6,
            lambda: self.change(rng.choice(PATHS), rng.random() < 0.3),
            lambda: setattr(self, "now", self.now + rng.choice((0.1, 0.5, 2.0))),
        ]
        rng.choice(acts)()
        self.check()
