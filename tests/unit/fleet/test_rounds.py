"""What a machine does with Redis in one go, with a real Redis on loopback."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from support.redis_server import REDIS, RedisServer
from support.wait import until

from inosync.changes import Change, Kind
from inosync.fleet import order_store, rounds
from inosync.fleet.leases import TTL_SECONDS
from inosync.fleet.origin_store import OriginStore
from inosync.fleet.passwords import Passwords
from inosync.fleet.records import Arrived, JournalSpan, NodeRecord, OriginPosition
from inosync.fleet.recovery import Recovery
from inosync.fleet.rounds import OriginOrder, SenderOrder, SenderReport, origin_round
from inosync.fleet.sender_store import SenderStore
from inosync.fleet.store import InstanceChanged, Store, StoreError

pytestmark = pytest.mark.skipif(REDIS is None, reason="redis-server is not installed")
ORIGIN = OriginOrder(("n",), ("eu",), b"m /etc/x 1", b"m /etc/x ", "config", is_new=True)
DOC = Path(__file__).resolve().parents[3] / "docs" / "fleet.rst"
N = frozenset({"n"})
SENDER = SenderOrder("eu", ("n",), ("eu",), "copy", b"1 copy config ", "e", 0)


def sender_round(store: Store, order: SenderOrder) -> SenderReport:
    """Do a round that does not end at once."""
    report = rounds.sender_round(store, order)
    assert report is not None
    return report


@pytest.fixture
def store(server: RedisServer) -> Iterator[Store]:
    client = redis.Redis.from_url(server.url)
    client.flushall()
    client.close()
    store = Store(server.url, "web")
    store.open()
    yield store
    store.close()


def changes(*positions: int) -> tuple[tuple[int, Change], ...]:
    return tuple((at, Change(1, b"%d" % at, Kind.NAME)) for at in positions)


@pytest.fixture
def met(store: Store) -> Store:
    """A store with an origin, changes up to 5, and a copy that has arrived up to 4."""
    assert origin_round(store, ORIGIN).is_origin
    recovery = Recovery(True, 0, JournalSpan("e", 0, 5), {})
    assert origin_round(
        store, replace(ORIGIN, is_new=False, recovery=recovery, changes=changes(1, 3, 5))
    ).is_origin
    arrived = {"eu": Arrived("e", 4, "copy")}
    order = replace(
        ORIGIN, is_new=False, span=JournalSpan("e", 0, 5), answer=OriginPosition(0, "e", 5), arrived=arrived
    )
    assert origin_round(store, order).seen is not None
    return store


def test_second_origin_is_refused_and_the_same_machine_is_not(met: Store) -> None:
    assert not origin_round(met, replace(ORIGIN, value=b"other /etc/x 1", own=b"other /etc/x ")).is_origin
    assert not origin_round(met, replace(ORIGIN, value=b"m /etc/x 2", is_new=False)).is_origin
    assert origin_round(met, replace(ORIGIN, value=b"m /etc/x 2")).is_origin
    assert not origin_round(met, replace(ORIGIN, is_new=False)).is_origin, "the process before has ended"


def test_origin_looks_at_nodes_only_when_it_wants_to(met: Store) -> None:
    order = replace(ORIGIN, is_new=False, span=JournalSpan("e", 0, 6), changes=changes(6), reads_all=False)
    report = origin_round(met, order)
    assert (report.is_origin, report.seen) == (True, None)
    assert SenderStore(met).span() == JournalSpan("e", 0, 6)


def test_origin_hears_of_too_many_changes(met: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "MAX_MEMBERS", 2)
    assert origin_round(met, replace(ORIGIN, is_new=False)).crowded == 3
    monkeypatch.setattr(rounds, "MAX_MEMBERS", 3)
    assert origin_round(met, replace(ORIGIN, is_new=False)).crowded == 0


def test_sender_reads_what_has_arrived(met: Store) -> None:
    report = sender_round(met, SENDER)
    assert (report.upto, report.changes) == (4, changes(1, 3))
    report = sender_round(met, replace(SENDER, after=4))
    assert (report.upto, report.changes) == (None, ())


@pytest.mark.parametrize(
    "order", [replace(SENDER, copy="another"), replace(SENDER, epoch="other"), replace(SENDER, epoch="")]
)
def test_sender_reads_nothing_with_another_copy_or_epoch(met: Store, order: SenderOrder) -> None:
    report = sender_round(met, order)
    assert (report.upto, report.changes, report.begun) == (None, (), frozenset())


def test_sender_reads_many_changes_in_several_rounds(met: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "MAX_CHANGES", 1)
    report = sender_round(met, SENDER)
    assert (report.upto, report.changes) == (1, changes(1))
    report = sender_round(met, replace(SENDER, after=1))
    assert (report.upto, report.changes) == (3, changes(3))
    report = sender_round(met, replace(SENDER, after=3))
    assert (report.upto, report.changes) == (4, ())


def test_sender_takes_begins_confirms_and_releases(met: Store) -> None:
    report = sender_round(met, replace(SENDER, take={"n": b"eu 1"}))
    assert report.taken == {"n": (1, None)}
    assert report.seen.leases == {"n": b"eu 1"}
    assert sender_round(met, replace(SENDER, take={"n": b"us 2"})).taken == {}
    report = sender_round(met, replace(SENDER, start={"n": b"eu 1"}))
    assert (report.upto, report.begun) == (4, N)
    assert met.read(["n"], []).nodes == {"n": NodeRecord("e", None, 4)}
    order = replace(SENDER, after=4, serve={"n": b"eu 1"}, confirm={"n": (b"eu 1", 4)}, renew={"n": b"eu 1"})
    report = sender_round(met, order)
    assert (report.confirmed, report.renewed, report.begun) == (N, N, frozenset())
    sender_round(met, replace(SENDER, after=4, release={"n": (b"eu 1", True)}))
    seen = met.read(["n"], [])
    assert (seen.nodes, seen.leases) == ({"n": NodeRecord("e", 4, 4, tidy=True)}, {})


def test_nothing_is_begun_or_confirmed_without_the_lease(met: Store) -> None:
    sender_round(met, replace(SENDER, take={"n": b"eu 1"}))
    wrong = {"n": b"eu 2"}
    order = replace(SENDER, start=wrong, serve=wrong, renew=wrong, confirm={"n": (b"eu 2", 4)})
    report = sender_round(met, order)
    assert (report.begun, report.renewed, report.confirmed) == (frozenset(), frozenset(), frozenset())
    assert met.read(["n"], []).nodes == {}


def test_what_is_served_is_noted_before_the_changes_are_told(met: Store) -> None:
    sender_round(met, replace(SENDER, take={"n": b"eu 1"}))
    report = sender_round(met, replace(SENDER, serve={"n": b"eu 1"}))
    assert (report.upto, report.begun) == (4, N)
    assert met.read(["n"], []).nodes["n"].upto == 4


def test_sender_says_how_it_and_its_nodes_are(met: Store) -> None:
    sender_round(met, replace(SENDER, status=b"text"))
    report = origin_round(met, replace(ORIGIN, is_new=False))
    assert report.statuses == {"eu": b"text"}
    assert report.seen is not None
    assert report.seen.beats == {"eu": SENDER.beat}


def acl_lines() -> dict[str, list[str]]:
    """The users of the documentation, by name."""
    words = [line.split() for line in DOC.read_text().splitlines() if line.startswith("    user inosync-")]
    return {line[1]: line[2:] for line in words}


def test_acl_lines_of_the_documentation_are_enough_and_not_too_much(server: RedisServer) -> None:
    client: Any = redis.Redis.from_url(server.url)
    stores = {}
    client.flushall()
    try:
        for name, words in acl_lines().items():
            client.execute_command(
                "ACL", "SETUSER", name, "reset", *(w.replace("PASSWORD", "pw") for w in words)
            )
            stores[name] = Store(server.url.replace("redis://", f"redis://{name}@"), "www", Passwords("pw"))
            stores[name].open()
        origin, sender = stores["inosync-origin"], stores["inosync-sender"]
        assert origin_round(origin, ORIGIN).is_origin
        recovery = Recovery(True, 0, JournalSpan("e", 0, 5), {})
        order = replace(ORIGIN, is_new=False, recovery=recovery, changes=changes(1, 5))
        assert origin_round(origin, order).is_origin
        arrived = {"eu": Arrived("e", 5, "copy")}
        say = replace(order, recovery=None, answer=OriginPosition(0, "e", 5), arrived=arrived)
        give = {"n": b"0 1 0 0"}
        further = replace(say, span=JournalSpan("e", 1, 5), changes=(), give=give, find=("n",))
        assert origin_round(origin, further).is_origin
        value = {"n": b"eu 1"}
        assert sender_round(
            sender, replace(SENDER, take=value, status=b"{}", events=(1, b"{}"), ask=True)
        ).taken
        waits = replace(SENDER, start=value, renew=value, after=1, wait_seconds=0.01)
        report = sender_round(sender, waits)
        assert (report.begun, report.renewed, report.upto, report.orders) == (N, N, 5, give)
        order_of_end = replace(SENDER, after=5, confirm={"n": (b"eu 1", 5)}, release={"n": (b"eu 1", True)})
        report = sender_round(sender, replace(order_of_end, finish={"n": (b"eu 1", b"1 0 0", b"1 []")}))
        assert (report.confirmed, report.finished) == (N, N)
        with pytest.raises(StoreError):
            OriginStore(sender).append(b"m /etc/x 1", JournalSpan("e", 0, 9), changes(9))
        with pytest.raises(StoreError):
            Store(server.url.replace("redis://", "redis://inosync-sender@"), "other", Passwords("pw")).open()
    finally:
        for name, store in stores.items():
            store.close()
            client.execute_command("ACL", "DELUSER", name)
        client.close()


def test_orders_reach_the_sender_that_serves_a_node_and_come_back_done(met: Store) -> None:
    orders, value = {"n": b"1 3 0 0"}, {"n": b"eu 1"}
    assert origin_round(met, replace(ORIGIN, is_new=False, give=orders)).is_origin
    sender_round(met, replace(SENDER, take=value))
    report = sender_round(met, replace(SENDER, nodes=(), after=4, start=value))
    assert (report.looked, report.orders, report.done) == (("n",), orders, {}), "before anything is sent"
    report = sender_round(met, replace(SENDER, nodes=(), after=4, serve=value))
    assert (report.looked, report.orders) == ((), {}), "not each time"
    report = sender_round(met, replace(SENDER, after=4, serve=value))
    assert (report.looked, report.orders) == (("n",), orders)
    wrong = {"n": (b"eu 2", b"9 9 9", b"")}
    assert sender_round(met, replace(SENDER, after=4, finish=wrong)).finished == frozenset()
    finish = {"n": (b"eu 1", b"3 0 0", b"3 []")}
    report = sender_round(met, replace(SENDER, after=4, serve=value, finish=finish))
    assert (report.finished, report.done) == (N, {"n": b"3 0 0"})
    seen = origin_round(met, replace(ORIGIN, is_new=False, find=("n", "m")))
    assert (seen.orders, seen.done, seen.found) == (orders, {"n": b"3 0 0"}, {"n": b"3 []"})


def test_events_reach_the_origin_once(met: Store) -> None:
    sender_round(met, replace(SENDER, events=(7, b"{}")))
    order = replace(ORIGIN, is_new=False, senders=("eu", "us"))
    assert origin_round(met, order).events == {"eu": (b"7", b"{}")}
    known = replace(order, events_known={"eu": b"7"})
    assert origin_round(met, known).events == {}
    sender_round(met, SENDER)
    assert origin_round(met, known).events == {}
    sender_round(met, replace(SENDER, events=(8, b"[]")))
    sender_round(met, replace(SENDER, me="us", events=(1, b"")))
    assert origin_round(met, known).events == {"eu": (b"8", b"[]"), "us": (b"1", b"")}


def test_orders_of_many_nodes_are_read_in_parts(met: Store) -> None:
    names = tuple(f"n{number}" for number in range(1_100))
    give = {name: b"0 %d 0 0" % number for number, name in enumerate(names) if number % 2}
    report = origin_round(met, replace(ORIGIN, is_new=False, nodes=names, give=give))
    assert (report.orders, report.done) == (give, {})


def test_orders_of_another_origin_are_refused(met: Store) -> None:
    order = replace(ORIGIN, is_new=False, give={"n": b"1 0 0 0"})
    assert not origin_round(met, replace(order, value=b"m /etc/x 2")).is_origin
    assert not order_store.give(met, b"m /etc/x 2", {"n": b"1 0 0 0"})
    assert order_store.read(met, ["n"]) == ({}, {})


def test_origin_knows_when_senders_were_heard_of(met: Store) -> None:
    sender_round(met, SENDER)
    ages = origin_round(met, replace(ORIGIN, is_new=False, senders=("eu", "us"))).ages
    assert ages.keys() == {"eu"}
    assert 0 <= ages["eu"] < TTL_SECONDS


def test_round_ends_at_once_if_there_is_nothing_new(met: Store) -> None:
    mark = sender_round(met, SENDER).mark
    quick = replace(SENDER, mark=mark)
    assert rounds.sender_round(met, quick) is None
    assert rounds.sender_round(met, replace(quick, me="us")) is not None, "its copy is another one"
    span, arrived = JournalSpan("e", 0, 6), {"eu": Arrived("e", 6, "copy")}
    order = replace(ORIGIN, is_new=False, span=span, changes=changes(6))
    assert origin_round(met, order).is_origin
    mark = sender_round(met, quick).mark
    assert rounds.sender_round(met, replace(quick, mark=mark)) is None
    assert origin_round(met, replace(order, answer=OriginPosition(0, "e", 6), arrived=arrived)).is_origin
    assert sender_round(met, replace(quick, mark=mark, after=4)).upto == 6


def test_round_that_waits_ends_when_something_arrives(server: RedisServer, met: Store) -> None:
    mark = sender_round(met, SENDER).mark
    idle = replace(SENDER, mark=mark, wait_seconds=0.01)
    began = time.monotonic()
    assert rounds.sender_round(met, idle) is None
    assert time.monotonic() - began >= 0.01
    patient = replace(idle, after=4, wait_seconds=60.0)
    sender = Store(server.url, "web")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(rounds.sender_round, sender, patient)
        until(lambda: listeners(server) == 2, 30, "the other sender to listen")
        order = replace(ORIGIN, is_new=False, span=JournalSpan("e", 0, 6), changes=changes(6))
        answer = OriginPosition(0, "e", 6)
        assert origin_round(met, replace(order, answer=answer)).is_origin
        assert not waiting.done(), "nothing has arrived"
        assert origin_round(
            met, replace(order, answer=answer, arrived={"us": Arrived("e", 6, "c")})
        ).is_origin
        assert not waiting.done(), "it has arrived at another sender"
        assert origin_round(
            met, replace(order, answer=answer, arrived={"eu": Arrived("e", 6, "copy")})
        ).is_origin
        report = waiting.result(30)
    assert report is not None
    assert (report.upto, report.changes) == (6, changes(5, 6))
    sender.close()
    until(lambda: listeners(server) == 1, 30, "its connection to end")


def listeners(server: RedisServer) -> int:
    """Return how many connections wait for what arrives at the sender."""
    with redis.Redis.from_url(server.url) as client:
        [(_, count)] = client.pubsub_numsub("inosync:web:news:eu")
        return int(count)


def test_wait_ends_with_another_redis_and_goes_on_there(server: RedisServer, met: Store) -> None:
    mark = sender_round(met, SENDER).mark
    idle = replace(SENDER, mark=mark, wait_seconds=0.01)
    assert rounds.sender_round(met, idle) is None
    server.stop()
    with pytest.raises(StoreError):
        rounds.sender_round(met, idle)
    server.start()
    with pytest.raises(InstanceChanged):
        rounds.sender_round(met, idle)
    assert sender_round(met, idle).seen.span is None, "it is empty"
    assert listeners(server) == 1


@pytest.mark.parametrize(
    ("nodes", "expected"), [(0, 0.4), (40, 0.4), (1_000, 0.4), (2_000, 0.8), (5_000, 2.0), (100_000, 2.0)]
)
def test_many_nodes_are_all_looked_at_less_often(nodes: int, expected: float) -> None:
    assert rounds.look_seconds(0.4, nodes) == pytest.approx(expected)


def test_order_that_does_anything_is_no_look_for_changes() -> None:
    idle = replace(SENDER, nodes=(), serve={"n": b"v"})
    assert not idle.does_something
    busy: list[dict[str, Any]] = [
        {"nodes": ("n",)},
        {"status": b"x"},
        {"events": (1, b"x")},
        {"confirm": {"n": (b"v", 1)}},
        {"finish": {"n": (b"v", b"1 0 0", b"")}},
        {"release": {"n": (b"v", True)}},
        {"renew": {"n": b"v"}},
        {"take": {"n": b"v"}},
        {"start": {"n": b"v"}},
        {"ask": True},
    ]
    for what in busy:
        assert replace(idle, **what).does_something, what
