"""Which Redis is reached, by all kinds of addresses; real ones on loopback."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from support.redis_server import REDIS, RedisServer, ReplicatedRedis, SentinelServer
from support.wait import until

from inosync.fleet.instance import Instance
from inosync.fleet.origin_store import OriginStore
from inosync.fleet.passwords import Passwords
from inosync.fleet.sender_store import SenderStore
from inosync.fleet.store import InstanceChanged, Store, StoreError

needs_redis = pytest.mark.skipif(REDIS is None, reason="redis-server is not installed")


@needs_redis
def test_failover_leads_to_another_instance_that_has_what_arrived_there(tmp_path: Path) -> None:
    """The replica has run all the time, but what it knows of leases is not older than the failover.

    All of them have passwords. Wrong ones are a reason, until they are corrected.
    """
    servers = ReplicatedRedis(tmp_path, ("of-Sentinel", "of-Redis"))
    servers.start()
    store = Store(servers.url, "web", Passwords("wr0ng", "wr0ng, too"))
    try:
        with pytest.raises(StoreError, match="the password is refused"):
            store.open()
        store.set_passwords(Passwords("wr0ng", "of-Sentinel"))
        with pytest.raises(StoreError, match=r"WRONGPASS|invalid") as raised:
            store.open()
        assert "wr0ng" not in str(raised.value)
        store.set_passwords(Passwords("of-Redis", "of-Sentinel"))
        store.open()
        assert store.place == servers.url
        assert SenderStore(store).take("n", b"s 1") == (1, None)
        client = Instance(servers.replica.url, Passwords("of-Redis"))
        with pytest.raises(StoreError, match="is a replica"), client.plain_errors():
            client.client.ping()
        client.close()
        until(
            lambda: servers.replica.processes() and _key_count(servers.replica, "of-Redis") > 0,
            30,
            "the replication",
        )
        servers.primary.kill()
        changes, texts = 0, set[str]()

        def taken() -> bool:
            nonlocal changes
            try:
                return SenderStore(store).take("m", b"s 2") is not None
            except InstanceChanged:
                changes += 1
            except StoreError as error:
                texts.add(str(error))
            return False

        until(taken, 60, "the replica to be the primary")
        assert changes == 1
        assert not [text for text in texts if "<" in text or "\n" in text]
        assert store.settled_seconds == 0.0, "it may have lost a lease of a moment ago"
        assert store.read(["n", "m"], []).leases == {"n": b"s 1", "m": b"s 2"}
    finally:
        store.close()
        servers.stop()


def _key_count(server: RedisServer, password: str) -> int:
    with redis.Redis.from_url(server.url, password=password) as client:
        return int(client.dbsize())


def test_sentinels_that_are_away_are_a_reason() -> None:
    store = Store("redis+sentinel://u:s3cret@127.0.0.1:1,127.0.0.1:2/main", "web")
    with pytest.raises(StoreError) as raised:
        store.open()
    assert str(raised.value) == (
        "redis+sentinel://127.0.0.1:1,127.0.0.1:2/main: no Sentinel says which Redis is the primary"
    )
    store.close()


@needs_redis
def test_user_at_sentinels_may_do_what_the_documentation_says(tmp_path: Path) -> None:
    primary = RedisServer(tmp_path / "primary")
    sentinel = SentinelServer(tmp_path / "sentinel", primary)
    text = (Path(__file__).resolve().parents[3] / "docs" / "fleet.rst").read_text()
    [line] = re.findall(r"^ +(user inosync .*)$", text, re.MULTILINE)
    with sentinel.config.open("a") as config:
        config.write(f"user default off\n{line.replace('PASSWORD', 'p4ss')}\n")
    for server in (primary, sentinel):
        server.start()
    try:
        store = Store(sentinel.url, "web", Passwords(None, "p4ss"), "inosync")
        store.open()
        store.close()
        store = Store(sentinel.url, "web", Passwords(None, "p4ss"))
        with pytest.raises(StoreError, match="the password is refused"):
            store.open()
        store.close()
    finally:
        sentinel.stop()
        primary.stop()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1, signed by itself; the key is beside it."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    path = tmp_path_factory.mktemp("tls") / "redis.crt"
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=redis"
    more = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{path}.key", "-out", str(path)]
    subprocess.run(
        ["openssl", *words.split(), *more], stdin=subprocess.DEVNULL, capture_output=True, check=True
    )
    return path


@needs_redis
def test_redis_through_tls_is_that_of_the_certificate(tmp_path: Path, certificate: Path) -> None:
    plain = RedisServer(tmp_path)
    port = RedisServer(tmp_path / "other").port
    plain.options = {
        "tls-port": str(port),
        "tls-cert-file": str(certificate),
        "tls-key-file": f"{certificate}.key",
        "tls-ca-cert-file": str(certificate),
        "tls-auth-clients": "no",
    }
    try:
        plain.start()
    except AssertionError:
        pytest.skip("redis-server is built without TLS")
    try:
        store = Store(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate}", "web")
        store.open()
        assert OriginStore(store).take_origin(b"o")
        store.close()
        store = Store(f"rediss://127.0.0.1:{port}/0", "web")
        with pytest.raises(StoreError, match="certificate verify failed"):
            store.open()
        store.close()
    finally:
        plain.stop()


@contextlib.contextmanager
def fake_redis(version: str, more: str = "") -> Iterator[str]:
    """A server that says that it is Redis of this version; its address."""
    info = f"redis_version:{version}\r\nrun_id:x\r\n{more}".encode()

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client, client.makefile("rb") as stream:
                    _answer_all(client, iter(stream.readline, b""))

    def _answer_all(client: socket.socket, lines: Iterator[bytes]) -> None:
        for line in lines:
            words = []
            for _ in range(int(line[1:])):
                next(lines)
                words.append(next(lines).strip().upper())
            answers = {
                b"CLIENT": b"+OK\r\n",
                b"INFO": b"$%d\r\n%b\r\n" % (len(info), info),
                b"TYPE": b"+none\r\n",
            }
            client.sendall(answers.get(words[0], b"-ERR unknown command\r\n"))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0?protocol=2"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


@pytest.mark.parametrize(
    ("version", "more", "reason"),
    [
        ("6.0.16", "", "is Redis 6.0.16; 6.2 or later is needed"),
        ("7.2.4", "redis_mode:cluster\r\n", "is a cluster, which is not supported"),
        ("7.2.4", "role:slave\r\n", "is a replica"),
        ("7.2.4", "valkey_version:8.0.1\r\nrole:master\r\n", ""),
    ],
)
def test_server_that_is_no_good_is_refused(version: str, more: str, reason: str) -> None:
    with fake_redis(version, more) as url:
        store = Store(url, "web")
        if reason:
            with pytest.raises(StoreError, match=reason):
                store.open()
        else:
            store.open()
            assert store.version == "Valkey 8.0.1"
        store.close()
