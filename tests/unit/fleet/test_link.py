"""The process that talks to Redis, with a real one, and with none."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.redis_server import REDIS, RedisServer
from support.wait import until

from inosync.changes import Change, Kind
from inosync.config.fleet import RedisAddress
from inosync.fleet import link
from inosync.fleet.link import Link, RedisFailure
from inosync.fleet.rounds import OriginOrder, OriginReport
from inosync.system.loop import Loop

ORDER = OriginOrder((), (), b"m /etc/x 1", b"m /etc/x ", "config", is_new=True)
needs_redis = pytest.mark.skipif(REDIS is None, reason="redis-server is not installed")


@pytest.fixture
def made() -> Iterator[Callable[[RedisAddress], tuple[Link, Loop]]]:
    links: list[Link] = []

    def make(address: RedisAddress) -> tuple[Link, Loop]:
        loop = Loop()
        links.append(Link(address, loop, list))
        return links[-1], loop

    yield make
    for one in links:
        one.close()


Made = Callable[[RedisAddress], tuple[Link, Loop]]


def ask(one: Link, loop: Loop, order: OriginOrder = ORDER) -> Any:
    answers: list[Any] = []
    one.ask(order, answers.append)

    def turn() -> bool:
        loop.turn(0.05)
        return bool(answers)

    until(turn, 30, "an answer")
    assert not one.is_busy
    return answers[0]


@needs_redis
def test_order_of_any_length_is_carried_out(made: Made, tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.start()
    try:
        one, loop = made(RedisAddress(server.url))
        assert ask(one, loop) == OriginReport(True, seen=ask(one, loop).seen)
        many = tuple((at, Change(1, b"x" * 1000, Kind.NAME)) for at in range(5_000))
        report = ask(one, loop, OriginOrder((), (), b"m /etc/x 1", b"", "config", changes=many))
        assert report.is_origin
    finally:
        server.stop()


@needs_redis
def test_process_that_was_killed_is_replaced(made: Made, tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.start()
    try:
        one, loop = made(RedisAddress(server.url))
        ask(one, loop)
        assert one._service.pid is not None
        os.kill(one._service.pid, signal.SIGKILL)
        found = ask(one, loop)
        assert isinstance(found, RedisFailure | OriginReport)
        assert ask(one, loop).is_origin
    finally:
        server.stop()


def test_redis_that_is_not_there_is_told_without_a_password(made: Made, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("s3cret\n")
    file.chmod(0o600)
    one, loop = made(RedisAddress("redis://127.0.0.1:1/0", password_file=str(file)))
    found = ask(one, loop)
    assert isinstance(found, RedisFailure)
    assert "s3cret" not in found.reason
    assert "127.0.0.1" in found.reason


@needs_redis
def test_wrong_password_is_told_until_the_file_is_corrected(made: Made, tmp_path: Path) -> None:
    """Without a restart: the operator corrects the file, and the next order is carried out."""
    server = RedisServer(tmp_path, {"requirepass": "r1ght"})
    file = tmp_path / "password"
    file.write_text("wr0ng\n")
    file.chmod(0o600)
    server.start()
    try:
        one, loop = made(RedisAddress(server.url, password_file=str(file)))
        failure = ask(one, loop)
        assert isinstance(failure, RedisFailure)
        assert "WRONGPASS" in failure.reason or "invalid" in failure.reason
        assert "wr0ng" not in failure.reason
        file.write_text("r1ght\n")
        assert ask(one, loop).is_origin
    finally:
        server.stop()


def test_process_that_hangs_is_given_up(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    one, loop = made(RedisAddress("redis://127.0.0.1:1/0"))
    ask(one, loop)
    assert one._service.pid is not None
    os.kill(one._service.pid, signal.SIGSTOP)
    answers: list[Any] = []
    one.ask(ORDER, answers.append)
    one.check()
    assert answers == []
    monkeypatch.setattr(link, "ANSWER_SECONDS", 0.0)
    time.sleep(0.01)
    one.check()
    [found] = answers
    assert "hangs" in found.reason
    assert isinstance(ask(one, loop), RedisFailure), "another process answers"
