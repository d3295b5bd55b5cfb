"""Messages to the service manager that has started us: sd_notify(3) and sd_watchdog_enabled(3).

The protocol is datagrams of ``NAME=VALUE`` lines to a socket that is named in the environment. A library
would save little, and the known ones block.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections import deque
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass

from inosync.system.loop import Loop, Timer, call_by

STATUS_SECONDS = 1.0
"""The shortest time between two status texts."""
RESEND_SECONDS = 0.1
"""The pause before a message is sent again, when the manager's queue is full."""
EXTEND_SECONDS = 30.0
"""A long start asks for so much more time in advance."""
_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
_MAX_STATUS = 512  # characters; a datagram of PAGE_SIZE is what systemd reads
_MAX_KEPT = 16  # messages; only a manager that hangs leaves so many unread
_NO_ROOM = (errno.EAGAIN, errno.ENOBUFS)


@dataclass(frozen=True, slots=True)
class NotifyTarget:
    """The environment that the service manager gives us."""

    address: str = ""
    """NOTIFY_SOCKET, "/path" or "@abstract"; anything else means that there is no manager."""
    watchdog: float | None = None
    """The longest time between two signs of life, in seconds; None: none are wanted."""
    pid: int = 0
    """The process that it has started."""


class ServiceManager:
    """The service manager, if there is one; else each call does nothing.

    Nothing here waits or fails. A message that finds no room is sent later, in its order. Signs of life are
    timers of the loop, so that a loop that hangs gives none.
    """

    def __init__(self, target: NotifyTarget, loop: Loop) -> None:
        self._loop = loop
        self._pid = target.pid
        self._address = _address(target.address)
        self._beat_seconds = None if target.watchdog is None else target.watchdog / 2
        self._kept: deque[bytes] = deque(maxlen=_MAX_KEPT)
        """Messages that found no room."""
        self._is_starting = True
        self._given = self._status = self._sent_status = ""
        """The status as it was given, as it is to be sent, and as it was sent last."""
        self._status_at = float("-inf")
        """The earliest time for the next status."""
        self._status_timer: Timer | None = None
        self._beat_timer: Timer | None = None
        self._socket: socket.socket | None = None
        if self._address:
            kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            with contextlib.suppress(OSError):
                self._socket = socket.socket(socket.AF_UNIX, kind)
                loop.call_at(loop.clock(), self._extend_start)

    def descriptors(self) -> list[int]:
        """What a forked child has to close."""
        return [] if self._socket is None else [self._socket.fileno()]

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # What is said ------------------------------------------------------------------------------------

    def ready(self) -> None:
        """Say that the start is over. Further calls do nothing."""
        if self._socket is None or not self._is_starting:
            return
        self._is_starting = False
        # A daemon in the background is not the process that the manager has started.
        main = [f"MAINPID={os.getpid()}"] if os.getpid() != self._pid else []
        self._send("READY=1", *main, *self._take_status())
        self._loop.call_at(self._loop.clock(), self._beat)

    @contextlib.contextmanager
    def reloading(self) -> Iterator[None]:
        """Say that the configuration is being read again, while the context lasts."""
        if not self._is_starting:
            now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            self._send("RELOADING=1", f"MONOTONIC_USEC={now}", *self._sign_of_life())
        try:
            yield
        finally:
            if not self._is_starting:
                self._send("READY=1")

    def stopping(self, within: float) -> None:
        """Say that the daemon ends, within so many seconds."""
        self._is_starting = False
        self._status = f"stopping; {self._status}" if self._status else "stopping"
        self._send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={within * 1e6:.0f}", *self._take_status())

    def set_status(self, text: str) -> None:
        """Set the line that says what the daemon does; it is sent soon, if it has changed."""
        if text == self._given or self._socket is None:
            return
        self._given = text
        self._status = "".join(c if c.isprintable() else "?" for c in text)[:_MAX_STATUS]
        when = max(self._loop.clock(), self._status_at)
        self._status_timer = call_by(self._loop, when, self._send_status, self._status_timer)

    # How it is said ----------------------------------------------------------------------------------

    def _extend_start(self) -> None:
        if self._is_starting:
            self._send(f"EXTEND_TIMEOUT_USEC={EXTEND_SECONDS * 1e6:.0f}")
            self._loop.call_at(self._loop.clock() + EXTEND_SECONDS / 3, self._extend_start)

    def _beat(self) -> None:
        if sign := self._sign_of_life():
            self._send(*sign)

    def _sign_of_life(self) -> list[str]:
        if self._beat_seconds is None:
            return []
        if self._beat_timer is not None:
            self._beat_timer.cancel()
        self._beat_timer = self._loop.call_at(self._loop.clock() + self._beat_seconds, self._beat)
        return ["WATCHDOG=1"]

    def _send_status(self) -> None:
        if self._status != self._sent_status:
            self._send(*self._take_status())

    def _take_status(self) -> list[str]:
        self._sent_status, self._status_at = self._status, self._loop.clock() + STATUS_SECONDS
        return [f"STATUS={self._status}"]

    def _send(self, *lines: str) -> None:
        if self._socket is None or len(self._kept) == _MAX_KEPT:
            return  # the older ones matter more: a READY may be among them
        self._kept.append("\n".join(lines).encode("utf-8", "replace"))
        if len(self._kept) == 1:
            self._send_kept()

    def _send_kept(self) -> None:
        while self._kept and self._socket is not None:
            try:
                self._socket.sendto(self._kept[0], self._address)
            except OSError as error:
                if error.errno in _NO_ROOM:
                    self._loop.call_at(self._loop.clock() + RESEND_SECONDS, self._send_kept)
                    return
                # The manager does not listen, or refuses us: the message is dropped.
            self._kept.popleft()


def take_target(environment: MutableMapping[str, str]) -> NotifyTarget:
    """Take the service manager out of an environment, so that no child sends messages in our name.

    Call this in the process that the manager has started, before anything is forked.
    """
    address, usec, pid = (environment.pop(name, "") for name in _VARIABLES)
    meant = not pid or pid == str(os.getpid())
    limit = int(usec) / 1e6 if usec.isascii() and usec.isdigit() else 0.0
    return NotifyTarget(address, limit if meant and limit > 0 else None, os.getpid())


def _address(text: str) -> str:
    """Return the socket's address; empty for other kinds (AF_VSOCK is for virtual machines)."""
    if text.startswith("@") and len(text) > 1:
        return "\0" + text[1:]
    return text if text.startswith("/") else ""
