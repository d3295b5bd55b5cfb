"""A forked process that looks at the files in a share of the directories, from the last to the first."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import sys
import time
from collections.abc import Iterator, Sequence

from inosync.system import process, signals
from inosync.watch.ctimes import changed_files
from inosync.watch.shares import Stretch
from inosync.watch.tree import Directory, Opener

_HEAD = struct.Struct("=Ii")
"""Stands before the names: which directory they are in, and their bytes; or UNREAD."""
_UNREAD = -1
"""The directory could not be read: the watcher has to see why."""
_REPORT_SECONDS = 0.001
"""The scout reports as often, and after each directory that takes longer."""
_READ_BYTES = 1 << 16
END_SECONDS = 0.05
"""How long the end of a killed scout is waited for."""


class Scout:
    """Looks at ``share`` of ``directories``, as they are at this moment; ``share.left`` follows it.

    ``inherited``: descriptors that it closes. OSError if it cannot be started.
    """

    def __init__(
        self, directories: Sequence[Directory], share: Stretch, after: int, inherited: list[int], title: str
    ) -> None:
        self.share = share
        self._received = bytearray()
        """The beginning of what it has reported."""
        self.fd, writer = os.pipe()
        """What it reports."""
        os.set_blocking(self.fd, False)
        master, closed = os.getpid(), [*inherited, self.fd]

        def run() -> None:
            _begin(master, closed, title)
            _look(directories, share, after, writer)

        try:
            self._process = process.fork(run, title)
        except OSError:
            os.close(self.fd)
            raise
        finally:
            os.close(writer)
        self.has_ended = False
        """Whether all that it has reported was read."""

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    def read(self) -> Iterator[tuple[int, list[bytes] | None]]:
        """Yield in which directories it has looked since the last call, and what has changed there.

        None: it could not look.
        """
        data = b""
        with contextlib.suppress(BlockingIOError):
            data = os.read(self.fd, _READ_BYTES)
            self.has_ended = not data
        self._received += data
        at = 0
        while len(self._received) - at >= _HEAD.size:
            number, size = _HEAD.unpack_from(self._received, at)
            end = at + _HEAD.size + max(size, 0)
            if end > len(self._received):
                break
            names = bytes(self._received[at + _HEAD.size : end])
            at, self.share.left = end, number
            yield number, None if size == _UNREAD else names.split(b"\0") if names else []
        del self._received[:at]

    def end(self) -> None:
        """End the process, whatever it does."""
        os.close(self.fd)
        if self._process.exitcode is None:
            process.send([self.pid], signal.SIGKILL)
            self._process.join(END_SECONDS)
        if self._process.exitcode is None:
            process.abandon(self._process)  # it hangs in the kernel


# In the process ------------------------------------------------------------------------------------------


def _begin(master: int, inherited: list[int], title: str) -> None:
    signals.reset(ignored=(signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2))
    process.close(inherited)
    process.die_with_parent(signal.SIGKILL, master)
    process.set_title(f"inosync: {title}")


def _look(directories: Sequence[Directory], share: Stretch, after: int, writer: int) -> None:
    """Report on each directory. Never returns."""
    code, opener, report = 1, Opener(), bytearray()
    report_at = time.monotonic() + _REPORT_SECONDS
    try:
        for number in range(share.end - 1, share.first - 1, -1):
            try:
                names = [
                    name for some in changed_files(opener.open(directories[number]), after) for name in some
                ]
                found = b"\0".join(names)
                report += _HEAD.pack(number, len(found)) + found
            except OSError:
                report += _HEAD.pack(number, _UNREAD)
            if time.monotonic() >= report_at:
                _write(writer, report)
                report_at = time.monotonic() + _REPORT_SECONDS
        _write(writer, report)
        code = 0
    except OSError:  # the master is gone, or wants no more
        pass
    except Exception:  # noqa: BLE001 - the watcher looks itself, then
        sys.excepthook(*sys.exc_info())
    finally:
        process.leave(code)


def _write(writer: int, report: bytearray) -> None:
    while report:
        del report[: os.write(writer, report)]
