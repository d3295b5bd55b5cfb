"""The process that talks to Redis, because the master never waits for it.

Only this process imports the client. It gets one order at a time over a socket, does the round (``rounds``),
and answers with the report.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import socket
import stat
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkProcess
from typing import TYPE_CHECKING, Any

from inosync.config.fleet import RedisAddress
from inosync.fleet.rounds import OriginOrder, SenderOrder, origin_round, sender_round
from inosync.system import descriptors, privileges, process, signals
from inosync.system.loop import Loop

if TYPE_CHECKING:
    from inosync.fleet.store import Store

_HEAD = struct.Struct("!Q")
_CHUNK_BYTES = 1 << 16
SEND_AGAIN_SECONDS = 0.05
"""Until an order that is longer than the socket holds is sent on."""
ANSWER_SECONDS = 30.0
"""A process that has not answered for so long hangs, and is replaced."""


@dataclass(frozen=True, slots=True)
class RedisFailure:
    """Redis could not be used."""

    reason: str
    has_changed: bool = False
    """Whether it is another Redis than before, or was restarted; the next round may go well."""


class Link:
    """Has one order carried out at a time.

    ``inherited``: descriptors of the master that the process closes.
    """

    def __init__(self, redis: RedisAddress, loop: Loop, inherited: Callable[[], list[int]]) -> None:
        self._redis, self._loop, self._inherited = redis, loop, inherited
        self._child: ForkProcess | None = None
        self._socket: socket.socket | None = None
        """Our end of the connection to it."""
        self._unsent = memoryview(b"")
        """What the process has not taken yet."""
        self._received = bytearray()
        """The beginning of an answer."""
        self._done: Callable[[Any], None] | None = None
        """Gets the answer; None: nothing was asked."""
        self._asked_at = 0.0

    @property
    def is_busy(self) -> bool:
        """Whether an answer is waited for."""
        return self._done is not None

    def descriptors(self) -> list[int]:
        """What a forked child has to close."""
        return [] if self._socket is None else [self._socket.fileno()]

    def ask(self, order: OriginOrder | SenderOrder, done: Callable[[Any], None]) -> None:
        """Have an order carried out; ``done`` gets the report, or a RedisFailure, in a later turn."""
        assert self._done is None
        self._done, self._asked_at = done, self._loop.clock()
        try:
            self._start()
        except OSError as error:
            reason = f"no process for it: {error.strerror}"
            self._loop.call_at(self._loop.clock(), lambda: self._answer(RedisFailure(reason)))
            return
        data = pickle.dumps(order, pickle.HIGHEST_PROTOCOL)
        self._unsent = memoryview(_HEAD.pack(len(data)) + data)
        self._send()

    def wait(self, seconds: float) -> None:
        """Wait for the answer, at most that long. Only for the start and the end of the daemon."""
        until = self._loop.clock() + seconds
        while self.is_busy and self._socket is not None and (left := until - self._loop.clock()) > 0:
            writers = [self._socket] if self._unsent else []
            readable, writable, _ = select.select([self._socket], writers, [], left)
            if writable:
                self._send()
            if readable:
                self._receive()

    def check(self) -> None:
        """Replace a process that hangs. To be called every second or so."""
        if self.is_busy and self._loop.clock() - self._asked_at > ANSWER_SECONDS:
            self.close()
            self._answer(RedisFailure("the process that talks to Redis hangs: it is replaced"))

    def _start(self) -> None:
        if self._socket is not None:
            return
        ours, theirs = socket.socketpair()
        try:
            master, inherited = os.getpid(), [*self._inherited(), ours.fileno()]
            self._child = process.fork(lambda: run(theirs, self._redis, master, inherited), "fleet")
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        self._socket, self._received = ours, bytearray()
        self._loop.on_readable(ours, self._receive)

    def _send(self) -> None:
        if self._socket is None:
            return
        with contextlib.suppress(OSError):  # it is full, or its end is about to be read
            while self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent[:_CHUNK_BYTES]) :]
        if self._unsent:
            self._loop.call_at(self._loop.clock() + SEND_AGAIN_SECONDS, self._send)

    def _receive(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(_CHUNK_BYTES * 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            self._answer(RedisFailure("the process that talks to Redis has ended: another one is started"))
            return
        self._received += data
        if len(self._received) < _HEAD.size:
            return
        end = _HEAD.size + _HEAD.unpack_from(self._received)[0]
        if len(self._received) >= end:
            answer = pickle.loads(self._received[_HEAD.size : end])
            self._received = bytearray()
            self._answer(answer)

    def _answer(self, answer: object) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(answer)

    def close(self) -> None:
        """End the process: the end of the connection is its end."""
        if self._socket is not None:
            self._loop.drop(self._socket)
            self._socket.close()
        child, self._socket, self._child = self._child, None, None
        self._unsent = memoryview(b"")
        if child is not None:
            process.send([child.pid] if child.pid else [], signal.SIGKILL)
            process.abandon(child)


def run(end: socket.socket, redis: RedisAddress, master: int, inherited: list[int]) -> None:
    """The life of that process, forked by ``master`` (a pid). Never returns."""
    ignored = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    signals.reset(ignored=ignored)
    process.close(inherited)
    process.die_with_parent(signal.SIGKILL, master)
    descriptors.lead_standard_streams_nowhere()
    process.set_title("inosync: fleet")
    code = 1
    try:
        privileges.drop_all()
        serve(end, Session(redis))
        code = 0
    except (OSError, EOFError, struct.error):  # the master is gone
        code = 0
    except Exception:  # noqa: BLE001 - its end is reported, and the master starts another
        sys.excepthook(*sys.exc_info())
    finally:
        process.leave(code)


def serve(end: socket.socket, session: Session) -> None:
    """Carry out orders until the connection ends."""
    with end.makefile("rb") as stream:
        while head := stream.read(_HEAD.size):
            order = pickle.loads(stream.read(_HEAD.unpack(head)[0]))
            data = pickle.dumps(session.answer(order), pickle.HIGHEST_PROTOCOL)
            end.sendall(_HEAD.pack(len(data)) + data)


class Session:
    """A store, opened when it is needed first, and checked again after each failure."""

    def __init__(self, redis: RedisAddress) -> None:
        self._redis = redis
        self._store: Store | None = None
        self._is_open = False

    def answer(self, order: OriginOrder | SenderOrder) -> object:
        """Carry out an order; return the report, or a RedisFailure."""
        try:
            from inosync.fleet.store import InstanceChanged, Store, StoreError
        except ImportError as error:
            return RedisFailure(f"the client of Redis is missing ({error}): pip install 'inosync[fleet]'")
        try:
            if self._store is None:
                self._store = Store(self._redis.url, self._redis.name, password(self._redis.password_file))
            if not self._is_open:
                self._store.open()
                self._is_open = True
            if isinstance(order, OriginOrder):
                return origin_round(self._store, order)
            return sender_round(self._store, order)
        except InstanceChanged:
            self._is_open = False
            return RedisFailure("Redis is another one than before, or was restarted", has_changed=True)
        except StoreError as error:
            self._is_open = False
            return RedisFailure(str(error))
        except OSError as error:
            return RedisFailure(f"{self._redis.password_file}: {error.strerror or error}")


def password(path: str) -> str | None:
    """Return the password in a file, which others must not be able to read; OSError if that is not so."""
    if not path:
        return None
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & (stat.S_IRWXG | stat.S_IRWXO) & ~stat.S_IRGRP:
            raise OSError("others can read or change it: chmod 600")
        return file.readline(10_000).strip()
