"""What ``-t`` says of Redis: one line, no password, and nothing is changed there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from support.redis_server import REDIS, RedisServer

from inosync import check
from inosync.config.fleet import Fleet, RedisAddress
from inosync.fleet.origin_store import OriginStore
from inosync.fleet.records import JournalSpan
from inosync.fleet.recovery import Recovery
from inosync.fleet.sender_store import SenderStore
from inosync.fleet.store import Store
from inosync.fleet.trial import RedisTrial, try_redis

needs_redis = pytest.mark.skipif(REDIS is None, reason="redis-server is not installed")
AWAY = Fleet(RedisAddress("redis://127.0.0.1:1/0"), "", ("eu", "us"), (), {}, "config")


@pytest.fixture
def client(server: RedisServer) -> Iterator[Any]:
    client = redis.Redis.from_url(server.url)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def fleet(server: RedisServer, client: Any) -> Fleet:
    assert client.ping()
    return replace(AWAY, redis=RedisAddress(server.url))


def begin(fleet: Fleet, config: str) -> None:
    """Have an origin with this configuration there."""
    store = Store(fleet.redis.url, fleet.redis.name)
    store.open()
    assert OriginStore(store).take_origin(b"o 1")
    assert OriginStore(store).recover(b"o 1", Recovery(True, 0, JournalSpan("e", 0, 0), {}), [])
    OriginStore(store).set_config(config)
    SenderStore(store).beat("eu", b"1 copy config ")
    store.close()


@needs_redis
def test_redis_that_is_new_is_reachable_and_stays_empty(fleet: Fleet, client: Any) -> None:
    found = try_redis(fleet)
    assert found.reason == ""
    version, *facts = found.facts
    assert version.split()[0] in ("Redis", "Valkey")
    assert facts == [
        "appendonly is off: a restart of it means work done twice",
        "no origin was there yet",
        "not running: eu, us",
    ]
    assert client.keys("*") == []


@needs_redis
def test_machine_with_another_configuration_is_told_so(fleet: Fleet, client: Any) -> None:
    client.config_set("appendonly", "yes")
    begin(fleet, "other")
    found = try_redis(fleet)
    anew = "with this configuration the origin begins anew: all nodes are compared in full"
    assert (found.reason, found.facts[1:]) == ("", (anew, "not running: us"))
    found = try_redis(replace(fleet, me="eu"))
    assert found.reason == "the configuration is not that of the origin, so this sender serves nothing"
    begin(fleet, "config")
    assert try_redis(replace(fleet, me="eu")).reason == ""
    assert try_redis(fleet).facts[1:] == ("not running: us",)


def test_redis_that_is_away_is_a_reason() -> None:
    found = try_redis(AWAY)
    assert "redis://127.0.0.1:1/0: " in found.reason
    assert "refused" in found.reason


@needs_redis
def test_wrong_password_is_a_reason_and_not_shown(fleet: Fleet, client: Any, tmp_path: Path) -> None:
    client.execute_command("ACL", "SETUSER", "web", "on", ">right", "~*", "+@all")
    file = tmp_path / "password"
    file.write_text("s3cret\n")
    file.chmod(0o600)
    url = fleet.redis.url.replace("redis://", "redis://web@")
    fleet = replace(fleet, redis=RedisAddress(url, password_file=str(file)))
    reason = try_redis(fleet).reason
    assert reason
    assert "s3cret" not in reason
    file.write_text("right")
    assert try_redis(fleet).reason == ""
    file.chmod(0o644)
    assert try_redis(fleet).reason == f"{file}: others can read or change it: chmod 600"
    file.unlink()
    assert try_redis(fleet).reason == f"{file}: No such file or directory"


@pytest.mark.parametrize(
    ("found", "line", "is_good"),
    [
        (RedisTrial(("Redis 7",)), "redis://127.0.0.1:1/0 (fleet default): reachable; Redis 7", True),
        (RedisTrial((), "re\nfused"), "redis://127.0.0.1:1/0 (fleet default): FAILED: re\\nfused", False),
    ],
)
def test_outcome_is_one_line_and_decides(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, found: RedisTrial, line: str, is_good: bool
) -> None:
    monkeypatch.setattr("inosync.fleet.trial.try_redis", lambda _fleet: found)
    assert check._try_redis(AWAY) is is_good
    assert capsys.readouterr().out.splitlines() == [line]
