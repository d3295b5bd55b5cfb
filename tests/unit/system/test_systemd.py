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

from inosync.system.loop import Loop
from inosync.system.systemd import (
    EXTEND_SECONDS,
    RESEND_SECONDS,
    STATUS_SECONDS,
    NotifyTarget,
    ServiceManager,
    take_target,
)

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
def loop(clock: Clock) -> Loop:
    return Loop(clock)


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[Ear]:
    made = Ear(str(tmp_path / "notify"))
    yield made
    made.socket.close()


@pytest.fixture
def make(ear: Ear, loop: Loop) -> Iterator[Make]:
    """Managers that listen there, and end with the test."""
    with contextlib.ExitStack() as stack:

        def made(address: str = ear.name, watchdog: float | None = None) -> ServiceManager:
            target = NotifyTarget(address, watchdog, os.getpid())
            return stack.enter_context(contextlib.closing(ServiceManager(target, loop)))

        yield made


def started(make: Make, loop: Loop, ear: Ear, watchdog: float | None = None) -> ServiceManager:
    manager = make(watchdog=watchdog)
    manager.ready()
    loop.turn(0)
    ear.heard()
    return manager


def taken(environment: dict[str, str], loop: Loop) -> ServiceManager:
    return ServiceManager(take_target(environment), loop)


