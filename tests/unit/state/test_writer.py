"""The process that writes the state: the loop never waits for it, and its end leaves nothing."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.wait import until

from inosync.state import store, writer
from inosync.state.writer import StateWriter
from inosync.system.loop import Loop


class World:
    def __init__(self, path: Path) -> None:
        self.path, self.loop = path, Loop()
        self.writer = StateWriter(str(path), self.loop, list)

    def turn_until_idle(self) -> None:
        deadline = time.monotonic() + 30
        while self.writer.is_busy:
            assert time.monotonic() < deadline
            self.loop.turn(0.05)

    @property
    def pid(self) -> int:
        pid = self.writer._service.pid
        assert pid is not None
        return pid


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "state" / "c.state")
    yield made
    made.writer.finish(None, 10)
    assert made.writer.descriptors() == []


def test_state_is_written_into_a_directory_that_is_made(world: World) -> None:
    assert world.writer.write(b"one")
    assert not world.writer.write(b"two"), "one at a time"
    world.turn_until_idle()
    assert world.path.read_bytes() == b"one"
    assert world.path.parent.stat().st_mode & 0o777 == 0o700
    pid = world.pid
    assert world.writer.write(b"three")
    world.turn_until_idle()
    assert (world.path.read_bytes(), world.pid) == (b"three", pid)


def test_last_state_is_waited_for(world: World) -> None:
    world.writer.write(b"one" * 1_000_000)
    world.writer.finish(b"last" * 1_000_000, 30)
    assert world.path.read_bytes() == b"last" * 1_000_000


def test_process_that_hangs_holds_up_neither_the_loop_nor_the_end_for_long(world: World) -> None:
    world.writer.start()
    os.kill(world.pid, signal.SIGSTOP)
    began = time.monotonic()
    assert world.writer.write(bytes(10_000_000))
    assert time.monotonic() - began < 5, "more than a socket holds"
    pid = world.pid
    world.loop.turn(0.0)
    world.writer.finish(b"x", 0.2)
    until(
        lambda: not Path(f"/proc/{pid}").exists() or b"Z" in Path(f"/proc/{pid}/stat").read_bytes(),
        10,
        "its end",
    )
    assert not world.path.exists()


def test_process_that_dies_is_replaced(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world.writer.start()
    first = world.pid
    os.kill(first, signal.SIGKILL)
    world.writer.write(b"one")
    world.turn_until_idle()
    assert not world.path.exists()
    assert "the process that writes it has ended: the state is not kept" in caplog.text
    assert world.writer.write(b"two")
    world.turn_until_idle()
    assert world.path.read_bytes() == b"two"
    assert world.pid != first
    assert "the state is kept again" in caplog.text


def test_disk_that_fails_is_warned_of_once(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_path: str, _data: bytes) -> None:
        raise OSError(28, "No space left on device")

    caplog.set_level(logging.INFO)
    monkeypatch.setattr(store, "write", fail)  # before the fork
    for data in (b"one", b"two"):
        world.writer.write(data)
        world.turn_until_idle()
    assert caplog.text.count("No space left on device: the state is not kept") == 1


def test_error_without_words_is_told_too(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert writer._written(str(tmp_path / "file" / "c.state"), b"x") == "Not a directory"
