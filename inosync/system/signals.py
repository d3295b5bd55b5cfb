"""Signals as bytes in a pipe, so that a loop handles them between other events."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable

_EARLY = (signal.SIGHUP, signal.SIGUSR1)


def hold_back_early() -> None:
    """Block signals that would end this process until the master handles them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _EARLY)


def let_early_pass() -> None:
    """Unblock these signals: what came meanwhile is handled now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _EARLY)


def _ignore_in_handler(_number: int, _frame: object) -> None:
    """Do nothing: the interpreter has written the signal's number to the wakeup descriptor already."""


_CHANGEABLE = tuple(map(int, signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}))
"""As numbers, known before any fork: a forked child copies the pages of all that it touches."""


class Signals:
    """Catches the given signals. ``fileno`` is readable when ``caught`` returns any.

    Make only one in a process, in the main thread: ``signal.set_wakeup_fd`` belongs to the process.
    """

    def __init__(self, numbers: Iterable[signal.Signals]) -> None:
        self._numbers = tuple(numbers)
        self._reader, self._writer = os.pipe()
        for end in (self._reader, self._writer):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in self._numbers:
            signal.signal(number, _ignore_in_handler)
            signal.siginterrupt(number, False)

    def fileno(self) -> int:
        return self._reader

    def caught(self) -> list[int]:
        """Return the signals since the last call, each once, in order."""
        try:
            return list(dict.fromkeys(os.read(self._reader, 4096)))
        except BlockingIOError:
            return []

    def descriptors(self) -> tuple[int, int]:
        """What a forked child has to close."""
        return self._reader, self._writer


def reset(ignored: Iterable[signal.Signals] = ()) -> None:
    """Reset all signals to their default actions, in a forked child; ignore ``ignored``."""
    signal.set_wakeup_fd(-1)
    for number in _CHANGEABLE:
        handler = signal.getsignal(number)
        if handler is not None and handler is not signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
    # As Python does at its start: a write to a dead rsync is to fail with EPIPE, not to kill us.
    for number in (signal.SIGPIPE, signal.SIGXFSZ, *ignored):
        signal.signal(number, signal.SIG_IGN)
