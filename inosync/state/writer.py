"""The process that writes the state: a disk may take seconds, and the master's loop never waits."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable
from multiprocessing.context import ForkProcess

from inosync.state import store
from inosync.system import descriptors, privileges, process, signals
from inosync.system.loop import Loop

log = logging.getLogger(__name__)

_HEAD = struct.Struct("!Q")
_CHUNK_BYTES = 1 << 16
SEND_AGAIN_SECONDS = 0.1
"""Until a process that writes is sent the rest of a state that is longer than its socket holds."""
_ANSWER_BYTES = 500


class StateWriter:
    """Has one state written at a time. ``inherited``: descriptors of the master that the process closes."""

    def __init__(self, path: str, loop: Loop, inherited: Callable[[], list[int]]) -> None:
        self.path = path
        self._loop, self._inherited = loop, inherited
        self._child: ForkProcess | None = None
        self._socket: socket.socket | None = None
        """Our end of the connection to it."""
        self._unsent = memoryview(b"")
        """What the process has not taken yet."""
        self.is_busy = False
        """Whether the process has not answered yet."""
        self._logged = ""
        """Why the last state could not be written."""

    def descriptors(self) -> list[int]:
        return [] if self._socket is None else [self._socket.fileno()]

    def start(self) -> None:
        """Start the process, if there is none. OSError if that is impossible."""
        if self._socket is not None:
            return
        ours, theirs = socket.socketpair()
        try:
            master, inherited = os.getpid(), [*self._inherited(), ours.fileno()]
            self._child = process.fork(lambda: run(theirs, self.path, master, inherited), "state")
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        self._socket = ours
        self._loop.on_readable(ours, self._take_answer)

    def write(self, data: bytes) -> bool:
        """Have a state written; False if the last one is still being written, or nothing can be."""
        if self.is_busy:
            return False
        try:
            self.start()
        except OSError as error:
            self._note(f"no process for it: {error.strerror}")
            return False
        self._unsent, self.is_busy = memoryview(_HEAD.pack(len(data)) + data), True
        self._send()
        return True

    def finish(self, data: bytes | None, seconds: float) -> None:
        """Have the last state written, if there is one, and end the process; wait at most that long."""
        until = self._loop.clock() + seconds
        self._wait(until)
        if data is not None and self.write(data):
            self._wait(until)
        self._stop(max(until - self._loop.clock(), 0.0))

    def _wait(self, until: float) -> None:
        while self.is_busy and self._socket is not None and (left := until - self._loop.clock()) > 0:
            writers = [self._socket] if self._unsent else []
            readable, writable, _ = select.select([self._socket], writers, [], left)
            if writable:
                self._send()
            if readable and self._socket is not None:
                self._take_answer()

    def _send(self) -> None:
        if self._socket is None:
            return
        with contextlib.suppress(OSError):  # it is full, or its end is about to be read
            while self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent[:_CHUNK_BYTES]) :]
        if self._unsent:
            self._loop.call_at(self._loop.clock() + SEND_AGAIN_SECONDS, self._send)

    def _take_answer(self) -> None:
        assert self._socket is not None
        try:
            answer = self._socket.recv(_ANSWER_BYTES)
        except BlockingIOError:
            return
        except OSError:
            answer = b""
        if not answer:
            self._stop(0.0)
            self._note("the process that writes it has ended")
            return
        self.is_busy = False
        self._note(answer.strip().decode("utf-8", "replace"))

    def _note(self, problem: str) -> None:
        if problem and not self._logged:
            log.warning(
                "%s: %s: the state is not kept, and the next start makes full mirrors", self.path, problem
            )
        elif self._logged and not problem:
            log.info("%s: the state is kept again", self.path)
        self._logged = problem

    def _stop(self, seconds: float) -> None:
        """End the process: the end of the connection is its end, unless a disk holds it."""
        if self._socket is not None:
            self._loop.drop(self._socket)
            self._socket.close()
        child, self._socket, self._child = self._child, None, None
        self.is_busy, self._unsent = False, memoryview(b"")
        if child is not None:
            child.join(seconds)
            if child.exitcode is None:
                process.send([child.pid] if child.pid else [], signal.SIGKILL)
            process.abandon(child)


def run(end: socket.socket, path: str, master: int, inherited: list[int]) -> None:
    """The life of that process, forked by ``master`` (a pid). Never returns."""
    ignored = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    signals.reset(ignored=ignored)
    process.close(inherited)
    process.die_with_parent(signal.SIGKILL, master)
    descriptors.lead_standard_streams_nowhere()  # it starts before a daemon has let go of those of its caller
    process.set_title(f"inosync: state {path}")
    code = 1
    try:
        privileges.drop_all()
        with end.makefile("rb") as stream:
            while head := stream.read(_HEAD.size):
                data = stream.read(_HEAD.unpack(head)[0])
                end.sendall(_written(path, data).encode()[: _ANSWER_BYTES - 1] + b"\n")
        code = 0
    except (OSError, struct.error):  # the master is gone
        code = 0
    except Exception:  # noqa: BLE001 - its end is reported, and the master starts another
        sys.excepthook(*sys.exc_info())
    finally:
        process.leave(code)


def _written(path: str, data: bytes) -> str:
    """Write a state; why that failed, or ""."""
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(os.path.dirname(path), 0o700)
        store.write(path, data)
    except OSError as error:
        return error.strerror or str(error)
    return ""
