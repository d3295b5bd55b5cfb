"""Talking to the service manager that has started us: sd_notify(3) and sd_watchdog_enabled(3).

The whole protocol is datagrams of ``NAME=VALUE`` lines to a socket that is named in the environment, so there
is nothing here that a library would do better, and one that blocks would be worse.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, MutableMapping

STATUS_EVERY = 1.0
"""Seconds between two texts of what we are at, at least."""
AGAIN = 0.1
"""Seconds until a message is sent again for which the manager's queue had no room."""
PROLONG = 30.0
"""Seconds that a start, which takes its time, asks for in advance."""
_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
_MAX_STATUS = 512  # characters; a datagram of PAGE_SIZE is what systemd reads
_KEPT = 16  # messages without room; only a manager that hangs lets it come to that
_FULL = (errno.EAGAIN, errno.ENOBUFS)


class ServiceManager:
    """The service manager, if there is one that wants to know; else each call does nothing.

    Nothing here waits or fails. A message that finds no room is kept, in its order, for a later ``tend``.
    ``address``: of NOTIFY_SOCKET, "/path" or "@abstract". ``watchdog``: seconds within which it wants to hear
    from us again and again. ``pid``: the process that it takes for the service.
    """

    def __init__(
        self,
        address: str = "",
        watchdog: float | None = None,
        pid: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._pid = os.getpid() if pid is None else pid
        self._address = _address(address)
        self._beat_every = None if watchdog is None else watchdog / 2
        self._kept: deque[bytes] = deque(maxlen=_KEPT)
        self._ready = False
        self._given = self._status = self._told_status = ""
        self._status_at = self._beat_at = self._prolong_at = self._again_at = float("inf")
        """When each of these is due."""
        self._socket: socket.socket | None = None
        if self._address:
            kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            with contextlib.suppress(OSError):
                self._socket = socket.socket(socket.AF_UNIX, kind)
        if self._socket is not None:
            self._prolong_at = self._status_at = clock()

    def descriptors(self) -> list[int]:
        """What a forked child has to close."""
        return [] if self._socket is None else [self._socket.fileno()]

    def close(self) -> None:
        """Tell nothing more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    @property
    def deadline(self) -> float:
        """When ``tend`` has something to do."""
        times = [self._again_at, self._beat_at, self._prolong_at]
        if self._status != self._told_status:
            times.append(self._status_at)
        return min(times)

    # What there is to tell ---------------------------------------------------------------------------

    def ready(self) -> None:
        """The start is over. Further calls do nothing."""
        if self._ready or self._socket is None:
            return
        self._ready, self._prolong_at = True, float("inf")
        if self._beat_every is not None:
            self._beat_at = self._clock()
        # Who has put himself into the background is not whom the manager has started.
        main = [f"MAINPID={os.getpid()}"] if os.getpid() != self._pid else []
        self._tell("READY=1", *main, *self._newest())

    @contextlib.contextmanager
    def reloading(self) -> Iterator[None]:
        """The configuration is read again in here, or refused."""
        if self._ready:
            now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            self._tell("RELOADING=1", f"MONOTONIC_USEC={now}", *self._sign_of_life())
        try:
            yield
        finally:
            if self._ready:
                self._tell("READY=1")

    def stopping(self, within: float) -> None:
        """We end, in so many seconds."""
        self._prolong_at = float("inf")
        self._status = f"stopping; {self._status}" if self._status else "stopping"
        self._tell("STOPPING=1", f"EXTEND_TIMEOUT_USEC={within * 1e6:.0f}", *self._newest())

    def status(self, text: str) -> None:
        """What we are at, in one line. It is told soon, if it is something else than before."""
        if text != self._given:
            self._given = text
            self._status = "".join(c if c.isprintable() else "?" for c in text)[:_MAX_STATUS]

    def tend(self) -> None:
        """Tell what is due. The loop calls it, so that a loop that hangs gives no sign of life."""
        now = self._clock()
        if now >= self._again_at:
            self._flush()
        lines: list[str] = []
        if now >= self._prolong_at:
            self._prolong_at = now + PROLONG / 3
            lines.append(f"EXTEND_TIMEOUT_USEC={PROLONG * 1e6:.0f}")
        if self._status != self._told_status and now >= self._status_at:
            lines += self._newest()
        if now >= self._beat_at:
            lines += self._sign_of_life()
        if lines:
            self._tell(*lines)

    # How it is told ----------------------------------------------------------------------------------

    def _newest(self) -> list[str]:
        self._told_status, self._status_at = self._status, self._clock() + STATUS_EVERY
        return [f"STATUS={self._status}"]

    def _sign_of_life(self) -> list[str]:
        if self._beat_every is None:
            return []
        self._beat_at = self._clock() + self._beat_every
        return ["WATCHDOG=1"]

    def _tell(self, *lines: str) -> None:
        if self._socket is None:
            return
        message = "\n".join(lines).encode("utf-8", "replace")
        if len(self._kept) == _KEPT:
            return  # rather than lose what is older: a READY may be among it
        self._kept.append(message)
        self._flush()

    def _flush(self) -> None:
        self._again_at = float("inf")
        while self._kept and self._socket is not None:
            try:
                self._socket.sendto(self._kept[0], self._address)
            except OSError as error:
                if error.errno in _FULL:
                    self._again_at = self._clock() + AGAIN
                    return
                # Nobody listens, or we must not: it is their service.
            self._kept.popleft()


def take(environment: MutableMapping[str, str]) -> ServiceManager:
    """Who is named in an environment; it is taken out of it, so that no child speaks for us.

    To be called in the process that the manager has started, before anything is forked.
    """
    address, usec, pid = (environment.pop(name, "") for name in _VARIABLES)
    meant = not pid or pid == str(os.getpid())
    limit = int(usec) / 1e6 if usec.isascii() and usec.isdigit() else 0.0
    return ServiceManager(address, limit if meant and limit > 0 else None)


def _address(text: str) -> str:
    """The address of a socket; empty if the text is none that we know (AF_VSOCK is for machines)."""
    if text.startswith("@") and len(text) > 1:
        return "\0" + text[1:]
    return text if text.startswith("/") else ""