def stuff(address: str) -> int:
    """Leave no room in a socket; with how many messages."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as full:
        for count in itertools.count():
            try:
                full.sendto(b"of somebody else", address)
            except BlockingIOError:
                return count
    raise AssertionError


def test_end_of_the_start_is_sent_once(make: Make, ear: Ear) -> None:
    manager = make()
    manager.set_status("2 nodes: 2 starting")
    manager.ready()
    manager.ready()
    assert ear.heard() == ["READY=1\nSTATUS=2 nodes: 2 starting"]


def test_abstract_address_is_understood(make: Make) -> None:
    name = f"inosync-{uuid.uuid4()}"
    ear = Ear("\0" + name)
    with ear.socket:
        make("@" + name).ready()
        assert ear.heard() == ["READY=1\nSTATUS="]


@pytest.mark.parametrize("address", ["", "@", "vsock:2:1234", "relative", "/nowhere/at/all", "/" + "x" * 200])
def test_service_manager_that_does_not_listen_is_harmless(
    make: Make, clock: Clock, address: str, loop: Loop
) -> None:
    manager = make(address, 10.0)
    manager.set_status("1 node: 1 ok")
    manager.ready()
    with manager.reloading():
        pass
    loop.turn(0)
    manager.stopping(5.0)
    clock.now += 100
    loop.turn(0)
    if not address.startswith("/"):
        assert loop.next_timer == float("inf")
        assert manager.descriptors() == []


def test_long_start_asks_for_time_again_and_again(make: Make, clock: Clock, ear: Ear, loop: Loop) -> None:
    manager = make()
    asked = 0
    for _ in range(10):
        clock.now = loop.next_timer
        loop.turn(0)
        asked += ear.heard().count(f"EXTEND_TIMEOUT_USEC={EXTEND_SECONDS * 1e6:.0f}")
    assert asked == 10
    assert clock.now - 100 < 10 * EXTEND_SECONDS / 2  # each well before what was asked for is over
    manager.ready()
    ear.heard()
    clock.now += EXTEND_SECONDS
    loop.turn(0)
    assert ear.heard() == []


def test_status_is_sent_when_it_changes_and_not_too_often(
    make: Make, clock: Clock, ear: Ear, loop: Loop
) -> None:
    manager = started(make, loop, ear)
    for number in range(50):
        clock.now += STATUS_SECONDS / 100
        manager.set_status(f"{number} nodes")
        if clock.now >= loop.next_timer:
            loop.turn(0)
    assert ear.heard() == []
    clock.now = loop.next_timer
    loop.turn(0)
    assert ear.heard() == ["STATUS=49 nodes"]
    clock.now += 100
    manager.set_status("49 nodes")
    assert loop.next_timer == float("inf")


def test_status_cannot_add_a_line_of_its_own(make: Make, clock: Clock, ear: Ear, loop: Loop) -> None:
    manager = started(make, loop, ear)
    manager.set_status("a\nMAINPID=1\x1b[2J" + "x" * 5000)
    clock.now += STATUS_SECONDS
    loop.turn(0)
    [sent] = ear.heard()
    assert sent.startswith("STATUS=a?MAINPID=1?[2Jxxx")
    assert len(sent) < 1000


def test_signs_of_life_come_at_half_of_the_watchdog_time(
    make: Make, clock: Clock, ear: Ear, loop: Loop
) -> None:
    manager = make(watchdog=10.0)
    loop.turn(0)
    assert "WATCHDOG=1" not in "".join(ear.heard())  # the manager waits for the end of the start first
    manager.ready()
    ear.heard()
    times = []
    for _ in range(1000):
        clock.now += 0.1
        if clock.now >= loop.next_timer:
            loop.turn(0)
        if ear.heard() == ["WATCHDOG=1"]:
            times.append(clock.now)
    assert 19 <= len(times) <= 21
    assert max(after - before for before, after in itertools.pairwise(times)) <= 5.2


def test_signs_of_life_need_a_watchdog(make: Make, clock: Clock, ear: Ear, loop: Loop) -> None:
    started(make, loop, ear)
    assert loop.next_timer == float("inf")
    clock.now += 1000
    loop.turn(0)
    assert ear.heard() == []


def test_reload_begins_and_ends(make: Make, ear: Ear, loop: Loop) -> None:
    manager = started(make, loop, ear, 10.0)
    before = time.monotonic_ns() // 1000
    with manager.reloading():
        [begun] = ear.heard()
    lines = dict(line.split("=", 1) for line in begun.split("\n"))
    assert before <= int(lines.pop("MONOTONIC_USEC")) <= time.monotonic_ns() // 1000
    assert lines == {"RELOADING": "1", "WATCHDOG": "1"}
    assert ear.heard() == ["READY=1"]


def test_reload_that_fails_ends_too(make: Make, ear: Ear, loop: Loop) -> None:
    manager = started(make, loop, ear)

    def reload() -> None:
        with manager.reloading():
            raise KeyError

    with pytest.raises(KeyError):
        reload()
    assert ear.heard()[-1] == "READY=1"


def test_reload_during_the_start_does_not_end_the_start(make: Make, ear: Ear) -> None:
    manager = make()
    with manager.reloading():
        pass
    assert ear.heard() == []


def test_stop_is_sent_with_how_long_it_may_take(make: Make, ear: Ear, loop: Loop) -> None:
    manager = started(make, loop, ear)
    manager.set_status("3 nodes: 3 ok")
    manager.stopping(12.5)
    assert ear.heard() == ["STOPPING=1\nEXTEND_TIMEOUT_USEC=12500000\nSTATUS=stopping; 3 nodes: 3 ok"]


def test_messages_without_room_are_sent_later_in_order(
    make: Make, clock: Clock, ear: Ear, loop: Loop
) -> None:
    stuffed = stuff(ear.name)
    manager = make(watchdog=10.0)
    manager.set_status("1 node: 1 ok")
    manager.ready()
    with manager.reloading():
        pass
    assert loop.next_timer <= clock.now + RESEND_SECONDS
    assert len(ear.heard()) == stuffed
    clock.now += RESEND_SECONDS
    loop.turn(0)
    kinds = [message.split("\n")[0] for message in ear.heard()]
    assert kinds[:3] == ["READY=1", "RELOADING=1", "READY=1"]


def test_manager_that_never_has_room_costs_little(make: Make, clock: Clock, ear: Ear, loop: Loop) -> None:
    stuff(ear.name)
    manager = make(watchdog=1.0)
    manager.ready()
    for number in range(1000):
        manager.set_status(f"{number}")
        clock.now += 1.0
        loop.turn(0)
    ear.heard()
    clock.now = loop.next_timer
    loop.turn(0)
    sent = ear.heard()
    assert sent[0].startswith("READY=1")
    assert len(sent) < 50


def test_target_is_taken_out_of_the_environment() -> None:
    environment = {
        "NOTIFY_SOCKET": "/run/systemd/notify",
        "WATCHDOG_USEC": "3000000",
        "WATCHDOG_PID": str(os.getpid()),
        "PATH": "/bin",
    }
    take_target(environment)
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
def test_signs_of_life_are_sent_by_the_process_that_is_meant(
    ear: Ear, variables: dict[str, str], beats: bool, loop: Loop
) -> None:
    if variables.get("WATCHDOG_PID") == "ours":
        variables = {**variables, "WATCHDOG_PID": str(os.getpid())}
    with contextlib.closing(taken({"NOTIFY_SOCKET": ear.name, **variables}, loop)) as manager:
        manager.ready()
        loop.turn(0)
    assert ("WATCHDOG=1" in ear.heard()) is beats


def test_daemon_in_the_background_sends_its_pid(ear: Ear, loop: Loop) -> None:
    with contextlib.closing(taken({"NOTIFY_SOCKET": ear.name}, loop)) as manager:

        def background() -> int:
            manager.ready()
            return os.getpid()

        pid = in_child(background)
        [sent] = ear.heard()
        assert f"MAINPID={pid}" in sent.split("\n")
        manager.ready()
    [sent] = ear.heard()
    assert "MAINPID" not in sent
