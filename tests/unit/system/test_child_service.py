"""A process that answers orders: the loop never waits for it, and its end leaves nothing."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.wait import until

from inosync.system import process
from inosync.system.child_service import ChildService
from inosync.system.loop import Loop

MUCH = bytes(3_000_000)
"""More than a socket holds."""
ENDED = "the process has ended"


class World:
    """A service whose process counts its orders, and does what they say."""

    def __init__(self, home: Path) -> None:
        self.home, self.loop = home, Loop()
        self.answers: list[bytes | str] = []
        count = 0

        def answer(order: bytes) -> bytes:
            nonlocal count
            count += 1
            if order == b"raise":
                raise ValueError(order)
            if order == b"sleep":
                time.sleep(0.3)
                (home / "slept").touch()
            return b"%d %b" % (count, order)

        self.service = ChildService("answers", answer, self.loop, list)

    def ask(self, order: bytes) -> None:
        self.service.ask(order, lambda answer: self.answers.append(ENDED if answer is None else answer))

    def answered(self, order: bytes) -> bytes | str:
        """Return the answer to an order, as the loop gets it."""
        self.ask(order)
        deadline = time.monotonic() + 30
        while self.service.is_busy:
            assert time.monotonic() < deadline
            self.loop.turn(0.05)
        return self.answers.pop()

    def wait(self, seconds: float) -> None:
        self.service.wait(self.loop.clock() + seconds)

    @property
    def pid(self) -> int:
        assert self.service.pid is not None
        return self.service.pid


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1].decode()
    except OSError:
        return "gone"


def ended(pid: int) -> Callable[[], bool]:
    return lambda: state(pid) in ("Z", "gone")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.service.end()
    assert made.service.descriptors() == []


@pytest.mark.parametrize("order", [b"", b"one", MUCH])
def test_order_of_any_length_is_answered(world: World, order: bytes) -> None:
    assert world.service.pid is None, "nothing starts before it is needed"
    assert world.answered(order) == b"1 " + order
    first = world.pid
    assert world.answered(order) == b"2 " + order, "the same process knows the order before"
    assert world.pid == first
    assert Path(f"/proc/{first}/cmdline").read_bytes().startswith(b"inosync: answers")


def test_order_that_nothing_takes_does_not_hold_up_the_loop(world: World) -> None:
    world.service.start()
    os.kill(world.pid, signal.SIGSTOP)
    until(lambda: state(world.pid) == "T", 10, "its stop")
    world.ask(MUCH)
    world.loop.turn(0.0)
    assert (world.service.is_busy, world.answers) == (True, [])
    os.kill(world.pid, signal.SIGCONT)
    world.wait(30)
    assert world.answers == [b"1 " + MUCH]


@pytest.mark.parametrize("how", ["killed", "raised"])
def test_order_of_a_process_that_ends_is_told(world: World, how: str) -> None:
    first = world.answered(b"a")
    if how == "killed":
        os.kill(world.pid, signal.SIGKILL)
        until(ended(world.pid), 10, "its end")
    assert world.answered(b"raise") == ENDED
    assert world.service.pid is None
    assert world.answered(b"a") == first, "another process answers"


def test_process_that_ends_without_an_order_is_replaced(world: World) -> None:
    world.answered(b"a")
    pid = world.pid
    os.kill(pid, signal.SIGKILL)
    until(ended(pid), 10, "its end")
    world.loop.turn(0.05)
    assert world.answers == []
    assert world.answered(b"b") == b"1 b"


def test_wait_ends_with_its_time(world: World) -> None:
    world.service.start()
    os.kill(world.pid, signal.SIGSTOP)
    world.ask(b"a")
    world.wait(0.05)
    assert world.service.is_busy
    pid = world.pid
    world.service.end(0.05)
    until(ended(pid), 10, "its end, though it is stopped")
    assert not world.service.is_busy
    assert world.answers == [], "nothing is called after the end"
    assert world.answered(b"a") == b"1 a"


def test_order_that_is_carried_out_may_be_waited_for(world: World) -> None:
    world.ask(b"sleep")
    world.service.end(30)
    assert (world.home / "slept").exists()
    assert world.answers == []


def test_start_that_fails_leaves_no_descriptor(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_run: object, _name: str) -> None:
        raise OSError(errno.EAGAIN, "no processes left")

    before = os.listdir("/proc/self/fd")
    with monkeypatch.context() as patch:
        patch.setattr(process, "fork", refuse)
        with pytest.raises(OSError, match="no processes left"):
            world.ask(b"a")
    assert os.listdir("/proc/self/fd") == before
    assert not world.service.is_busy
    assert world.answered(b"a") == b"1 a"


def test_process_ends_with_its_parent(world: World, tmp_path: Path) -> None:
    if not (child := os.fork()):
        world.service.start()
        (tmp_path / "pid").write_text(str(world.pid))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    until(ended(int((tmp_path / "pid").read_text())), 10, "its end")
