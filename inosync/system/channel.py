"""The one-slot queue between the master and one incarnation of a worker.

Two one-way ``multiprocessing`` pipes, made for one process and thrown away when it dies: whoever is killed
while it holds a shared queue's lock wedges everybody else, and a private pipe has no lock. Messages are at
most PIPE_BUF bytes, so that a write is whole or not at all (pipe(7)), and the master's ends never block.
"""

from __future__ import annotations

import os
import pickle
import select
from multiprocessing import get_context
from multiprocessing.connection import Connection

_LENGTH = 4
"""Bytes that ``Connection`` puts before a message, for its length."""
MAX_MESSAGE = select.PIPE_BUF - _LENGTH
"""Bytes of a pickled message."""


class QueueError(Exception):
    """The other side is gone, or does not take what it is sent."""


class QueueFull(QueueError):
    """The other side has not taken what it was sent for long."""


class Endpoint:
    """One side: what it reads from, and what it writes to."""

    def __init__(self, reader: Connection[object, object], writer: Connection[object, object]) -> None:
        self._reader = reader
        self._writer = writer
        self._readable = select.poll()  # Connection.poll makes a selector for each call
        self._readable.register(reader.fileno(), select.POLLIN)
        self.written = 0
        """Bytes put so far."""

    def fileno(self) -> int:
        """The descriptor that becomes readable when a message, or the other side's end, has arrived."""
        return self._reader.fileno()

    def put(self, message: object) -> None:
        """Send a message; ``QueueError`` if the other side is gone, ``QueueFull`` if its pipe is full."""
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        if len(data) > MAX_MESSAGE:
            raise ValueError(f"a message of {len(data)} bytes: at most {MAX_MESSAGE} go in one write")
        try:
            self._writer.send_bytes(data)
        except BlockingIOError as error:
            raise QueueFull(str(error)) from error
        except BrokenPipeError as error:
            raise QueueError(str(error)) from error
        self.written += _LENGTH + len(data)

    def get(self) -> object | None:
        """The next message, or None if there is none now; ``QueueError`` when the other side has ended."""
        try:
            if not self._readable.poll(0):
                return None
            message: object = pickle.loads(self._reader.recv_bytes())
            return message
        except (EOFError, ConnectionResetError, BrokenPipeError) as error:
            raise QueueError("the other side has ended") from error

    @property
    def send_fd(self) -> int:
        """The descriptor of the pipe that it writes to."""
        return self._writer.fileno()

    def descriptors(self) -> list[int]:
        """What a forked child that is not the other side has to close."""
        return [self._reader.fileno(), self._writer.fileno()]

    def close(self) -> None:
        """Close both descriptors."""
        self._reader.close()
        self._writer.close()


def pair() -> tuple[Endpoint, Endpoint]:
    """A fresh queue: the master's side, whose writes never block, and the worker's."""
    context = get_context("fork")
    orders_out, orders_in = context.Pipe(duplex=False)
    reports_out, reports_in = context.Pipe(duplex=False)
    os.set_blocking(orders_in.fileno(), False)
    return Endpoint(reports_out, orders_in), Endpoint(orders_out, reports_in)
