"""A forked process that answers orders one after the other, for which the loop never waits."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable
from multiprocessing.context import ForkProcess
from typing import IO

from inosync.system import descriptors, privileges, process, signals
from inosync.system.loop import Loop

_HEAD = struct.Struct("!Q")
"""Stands before each order and answer: its length."""
_CHUNK_BYTES = 1 << 16
SEND_AGAIN_SECONDS = 0.05
"""The pause before the rest of an order is sent for which the socket had no room."""


class ChildService:
    """Has one order answered at a time. The process starts with the first one, and ends with us.

    ``answer`` runs there, without privileges: what it keeps is known to the next order. ``inherited``:
    descriptors of ours that the process closes. ``title``: what ``ps`` shows, after "inosync: ".
    """

    def __init__(
        self,
        title: str,
        answer: Callable[[bytes], bytes],
        loop: Loop,
        inherited: Callable[[], list[int]],
    ) -> None:
        self._title, self._do, self._loop, self._inherited = title, answer, loop, inherited
        self._child: ForkProcess | None = None
        self._socket: socket.socket | None = None
        """Our end of the connection to it."""
        self._unsent = memoryview(b"")
        """What the process has not taken yet."""
        self._received = bytearray()
        """The beginning of an answer."""
        self._done: Callable[[bytes | None], None] | None = None
        """Gets the answer; None: nothing was asked."""

    @property
    def is_busy(self) -> bool:
        """Whether an answer is waited for."""
        return self._done is not None

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    def descriptors(self) -> list[int]:
        """What a forked child has to close."""
        return [] if self._socket is None else [self._socket.fileno()]

    def start(self) -> None:
        """Start the process, if there is none. OSError if that is impossible."""
        if self._socket is not None:
            return
        ours, theirs = socket.socketpair()
        try:
            master, inherited = os.getpid(), [*self._inherited(), ours.fileno()]
            self._child = process.fork(lambda: self._run(theirs, master, inherited), self._title)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        self._socket, self._received = ours, bytearray()
        self._loop.on_readable(ours, self._receive)

    def ask(self, order: bytes, done: Callable[[bytes | None], None]) -> None:
        """Have an order answered. OSError if there is no process, and none can be started.

        ``done`` is called in a later turn, or in ``wait``, with the answer, or with None: the process has
        ended, and the next order starts another one.
        """
        assert self._done is None
        self.start()
        self._done, self._unsent = done, memoryview(_HEAD.pack(len(order)) + order)
        self._send()

    def wait(self, until: float) -> None:
        """Wait for the answer until a time of the clock. Only for the start and the end of the daemon."""
        while self.is_busy and self._socket is not None and (left := until - self._loop.clock()) > 0:
            writers = [self._socket] if self._unsent else []
            readable, writable, _ = select.select([self._socket], writers, [], left)
            if writable:
                self._send()
            if readable and self._socket is not None:
                self._receive()

    def end(self, seconds: float = 0.0) -> None:
        """End the process. It gets ``seconds`` to finish its order; ``done`` is not called any more."""
        if self._socket is not None:
            self._loop.drop(self._socket)
            self._socket.close()
        child, self._socket, self._child = self._child, None, None
        self._done, self._unsent = None, memoryview(b"")
        if child is not None:
            child.join(seconds)  # the end of the connection is its end, unless something holds it
            if child.exitcode is None:
                process.send([child.pid] if child.pid else [], signal.SIGKILL)
            process.abandon(child)

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
        done = self._done
        if not data:
            self.end()
            if done is not None:
                done(None)
            return
        self._received += data
        if len(self._received) < _HEAD.size:
            return
        end = _HEAD.size + _HEAD.unpack_from(self._received)[0]
        if len(self._received) >= end and done is not None:
            answer, self._received, self._done = bytes(self._received[_HEAD.size : end]), bytearray(), None
            done(answer)

    # In the process ----------------------------------------------------------------------------------

    def _run(self, end: socket.socket, master: int, inherited: list[int]) -> None:
        """Answer orders until the connection ends. ``master``: the pid that has forked us. Never returns."""
        ignored = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
        signals.reset(ignored=ignored)
        process.close(inherited)
        process.die_with_parent(signal.SIGKILL, master)
        descriptors.lead_standard_streams_nowhere()  # it may start before those of the caller are let go
        process.set_title(f"inosync: {self._title}")
        code = 1
        try:
            privileges.drop_all()
            with end.makefile("rb") as stream:
                while (order := _read(stream)) is not None:
                    answer = self._do(order)
                    end.sendall(_HEAD.pack(len(answer)) + answer)
            code = 0
        except OSError:  # the master is gone
            code = 0
        except Exception:  # noqa: BLE001 - its end is reported, and the master starts another
            sys.excepthook(*sys.exc_info())
        finally:
            process.leave(code)


def _read(stream: IO[bytes]) -> bytes | None:
    """Return the next order; None at the end."""
    head = stream.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    size = _HEAD.unpack(head)[0]
    order = stream.read(size)
    return order if len(order) == size else None
