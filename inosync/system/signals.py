"""Signals as bytes in a pipe, so that a selector loop meets them at a time of its own choosing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable


def _noted(_number: int, _frame: object) -> None:
    """Nothing: the interpreter has written the signal's number to the wakeup descriptor by now."""


class Signals:
    """Catches the given signals; ``fileno`` is readable when ``caught`` has something to tell.

    ``signal.set_wakeup_fd`` is of the whole process: make one of these only, in the main thread.
    """

    def __init__(self, numbers: Iterable[signal.Signals]) -> None:
        self._numbers = tuple(numbers)
        self._reader, self._writer = os.pipe()
        for end in (self._reader, self._writer):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in self._numbers:
            signal.signal(number, _noted)
            signal.siginterrupt(number, False)

    def fileno(self) -> int:
        """The descriptor for a selector."""
        return self._reader

    def caught(self) -> list[int]:
        """The numbers of the signals since the last call, each once, in order."""
        try:
            return list(dict.fromkeys(os.read(self._reader, 4096)))
        except BlockingIOError:
            return []

    def descriptors(self) -> tuple[int, int]:
        """What a forked child has to close."""
        return self._reader, self._writer


def reset(ignored: Iterable[signal.Signals] = ()) -> None:
    """In a forked child: no wakeup descriptor, every handler at its default, ``ignored`` ones ignored."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if number in (signal.SIGKILL, signal.SIGSTOP):
            continue
        handler = signal.getsignal(number)
        if handler is not None and handler is not signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
    # Python itself ignores SIGPIPE and SIGXFSZ: writing to a dead rsync is to be EPIPE, not our end.
    for number in (signal.SIGPIPE, signal.SIGXFSZ, *ignored):
        signal.signal(number, signal.SIG_IGN)
