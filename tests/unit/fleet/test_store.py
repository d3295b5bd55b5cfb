"""The store, with a real Redis on loopback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from support.redis_server import REDIS, RedisServer

from inosync.changes import Change, Kind, Step
from inosync.fleet.origin_store import OriginStore
from inosync.fleet.passwords import Passwords
from inosync.fleet.records import Arrived, JournalSpan, NodeRecord, OriginPosition
from inosync.fleet.recovery import Recovery
from inosync.fleet.sender_store import SenderStore
from inosync.fleet.store import CHUNK, InstanceChanged, Store, StoreError

needs_redis = pytest.mark.skipif(REDIS is None, reason="redis-server is not installed")
ORIGIN = b"origin 1"
SECRET = "s3cret"


@pytest.fixture
def raw(server: RedisServer) -> Iterator[redis.Redis]:
    """A client of the same Redis, which is empty."""
    client = redis.Redis.from_url(server.url)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def store(server: RedisServer, raw: redis.Redis) -> Iterator[Store]:
    """A store of the fleet "web", with an origin."""
    raw.ping()
    store = Store(server.url, "web")
    store.open()
    assert OriginStore(store).take_origin(ORIGIN)
    assert OriginStore(store).recover(ORIGIN, Recovery(True, 0, JournalSpan("e", 0, 0), {}), [])
    yield store
    store.close()


def change(path: bytes, kind: Kind = Kind.NAME, step: Step = Step.CHANGED) -> Change:
    return Change(0, path, kind, step=step)


def append(store: Store, *paths: bytes, after: int = 0) -> None:
    changes = [(after + number, change(path)) for number, path in enumerate(paths, 1)]
    assert OriginStore(store).append(ORIGIN, JournalSpan("e", 0, after + len(paths)), changes)


def batch(store: Store, after: int, upto: int, epoch: str = "e") -> list[Change]:
    """Have a batch to the node begun that a sender has taken, and return what it holds."""
    assert SenderStore(store).begin({"n": b"s 1"}, epoch, upto) == {"n"}
    return [one for _, one in SenderStore(store).changes(after, upto, 10_000)]


@needs_redis
def test_batch_holds_what_a_node_lacks(store: Store) -> None:
    append(store, b"a", b"b\n\xff", b"c", b"a")
    taken = SenderStore(store).take("n", b"s 1")
    assert taken == (1, None)
    assert batch(store, 0, 3, "e") == [change(b"b\n\xff"), change(b"c")]
    assert store.read(["n"], []).nodes == {"n": NodeRecord("e", None, 3)}
    assert SenderStore(store).confirm({"n": (b"s 1", 3)}, "e") == {"n"}
    assert batch(store, 3, 4, "e") == [change(b"a")]
    assert SenderStore(store).confirm({"n": (b"s 1", 4)}, "e") == {"n"}
    assert batch(store, 4, 4, "e") == []
    assert store.read(["n"], []).nodes == {"n": NodeRecord("e", 4, 4)}


@needs_redis
def test_nothing_begins_beyond_what_the_journal_holds(store: Store) -> None:
    append(store, b"a", b"b", b"c")
    assert OriginStore(store).append(ORIGIN, JournalSpan("e", 2, 3), [])
    SenderStore(store).take("n", b"s 1")
    assert SenderStore(store).begin({"n": b"s 1"}, "e", 1) == set()
    assert SenderStore(store).begin({"n": b"s 1"}, "e", 4) == set()
    assert SenderStore(store).begin({"n": b"s 1"}, "old", 3) == set()
    assert store.read(["n"], []).nodes == {}
    assert SenderStore(store).begin({"n": b"s 1"}, "e", 2) == {"n"}
    assert batch(store, 2, 3) == [change(b"c")]


@needs_redis
def test_change_that_is_appended_late_moves_nothing_back(store: Store) -> None:
    append(store, b"a", b"b", b"a")
    assert OriginStore(store).append(ORIGIN, JournalSpan("e", 0, 1), [(1, change(b"a"))])
    SenderStore(store).take("n", b"s 1")
    assert batch(store, 2, 3, "e") == [change(b"a")]
    assert store.read([], []).span == JournalSpan("e", 0, 3)


@needs_redis
def test_many_changes_are_appended_in_their_order(store: Store) -> None:
    names = [b"%d" % number for number in range(2 * CHUNK + 1)]
    append(store, *names)
    SenderStore(store).take("n", b"s 1")
    assert [each.path for each in batch(store, 0, len(names))] == names


@needs_redis
def test_lease_is_held_by_its_value_alone(store: Store, raw: redis.Redis) -> None:
    assert SenderStore(store).take("n", b"s 1") == (1, None)
    assert SenderStore(store).take("n", b"t 1") is None
    assert SenderStore(store).renew({"n": b"t 1", "m": b"s 1"}) == set()
    raw.pexpire("inosync:web:lease:n", 5_000)
    assert SenderStore(store).renew({"n": b"s 1"}) == {"n"}
    assert raw.pttl("inosync:web:lease:n") > 5_000
    assert not SenderStore(store).release("n", b"t 1", tidy=True)
    assert store.read(["n", "m"], []).leases == {"n": b"s 1"}
    assert SenderStore(store).release("n", b"s 1", tidy=True)
    assert SenderStore(store).renew({"n": b"s 1"}) == set()
    assert SenderStore(store).take("n", b"t 1") == (2, None)


@needs_redis
def test_late_requests_of_a_lease_that_is_over_do_nothing(store: Store) -> None:
    append(store, b"a")
    SenderStore(store).take("n", b"s 1")
    SenderStore(store).release("n", b"s 1", tidy=False)
    SenderStore(store).take("n", b"s 2")
    assert SenderStore(store).begin({"n": b"s 1", "m": b"s 1"}, "e", 1) == set()
    assert SenderStore(store).confirm({"n": (b"s 1", 1), "m": (b"s 1", 1)}, "e") == set()
    assert not SenderStore(store).release("n", b"s 1", tidy=True)
    assert store.read(["n"], []).nodes == {}
    assert store.read(["n"], []).leases == {"n": b"s 2"}


@needs_redis
def test_many_nodes_are_noted_and_confirmed_each_by_its_lease(store: Store) -> None:
    append(store, b"a", b"b")
    names = [f"n {number}" for number in range(CHUNK + 2)]
    for name in names[1:]:
        SenderStore(store).take(name, f"s {name}".encode())
    values = {name: f"s {name}".encode() for name in names} | {names[5]: b"other"}
    mine = {*names} - {names[0], names[5]}
    assert SenderStore(store).begin(values, "e", 2) == mine
    cursors = {name: (value, 1 + number % 2) for number, (name, value) in enumerate(values.items())}
    assert SenderStore(store).confirm(cursors, "e") == mine
    assert SenderStore(store).confirm(cursors, "old") == set()
    found = store.read(names, []).nodes
    assert found == {name: NodeRecord("e", cursors[name][1], 2) for name in mine}


@needs_redis
def test_record_of_a_node_never_goes_back(store: Store) -> None:
    append(store, b"a", b"b", b"c")
    SenderStore(store).take("n", b"s 1")
    for upto in (3, 1):
        assert SenderStore(store).begin({"n": b"s 1"}, "e", upto) == {"n"}
        assert SenderStore(store).confirm({"n": (b"s 1", upto)}, "e") == {"n"}
    assert store.restore("e", {"n": NodeRecord("e", 2, 2), "m": NodeRecord("e", 2, 5)})
    assert store.restore("e", {"m": NodeRecord("old", 9, 9)})
    assert not store.restore("old", {"m": NodeRecord("old", 9, 9)})
    found = store.read(["n", "m"], []).nodes
    assert found == {"n": NodeRecord("e", 3, 3), "m": NodeRecord("e", 2, 5)}


@needs_redis
def test_node_is_tidy_from_its_handover_until_it_is_taken(store: Store) -> None:
    store.restore("e", {"n": NodeRecord("e", 2, 2)})
    SenderStore(store).take("n", b"s 1")
    SenderStore(store).release("n", b"s 1", tidy=True)
    tidy = NodeRecord("e", 2, 2, tidy=True)
    assert store.read(["n"], []).nodes == {"n": tidy}
    assert SenderStore(store).take("n", b"s 2") == (2, tidy)
    assert store.read(["n"], []).nodes == {"n": NodeRecord("e", 2, 2)}


@needs_redis
def test_second_origin_is_refused_and_writes_nothing(store: Store) -> None:
    assert not OriginStore(store).take_origin(b"other")
    assert not OriginStore(store).renew_origin(b"other")
    assert OriginStore(store).renew_origin(ORIGIN)
    assert not OriginStore(store).append(b"other", JournalSpan("e", 0, 9), [(9, change(b"x"))])
    assert not OriginStore(store).say(b"other", OriginPosition(1, "e", 9), {})
    assert not OriginStore(store).recover(b"other", Recovery(True, 0, JournalSpan("f", 0, 0), {}), [])
    assert store.read([], []).span == JournalSpan("e", 0, 0)


@needs_redis
def test_machines_read_what_the_others_say(store: Store) -> None:
    arrived = Arrived("e", 5, "disk")
    assert SenderStore(store).ask() == store.asked() == 1
    assert OriginStore(store).say(ORIGIN, OriginPosition(1, "e", 7), {"s": arrived})
    assert not OriginStore(store).say(ORIGIN, OriginPosition(1, "old", 7), {"s": arrived})
    OriginStore(store).set_config("fingerprint")
    SenderStore(store).beat("s", b"well")
    found = store.read([], ["s", "t"])
    assert (found.position, found.config) == (OriginPosition(1, "e", 7), "fingerprint")
    assert (found.arrived, found.beats) == ({"s": arrived}, {"s": b"well"})


@needs_redis
def test_new_epoch_leaves_nothing_of_the_journal(store: Store) -> None:
    append(store, b"a", b"b")
    OriginStore(store).say(ORIGIN, OriginPosition(1, "e", 2), {})
    record = NodeRecord("f", 8, 8)
    recovery = Recovery(True, 7, JournalSpan("f", 7, 9), {"n": record})
    assert OriginStore(store).recover(ORIGIN, recovery, [(8, change(b"c")), (9, change(b"d"))])
    found = store.read(["n"], [])
    assert (found.span, found.nodes, found.position) == (JournalSpan("f", 7, 9), {"n": record}, None)
    SenderStore(store).take("n", b"s 1")
    assert batch(store, 7, 9, "f") == [change(b"c"), change(b"d")]


@needs_redis
def test_what_redis_has_lost_is_written_again(store: Store) -> None:
    append(store, b"a", b"b")
    store.restore("e", {"n": NodeRecord("e", 1, 2), "m": NodeRecord("e", 2, 2)})
    recovery = Recovery(False, 3, JournalSpan("e", 3, 5), {"n": NodeRecord("e", 4, 4)})
    assert OriginStore(store).recover(ORIGIN, recovery, [(4, change(b"c")), (5, change(b"d"))])
    found = store.read(["n", "m"], [])
    assert found.span == JournalSpan("e", 3, 5)
    assert found.nodes == {"n": NodeRecord("e", 4, 4), "m": NodeRecord("e", 2, 2)}
    SenderStore(store).take("n", b"s 1")
    assert batch(store, 3, 5, "e") == [change(b"c"), change(b"d")]
    assert not OriginStore(store).recover(ORIGIN, Recovery(False, 5, JournalSpan("old", 5, 5), {}), [])


@needs_redis
def test_two_fleets_in_one_redis_do_not_meet(store: Store, server: RedisServer) -> None:
    append(store, b"a")
    SenderStore(store).take("n", b"s 1")
    other = Store(server.url, "mail")
    other.open()
    assert other.read(["n"], []).span is None
    assert OriginStore(other).take_origin(ORIGIN)
    assert SenderStore(other).take("n", b"s 1") == (1, None)
    other.close()


@needs_redis
@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("SET", "inosync:web:fleet", "x"), "holds something else at inosync:web:fleet"),
        (("SET", "inosync:web:journal", "x"), "holds something else at inosync:web:journal"),
        (("ZADD", "inosync:web:journal", "1", "x"), "holds something else below inosync:web:"),
        (("HSET", "inosync:web:fleet", "format", "2"), "another version"),
    ],
)
def test_database_with_something_else_is_refused(
    server: RedisServer, raw: redis.Redis, command: tuple[str, ...], reason: str
) -> None:
    raw.execute_command(*command)  # type: ignore[no-untyped-call]
    store = Store(server.url, "web")
    with pytest.raises(StoreError, match=reason):
        store.open()
    store.close()


@needs_redis
def test_values_that_others_wrote_are_refused(store: Store, raw: redis.Redis) -> None:
    raw.zadd("inosync:web:journal", {b"0 0 0 ../../etc/passwd": 1})
    raw.hset("inosync:web:fleet", "appended", "1")
    SenderStore(store).take("n", b"s 1")
    with pytest.raises(StoreError, match="no change"):
        batch(store, 0, 1)
    raw.hset("inosync:web:nodes", "n", "e 1 2 3 4")
    with pytest.raises(StoreError, match="has not written"):
        store.read(["n"], [])


@needs_redis
def test_socket_and_user_with_password_are_supported(server: RedisServer, raw: redis.Redis) -> None:
    raw.execute_command("ACL", "SETUSER", "web", "on", f">{SECRET}", "~inosync:web:*", "+@all")  # type: ignore[no-untyped-call]
    for url in (f"unix://web@{server.socket}", f"redis://web@127.0.0.1:{server.port}"):
        store = Store(url, "web", Passwords(SECRET))
        store.open()
        assert OriginStore(store).take_origin(ORIGIN)
        store.close()


@needs_redis
@pytest.mark.parametrize("wrong", ["other", "p@ss word"])
def test_wrong_password_is_not_shown(server: RedisServer, raw: redis.Redis, wrong: str) -> None:
    raw.ping()
    written = wrong.replace("@", "%40").replace(" ", "%20")
    for url, password in (
        (f"redis://web:{written}@127.0.0.1:{server.port}/0", None),
        (f"redis://web@127.0.0.1:{server.port}/0", wrong),
        (f"unix://web@{server.socket}?password={written}", None),
    ):
        store = Store(url, "web", Passwords(password))
        with pytest.raises(StoreError) as raised:
            store.open()
        text = f"{raised.value} {store.place} {raised.value.__cause__} {raised.value.__context__}"
        assert "WRONGPASS" in str(raised.value) or "invalid" in str(raised.value).lower()
        assert wrong not in str(raised.value)
        assert written not in store.place, text
        store.close()


@needs_redis
def test_restarted_redis_is_noticed_before_a_request(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.start()
    try:
        store = Store(server.url, "web")
        store.open()
        assert SenderStore(store).take("n", b"s 1") == (1, None)
        server.stop()
        with pytest.raises(StoreError):
            SenderStore(store).take("m", b"s 2")
        server.start()
        with pytest.raises(InstanceChanged):
            SenderStore(store).take("m", b"s 2")
        assert store.read(["n", "m"], []).leases == {}
        assert SenderStore(store).take("m", b"s 2") == (1, None)
        store.close()
    finally:
        server.stop()


@pytest.mark.parametrize("fleet", ["", "a:b", "a b", "*", "a" * 65, "\n"])
def test_name_that_is_no_fleet_is_refused(fleet: str) -> None:
    with pytest.raises(StoreError, match="no name of a fleet"):
        Store("redis://localhost", fleet)


@pytest.mark.parametrize(
    "url",
    [
        "http://u:s3cret@h",
        "redis://u:s3cret@h:port",
        "redis://u:s3cret/x@h",
        "redis://u:x/s3cret@h/0",
        "rediss://u:s3cret@h?db=x",
        "unix://u:s3cret@/x?db=x",
        "s3cret",
        "",
    ],
)
def test_address_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(StoreError, match="address of Redis") as raised:
        Store(url, "web")
    assert SECRET not in str(raised.value)
    assert raised.value.__cause__ is None


def test_version_of_the_server_is_checked() -> None:
    store = Store("redis://127.0.0.1:1", "web")
    info = store._instance.info
    for version in (b"6.2.0", b"7.0.15", b"7.2.4", b"10.0.0"):  # Valkey says 7.2.4
        info[b"redis_version"] = version
        store._check_version()
    for version in (b"6.0.16", b"5.0.14", b"", b"new"):
        info[b"redis_version"] = version
        with pytest.raises(StoreError, match=r"6\.2 or later"):
            store._check_version()
    info |= {b"redis_version": b"7.0.0", b"redis_mode": b"cluster"}
    with pytest.raises(StoreError, match="cluster"):
        store._check_version()


def test_daemon_does_not_import_redis() -> None:
    modules = "inosync.cli, inosync.check, inosync.master.wiring, inosync.worker.worker"
    script = (
        f"import sys, {modules}; sys.exit('redis' in sys.modules or 'inosync.fleet.store' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
