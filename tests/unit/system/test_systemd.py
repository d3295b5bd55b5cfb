"""What the service manager is told, and when; a real socket hears it."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.child_process import in_child

from inosync.system.systemd import AGAIN, PROLONG, STATUS_EVERY, ServiceManager, take

Make = Callable[..., ServiceManager]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Ear:
    """A notification socket, as systemd has one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind(name)

    def heard(self) -> list[str]:
        found = []
        while True:
            try:
                found.append(self.socket.recv(65536).decode())
            except BlockingIOError:
                return found


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[Ear]:
    made = Ear(str(tmp_path / "notify"))
    yield made
    made.socket.close()


@pytest.fixture
def make(ear: Ear, clock: Clock) -> Iterator[Make]:
    """Managers that listen there, and end with the test."""
    with contextlib.ExitStack() as stack:

        def made(address: str = ear.name, watchdog: float | None = None) -> ServiceManager:
            return stack.enter_context(contextlib.closing(ServiceManager(address, watchdog, clock=clock)))

        yield made


def started(make: Make, ear: Ear, watchdog: float | None = None) -> ServiceManager:
    manager = make(watchdog=watchdog)
    manager.ready()
    manager.tend()
    ear.heard()
    return manager


def stuff(address: str) -> int:
    """Leave no room in a socket; with how many messages."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as full:
        for count in itertools.count():
            try:
                full.sendto(b"of somebody else", address)
            except BlockingIOError:
                return count
    raise AssertionError


def test_the_start_is_over_once(make: Make, ear: Ear) -> None:
    manager = make()
    manager.status("2 nodes: 2 starting")
    manager.ready()
    manager.ready()
    assert ear.heard() == ["READY=1\nSTATUS=2 nodes: 2 starting"]


def test_an_abstract_address_is_understood(make: Make) -> None:
    name = f"inosync-{uuid.uuid4()}"
    ear = Ear("\0" + name)
    with ear.socket:
        make("@" + name).ready()
        assert ear.heard() == ["READY=1\nSTATUS="]


@pytest.mark.parametrize("address", ["", "@", "vsock:2:1234", "relative", "/nowhere/at/all", "/" + "x" * 200])
def test_without_anybody_who_listens_each_call_does_nothing(make: Make, clock: Clock, address: str) -> None:
    manager = make(address, 10.0)
    manager.status("1 node: 1 ok")
    manager.ready()
    with manager.reloading():
        pass
    manager.tend()
    manager.stopping(5.0)
    clock.now += 100
    manager.tend()
    if not address.startswith("/"):
        assert manager.deadline == float("inf")
        assert manager.descriptors() == []


def test_a_start_that_lasts_asks_for_time_again_and_again(make: Make, clock: Clock, ear: Ear) -> None:
    manager = make()
    asked = 0
    for _ in range(10):
        clock.now = manager.deadline
        manager.tend()
        asked += ear.heard().count(f"EXTEND_TIMEOUT_USEC={PROLONG * 1e6:.0f}")
    assert asked == 10
    assert clock.now - 100 < 10 * PROLONG / 2  # each well before what was asked for is over
    manager.ready()
    ear.heard()
    assert manager.deadline == float("inf")


def test_a_status_is_told_when_it_changes_and_not_too_often(make: Make, clock: Clock, ear: Ear) -> None:
    manager = started(make, ear)
    for number in range(50):
        clock.now += STATUS_EVERY / 100
        manager.status(f"{number} nodes")
        if clock.now >= manager.deadline:
            manager.tend()
    assert ear.heard() == []
    clock.now = manager.deadline
    manager.tend()
    assert ear.heard() == ["STATUS=49 nodes"]
    clock.now += 100
    manager.status("49 nodes")
    assert manager.deadline == float("inf")


def test_what_stands_in_a_status_makes_no_line_of_its_own(make: Make, clock: Clock, ear: Ear) -> None:
    manager = started(make, ear)
    manager.status("a\nMAINPID=1\x1b[2J" + "x" * 5000)
    clock.now += STATUS_EVERY
    manager.tend()
    [told] = ear.heard()
    assert told.startswith("STATUS=a?MAINPID=1?[2Jxxx")
    assert len(told) < 1000


def test_signs_of_life_come_at_half_of_the_time(make: Make, clock: Clock, ear: Ear) -> None:
    manager = make(watchdog=10.0)
    manager.tend()
    assert "WATCHDOG=1" not in "".join(ear.heard())  # the manager waits for the end of the start first
    manager.ready()
    ear.heard()
    times = []
    for _ in range(1000):
        clock.now += 0.1
        if clock.now >= manager.deadline:
            manager.tend()
        if ear.heard() == ["WATCHDOG=1"]:
            times.append(clock.now)
    assert 19 <= len(times) <= 21
    assert max(after - before for before, after in itertools.pairwise(times)) <= 5.2


def test_without_a_watchdog_there_are_none(make: Make, clock: Clock, ear: Ear) -> None:
    manager = started(make, ear)
    assert manager.deadline == float("inf")
    clock.now += 1000
    manager.tend()
    assert ear.heard() == []


def test_a_reload_begins_and_ends(make: Make, ear: Ear) -> None:
    manager = started(make, ear, 10.0)
    before = time.monotonic_ns() // 1000
    with manager.reloading():
        [begun] = ear.heard()
    lines = dict(line.split("=", 1) for line in begun.split("\n"))
    assert before <= int(lines.pop("MONOTONIC_USEC")) <= time.monotonic_ns() // 1000
    assert lines == {"RELOADING": "1", "WATCHDOG": "1"}
    assert ear.heard() == ["READY=1"]


def test_a_reload_that_fails_ends_too(make: Make, ear: Ear) -> None:
    manager = started(make, ear)

    def reload() -> None:
        with manager.reloading():
            raise KeyError

    with pytest.raises(KeyError):
        reload()
    assert ear.heard()[-1] == "READY=1"


def test_a_reload_while_it_starts_is_not_the_end_of_the_start(make: Make, ear: Ear) -> None:
    manager = make()
    with manager.reloading():
        pass
    assert ear.heard() == []


def test_the_end_is_told_with_how_long_it_may_take(make: Make, ear: Ear) -> None:
    manager = started(make, ear)
    manager.status("3 nodes: 3 ok")
    manager.stopping(12.5)
    assert ear.heard() == ["STOPPING=1\nEXTEND_TIMEOUT_USEC=12500000\nSTATUS=stopping; 3 nodes: 3 ok"]


def test_it_never_waits_and_what_finds_no_room_comes_later(make: Make, clock: Clock, ear: Ear) -> None:
    stuffed = stuff(ear.name)
    manager = make(watchdog=10.0)
    manager.status("1 node: 1 ok")
    manager.ready()
    with manager.reloading():
        pass
    assert manager.deadline <= clock.now + AGAIN
    assert len(ear.heard()) == stuffed
    clock.now = manager.deadline
    manager.tend()
    told = [message.split("\n")[0] for message in ear.heard()]
    assert told[:3] == ["READY=1", "RELOADING=1", "READY=1"]


def test_a_manager_that_never_has_room_costs_little(make: Make, clock: Clock, ear: Ear) -> None:
    stuff(ear.name)
    manager = make(watchdog=1.0)
    manager.ready()
    for number in range(1000):
        manager.status(f"{number}")
        clock.now += 1.0
        manager.tend()
    ear.heard()
    clock.now = manager.deadline
    manager.tend()
    told = ear.heard()
    assert told[0].startswith("READY=1")
    assert len(told) < 50


def test_it_is_taken_out_of_the_environment() -> None:
    environment = {
        "NOTIFY_SOCKET": "/run/systemd/notify",
        "WATCHDOG_USEC": "3000000",
        "WATCHDOG_PID": str(os.getpid()),
        "PATH": "/bin",
    }
    take(environment).close()
    assert environment == {"PATH": "/bin"}


@pytest.mark.parametrize(
    ("variables", "beats"),
    [
        ({"WATCHDOG_USEC": "20000000"}, True),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "ours"}, True),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "1"}, False),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "some"}, False),
        ({"WATCHDOG_USEC": "0"}, False),
        ({"WATCHDOG_USEC": "-5"}, False),
        ({"WATCHDOG_USEC": "soon"}, False),
        ({"WATCHDOG_USEC": "²"}, False),
        ({"WATCHDOG_USEC": ""}, False),
        ({}, False),
    ],
)
def test_signs_of_life_are_for_whom_they_are_wanted_of(
    ear: Ear, variables: dict[str, str], beats: bool
) -> None:
    if variables.get("WATCHDOG_PID") == "ours":
        variables = {**variables, "WATCHDOG_PID": str(os.getpid())}
    with contextlib.closing(take({"NOTIFY_SOCKET": ear.name, **variables})) as manager:
        manager.ready()
        manager.tend()
    assert ("WATCHDOG=1" in ear.heard()) is beats


def test_who_has_gone_into_the_background_says_who_he_is(ear: Ear) -> None:
    with contextlib.closing(take({"NOTIFY_SOCKET": ear.name})) as manager:

        def background() -> int:
            manager.ready()
            return os.getpid()

        pid = in_child(background)
        [told] = ear.heard()
        assert f"MAINPID={pid}" in told.split("\n")
        manager.ready()
    [told] = ear.heard()
    assert "MAINPID" not in told
