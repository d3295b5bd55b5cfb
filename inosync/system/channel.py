"""The queue between the master and one worker process: two one-way ``multiprocessing`` pipes.

It is made for one process and thrown away when that process dies. A process that is killed while it holds
the lock of a shared queue blocks all others; a private pipe has no lock. A message has at most PIPE_BUF
bytes, so that a write is whole or does not happen (pipe(7)). The master's descriptors never block.
"""

from __future__ import annotations

import os
import pickle
import select
from multiprocessing import get_context
from multiprocessing.connection import Connection

_LENGTH_BYTES = 4
"""``Connection`` puts the length of a message before it."""
MAX_MESSAGE_BYTES = select.PIPE_BUF - _LENGTH_BYTES
"""The longest pickled message."""


class QueueError(Exception):
    """The other process has ended, or does not read what it is sent."""


class QueueFull(QueueError):
    """The pipe is full: the other process has not read for long."""


class Endpoint:
    """One end of the queue: it reads from one pipe and writes to the other."""

    def __init__(self, reader: Connection[object, object], writer: Connection[object, object]) -> None:
        self._reader = reader
        self._writer = writer
        self._readable = select.poll()  # Connection.poll makes a selector for each call
        self._readable.register(reader.fileno(), select.POLLIN)
        self.written = 0
        """Bytes written so far."""

    def fileno(self) -> int:
        """The descriptor that is readable when a message has arrived, or the other process has ended."""
        return self._reader.fileno()

    def put(self, message: object) -> None:
        """Send a message. QueueFull if the pipe is full, QueueError if the other process has ended."""
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        if len(data) > MAX_MESSAGE_BYTES:
            raise ValueError(f"a message of {len(data)} bytes: at most {MAX_MESSAGE_BYTES} go in one write")
        try:
            self._writer.send_bytes(data)
        except BlockingIOError as error:
            raise QueueFull(str(error)) from error
        except BrokenPipeError as error:
            raise QueueError(str(error)) from error
        self.written += _LENGTH_BYTES + len(data)

    def get(self) -> object | None:
        """Return the next message, or None if there is none. QueueError if the other process has ended."""
        try:
            if not self._readable.poll(0):
                return None
            message: object = pickle.loads(self._reader.recv_bytes())
            return message
        except (EOFError, ConnectionResetError, BrokenPipeError) as error:
            raise QueueError("the other process has ended") from error

    @property
    def send_fd(self) -> int:
        return self._writer.fileno()

    def descriptors(self) -> list[int]:
        """What a forked child has to close, unless it is the process at the other end."""
        return [self._reader.fileno(), self._writer.fileno()]

    def close(self) -> None:
        self._reader.close()
        self._writer.close()


def pair() -> tuple[Endpoint, Endpoint]:
    """Make a queue; return the master's end, whose writes never block, and the worker's."""
    context = get_context("fork")
    orders_out, orders_in = context.Pipe(duplex=False)
    reports_out, reports_in = context.Pipe(duplex=False)
    os.set_blocking(orders_in.fileno(), False)
    return Endpoint(reports_out, orders_in), Endpoint(orders_out, reports_in)
