"""One warm rsync: when it counts as connected, lost, slow and old. Time is played, rsync is faked."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import cast

import pytest

from inosync.rsync.transfer import Transfer
from inosync.system import process
from inosync.system.loop import Loop
from inosync.worker.warm import POLL_SECONDS, SLOW_SECONDS, WarmRsync

PATIENCE, MAX_AGE = 30.0, 1_000.0


class Peers:
    """The connections of an rsync."""

    error = ""
    ended = False
    closed = False

    def close(self) -> None:
        self.closed = True


class Rsync:
    """In place of ``Transfer``, and of the loop."""

    pid = 7
    abort_reason = ""
    code: int | None = None
    is_connected = is_hidden = has_ended = False
    knocks = watches = 0
    now = 1_000.0

    def __init__(self) -> None:
        self.stderr: list[bytes] = []
        self.directory_status = os.stat("/")
        self.seen = Peers()
        self.call: Callable[[], object] | None = None

    def clock(self) -> float:
        return self.now

    def on_readable(self, _source: object, call: Callable[[], object]) -> None:
        self.call = call

    def drop(self, _source: object) -> None:
        self.call = None

    @property
    def done(self) -> bool:
        return self.code is not None

    def send_empty_name(self) -> None:
        self.knocks += 1

    def watch_output(self) -> None:
        self.watches += 1

    def peers(self) -> Peers:
        if self.is_hidden:
            raise PermissionError(1, "Operation not permitted")
        return self.seen

    def terminate(self) -> None:
        self.has_ended = True


def warm(rsync: Rsync) -> WarmRsync:
    return WarmRsync(cast(Transfer, rsync), cast(Loop, rsync), PATIENCE, MAX_AGE)


def connected(rsync: Rsync) -> WarmRsync:
    one = warm(rsync)
    rsync.is_connected = True
    rsync.now = one.deadline
    one.check()
    assert one.connected_at == rsync.now
    return one


def test_warm_rsync_gets_an_empty_name_at_once_and_is_not_connected_yet() -> None:
    rsync = Rsync()
    one = warm(rsync)
    assert rsync.knocks == 1
    assert (one.connected_at, one.lost, one.connected_for, one.is_slow) == (None, "", 0.0, False)


def test_warm_rsync_is_checked_less_and_less_often_while_it_connects() -> None:
    rsync = Rsync()
    one = warm(rsync)
    pauses = []
    while not one.lost:
        before, rsync.now = rsync.now, one.deadline
        pauses.append(rsync.now - before)
        one.check()
        assert one.is_slow is (rsync.now >= 1_000 + SLOW_SECONDS)
    assert pauses == pytest.approx(sorted(pauses))
    assert len(pauses) < 150
    assert rsync.watches  # what it prints is read, because a full pipe would hold it up
    assert one.lost == "no answer for 30 s"


def test_warm_rsync_is_told_of_its_end_by_the_kernel() -> None:
    rsync = Rsync()
    one = connected(rsync)
    rsync.now += 50
    assert one.connected_for == pytest.approx(50.0)
    assert (one.deadline, one.is_old) == (1_000 + MAX_AGE, False)
    assert rsync.call is not None
    rsync.call()
    assert (one.lost, one.is_broken) == ("the node has closed the connection", False)
    assert rsync.seen.closed
    assert rsync.call is None


def test_connection_that_breaks_has_a_reason() -> None:
    rsync = Rsync()
    one = connected(rsync)
    rsync.seen.error = "Connection timed out"
    assert rsync.call is not None
    rsync.call()
    assert (one.lost, one.is_broken) == ("Connection timed out", True)


def test_hidden_connection_is_polled(monkeypatch: pytest.MonkeyPatch) -> None:
    is_cut_off = False
    monkeypatch.setattr(process, "is_cut_off", lambda _pid: is_cut_off)
    rsync = Rsync()
    rsync.is_hidden = True
    one = connected(rsync)
    for _ in range(3):
        assert one.deadline == rsync.now + POLL_SECONDS
        rsync.now = one.deadline
        one.check()
        assert not one.lost
    is_cut_off = True
    rsync.now = one.deadline
    one.check()
    assert (one.lost, one.is_broken) == ("the node has closed the connection", False)


def test_rsync_that_ends_leaves_its_code_and_its_words() -> None:
    rsync = Rsync()
    one = warm(rsync)
    rsync.code, rsync.stderr = 255, [b"ssh: connect to host h port 22: Connection refused"]
    one.check()
    assert (one.code, one.lines) == (255, rsync.stderr)
    assert "Connection refused" in one.lost


def test_warm_rsync_is_old_at_its_age_and_taken_all_the_same() -> None:
    rsync = Rsync()
    one = connected(rsync)
    rsync.now = 1_000 + MAX_AGE
    assert one.is_old
    assert one.take("/") is cast(Transfer, rsync)


def test_warm_rsync_of_another_directory_is_not_taken() -> None:
    rsync = Rsync()
    one = connected(rsync)
    rsync.directory_status = os.stat("/proc")
    assert one.take("/") is None
    assert one.take("/none") is None


def test_rsync_that_still_connects_is_taken_whatever_its_source() -> None:
    rsync = Rsync()
    assert warm(rsync).take("/none") is cast(Transfer, rsync)


def test_end_that_the_loop_has_not_seen_yet_is_seen_when_it_is_taken() -> None:
    rsync = Rsync()
    one = connected(rsync)
    rsync.seen.ended = True
    assert one.take("/") is None
    assert one.lost


def test_warm_rsync_that_is_ended_lets_go_of_its_connections() -> None:
    rsync = Rsync()
    one = connected(rsync)
    assert one.end() is cast(Transfer, rsync)
    assert (rsync.has_ended, rsync.seen.closed, rsync.call) == (True, True, None)
