"""The process that serves metrics and the page (``rlisten``), as the master sees it.

The master only holds the listening socket, so that no client is refused while another process is started. It
never touches a connection.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkProcess

from inosync.config.listen import Address
from inosync.nodes import backoff
from inosync.system import privileges, process, signals
from inosync.system.loop import Loop, Timer

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 1.0, 60.0
"""Bounds of the pause between two tries to listen, or to start the process."""
STEADY_SECONDS = 60.0
"""A process that dies after so long had been well: the next one is started soon."""
JOIN_SECONDS = 1.0
"""How long the end of the daemon waits for a killed process."""
_BACKLOG = 128


@dataclass(slots=True)
class MetricsProcess:
    """Keeps that process running."""

    attach: Callable[[socket.socket], None]
    """Has the daemon tell its status over a connection."""
    loop: Loop
    inherited: Callable[[], list[int]]
    """The descriptors of the master that the process must not keep."""
    rand: Callable[[], float]
    _address: Address | None = None
    """Where to serve; None: nowhere."""
    _socket: socket.socket | None = None
    _child: ForkProcess | None = None
    _forked_at: float = 0.0
    _attempt: int = 0
    """Failures in a row."""
    _logged: str = ""
    """The last error of listening."""
    _retry: Timer | None = None
    """Starts the process after a failure."""

    def serve(self, address: Address | None) -> None:
        """Serve there from now on; None: nowhere."""
        if address == self._address:
            return
        self._address, self._attempt, self._logged = address, 0, ""
        if self._retry is not None:
            self._retry.cancel()
        self._close_socket()
        if self._child is not None:
            _kill(self._child)  # the next one follows when it has ended
        else:
            self._start()

    def end(self) -> None:
        """Serve no more, and leave nothing."""
        child = self._child
        self.serve(None)
        if child is not None:
            child.join(JOIN_SECONDS)
            process.abandon(child)

    def descriptors(self) -> list[int]:
        return [] if self._socket is None else [self._socket.fileno()]

    def _close_socket(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _start(self) -> None:
        address = self._address
        if address is None:
            return
        try:
            listening = self._socket = self._socket or _listening(address)
            child = self._fork(listening, address)
        except OSError as problem:
            pause = self._retry_later()
            told = f"rlisten: {address}: {problem.strerror}"
            if told != self._logged:
                log.error("%s; tried again in %.0f s, and so on", told, max(pause, 1.0))
            self._logged = told
            return
        self._logged, self._child, self._forked_at = "", child, self.loop.clock()
        self.loop.on_readable(child.sentinel, lambda: self._ended(child))
        log.info("metrics are served at http://%s/metrics, pid %d", address, child.pid or 0)

    def _fork(self, listening: socket.socket, address: Address) -> ForkProcess:
        ours, theirs = socket.socketpair()
        inherited = [fd for fd in (*self.inherited(), ours.fileno()) if fd != listening.fileno()]
        master = os.getpid()
        try:
            child = process.fork(lambda: run(listening, address, theirs, master, inherited), "metrics")
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self.attach(ours)
        return child

    def _ended(self, child: ForkProcess) -> None:
        self.loop.drop(child.sentinel)
        child.join()  # returns at once, because it is dead
        self._child = None
        if self._socket is None:  # it was killed, because another address is wanted, or none
            self._start()
            return
        if self.loop.clock() - self._forked_at >= STEADY_SECONDS:
            self._attempt = 0
        pause = self._retry_later()
        code = child.exitcode
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with {code}"
        log.error("the process that serves metrics %s; another one is started in %.1f s", how, pause)

    def _retry_later(self) -> float:
        self._attempt += 1
        pause = backoff.delay(self._attempt, FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS, self.rand())
        self._retry = self.loop.call_at(self.loop.clock() + pause, self._start)
        return pause


def _kill(child: ForkProcess) -> None:
    process.send([child.pid] if child.pid else [], signal.SIGKILL)


def _listening(address: Address) -> socket.socket:
    family = socket.AF_INET6 if address.is_v6 else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        # What the last daemon has served may still be in TIME_WAIT (socket(7)).
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address.is_v6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((address.host, address.port))
        made.listen(_BACKLOG)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made


def run(
    listening: socket.socket, address: Address, daemon: socket.socket, master: int, inherited: list[int]
) -> None:
    """The life of that process, forked by ``master`` (a pid). Never returns."""
    signals.reset(ignored=(signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2))
    process.close(inherited)
    process.set_title(f"inosync: metrics {address}")
    code = 1
    try:
        # The master does without it, and what it needs. Nobody may not be able to read its files.
        from inosync.console import web

        privileges.renounce()
        process.die_with_parent(signal.SIGKILL, master)
        web.serve(listening, address, daemon)
    except Exception:  # its end is reported, and the master starts another
        log.exception("%s ends because of an unexpected error", "the process that serves metrics")
    finally:
        process.leave(code)
