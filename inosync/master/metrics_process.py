"""The process that serves metrics and the page (``rlisten``), as the master sees it.

The master only holds the socket, so that nobody is turned away while another process is started, and never
touches a connection.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from multiprocessing.context import ForkProcess

from inosync.config.listen import Address
from inosync.nodes import backoff
from inosync.system import privileges, process, signals
from inosync.system.loop import Loop

log = logging.getLogger(__name__)

FIRST, LONGEST = 1.0, 60.0
"""Seconds between two tries to listen, or to start the process."""
SOUND = 60.0
"""Seconds after which one that dies had been well: the next one is started soon."""
LEAVE = 1.0
"""Seconds that a killed one is waited for when the daemon ends."""
_BACKLOG = 128


class Listener:
    """Keeps that process running. ``control`` is the path of the control socket, which it asks.

    ``at`` calls back at a time of the clock; ``inherited`` are descriptors that the process must not keep.
    """

    def __init__(
        self,
        control: str,
        loop: Loop,
        at: Callable[[float, Callable[[], None]], None],
        inherited: Callable[[], list[int]],
        clock: Callable[[], float],
        rand: Callable[[], float],
    ) -> None:
        self._control, self._loop, self._at, self._inherited = control, loop, at, inherited
        self._clock, self._chance = clock, rand
        self._address: Address | None = None
        self._socket: socket.socket | None = None
        self._child: ForkProcess | None = None
        self._began = 0.0
        self._attempt = 0
        self._told = ""
        """The last error of listening."""
        self._plan = 0
        """Counts what is planned: only the last of it counts."""

    def serve(self, address: Address | None) -> None:
        """Serve there from now on; None: nowhere."""
        if address == self._address:
            return
        self._address, self._attempt, self._told = address, 0, ""
        self._plan += 1
        self._close()
        if self._child is not None:
            self._kill(self._child)  # its end is the beginning of the next
        elif address is not None:
            self._begin(address)

    def end(self) -> None:
        """Serve no more, and leave nothing."""
        child, self._address = self._child, None
        self._close()
        if child is not None:
            self._kill(child)
            child.join(LEAVE)
            process.abandon(child)

    def descriptors(self) -> list[int]:
        """What a forked child has to close."""
        return [] if self._socket is None else [self._socket.fileno()]

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _kill(self, child: ForkProcess) -> None:
        process.send([child.pid or 0] if child.pid else [], signal.SIGKILL)

    def _begin(self, address: Address) -> None:
        try:
            if self._socket is None:
                self._socket = _listening(address)
            child = self._fork(self._socket, address)
        except OSError as problem:
            pause = self._later()
            told = f"rlisten: {address}: {problem.strerror}"
            if told != self._told:
                log.error("%s; tried again in %.0f s, and so on", told, max(pause, 1.0))
            self._told = told
            return
        self._told = ""
        self._child, self._began = child, self._clock()
        self._loop.on_readable(child.sentinel, lambda: self._ended(child))
        log.info("metrics are served at http://%s/metrics, pid %d", address, child.pid or 0)

    def _fork(self, listening: socket.socket, address: Address) -> ForkProcess:
        inherited = [fd for fd in self._inherited() if fd != listening.fileno()]
        master = os.getpid()
        return process.fork(lambda: run(listening, address, self._control, master, inherited), "metrics")

    def _ended(self, child: ForkProcess) -> None:
        self._loop.drop(child.sentinel)
        child.join()  # it is one that is dead
        self._child = None
        if self._address is None:
            return
        if self._socket is None:  # it was to end, for another address
            self._begin(self._address)
            return
        if self._clock() - self._began >= SOUND:
            self._attempt = 0
        pause = self._later()
        code = child.exitcode
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with {code}"
        log.error("the process that serves metrics %s; another one is started in %.1f s", how, pause)

    def _later(self) -> float:
        self._attempt += 1
        self._plan += 1
        plan, pause = self._plan, backoff.delay(self._attempt, FIRST, LONGEST, self._chance())
        self._at(self._clock() + pause, lambda: self._again(plan))
        return pause

    def _again(self, plan: int) -> None:
        if plan == self._plan and self._address is not None and self._child is None:
            self._begin(self._address)


def _listening(address: Address) -> socket.socket:
    made = socket.socket(
        socket.AF_INET6 if address.is_v6 else socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC
    )
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


def run(listening: socket.socket, address: Address, control: str, master: int, inherited: list[int]) -> None:
    """The life of that process, forked by ``master`` (a pid). Never returns."""
    signals.reset(ignored=(signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2))
    process.close(inherited)
    process.die_with_parent(signal.SIGKILL, master)
    process.set_title(f"inosync: metrics {address}")
    code = 1
    try:
        privileges.renounce()
        from inosync.console import web  # the master does without it, and what it needs

        web.serve(listening, address, control)
    except Exception:  # noqa: BLE001 - its end is reported, and the master starts another
        sys.excepthook(*sys.exc_info())
    finally:
        process.leave(code)
