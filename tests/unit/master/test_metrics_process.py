"""When the process that serves metrics is started again; it is made up, the sockets are real."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from inosync.config.listen import Address
from inosync.master.metrics_process import FIRST_PAUSE_SECONDS, STEADY_SECONDS, MetricsProcess
from inosync.system import process
from inosync.system.loop import Loop


class FakeChild:
    """A process that lives until the test ends it."""

    pid = None
    exitcode = -9

    def __init__(self) -> None:
        self.sentinel, self._writer = os.pipe()
        self.lives = True

    def end(self) -> None:
        if self.lives:
            os.close(self._writer)
        self.lives = False

    def join(self, _timeout: float | None = None) -> None:
        return


class World:
    def __init__(self) -> None:
        self.now = 100.0
        self.loop = Loop(lambda: self.now)
        self.children: list[FakeChild] = []
        self.links: list[socket.socket] = []
        self.metrics = MetricsProcess(self.links.append, self.loop, list, lambda: 0.0)

    def fork(self, _run: Callable[[], None], _name: str) -> FakeChild:
        self.children.append(FakeChild())
        return self.children[-1]

    def end_child(self) -> None:
        self.children[-1].end()
        self.loop.turn(0)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.loop.turn(0)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[World]:
    caplog.set_level(logging.INFO)
    made = World()
    monkeypatch.setattr(process, "fork", made.fork)
    yield made
    made.metrics.end()
    for link in made.links:
        link.close()
    for child in made.children:
        child.end()
        os.close(child.sentinel)


@pytest.fixture
def address() -> Address:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return Address("127.0.0.1", found.getsockname()[1])


def connects(address: Address) -> bool:
    with socket.socket() as client:
        return client.connect_ex((address.host, address.port)) == 0


def test_process_is_started_behind_a_listening_socket(world: World, address: Address) -> None:
    world.metrics.serve(address)
    assert len(world.children) == 1
    assert connects(address)
    assert len(world.metrics.descriptors()) == 1
    world.metrics.serve(address)
    assert len(world.children) == 1


def test_process_that_dies_is_replaced_less_and_less_soon(
    world: World, address: Address, caplog: pytest.LogCaptureFixture
) -> None:
    world.metrics.serve(address)
    for pause in (FIRST_PAUSE_SECONDS, 2 * FIRST_PAUSE_SECONDS):
        before = len(world.children)
        world.end_child()
        assert f"was killed by signal 9; another one is started in {pause:.1f} s" in caplog.text
        world.wait(pause * 0.9)
        assert len(world.children) == before
        assert connects(address), "clients are not refused meanwhile"
        world.wait(pause * 0.1)
        assert len(world.children) == before + 1
    world.now += STEADY_SECONDS
    world.end_child()
    world.wait(FIRST_PAUSE_SECONDS)
    assert len(world.children) == 4


def test_address_in_use_is_tried_again_and_logged_once(
    world: World, address: Address, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as other:
        other.bind((address.host, address.port))
        other.listen()
        world.metrics.serve(address)
        world.wait(FIRST_PAUSE_SECONDS)
        assert world.children == []
        assert caplog.text.count("Address already in use; tried again in") == 1
    world.wait(2 * FIRST_PAUSE_SECONDS)
    assert len(world.children) == 1


def test_another_address_is_served_when_the_process_has_ended(
    world: World, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[Any] = []
    monkeypatch.setattr(process, "send", lambda pids, number: killed.append((pids, number)))
    world.metrics.serve(Address("127.0.0.1", 0))
    world.metrics.serve(address)
    assert len(killed) == 1
    assert len(world.children) == 1
    world.end_child()
    assert len(world.children) == 2
    assert connects(address)


def test_metrics_process_ends_without_an_address(world: World, address: Address) -> None:
    world.metrics.serve(address)
    world.metrics.serve(None)
    world.end_child()
    world.wait(1_000)
    assert len(world.children) == 1
    assert not connects(address)
    assert world.metrics.descriptors() == []
    assert cast(Any, world.metrics)._child is None
