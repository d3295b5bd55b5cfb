"""One run of rsync: start it, send it names, collect what it prints, and end it when it hangs."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Collection
from io import FileIO
from typing import ClassVar

from inosync.rsync import argv
from inosync.rsync.output import RsyncOutput
from inosync.system import process, program
from inosync.system.loop import Loop, Timer
from inosync.system.peers import Peers

KILL_AFTER_SECONDS = 2.0
"""The time between SIGTERM and SIGKILL."""
_CONNECTION_POLL_SECONDS = 0.001, 0.05
"""Bounds of the time between two checks whether rsync has connected: a tenth of the time so far."""
_OUTPUT_SECONDS = 0.1
"""The time from when there are names until what it prints is read as it comes. Most transfers have ended by
then, and all is read at once: to wake for each piece costs more."""
PROGRESS_POLL_SECONDS = 2.0
"""The longest time between two checks whether a transfer makes progress."""
_CARRIERS = ("ssh", "dbclient")
"""Programs whose own traffic (ServerAliveInterval) goes on for ever, whatever rsync does."""
MAX_EARLY_STDERR_BYTES = 1 << 20
"""The most standard error before the names are sent: there is one failure to report at most."""
MAX_STDERR_BYTES = 1 << 28
"""The most standard error in all: rsync may complain of a million files."""
_CHUNK_BYTES = 1 << 16
_MAX_LAST_READS = 1 + (1 << 20) // _CHUNK_BYTES
"""Reads of a pipe after the end of rsync: no pipe holds more than 1 MiB (pipe(7))."""


Names = bytes | Callable[[], bytes]
"""A list of names (``argv.names_input``), or what returns one."""


class Transfer:
    """An rsync process. When ``done`` is true it has ended, and all that it printed is collected.

    It waits for its list of names (``send_when_connected``). From then on it is ended after ``timeout``
    seconds without progress (bytes read or written by rsync and its children); 0 means no limit.
    ``listener`` gets the lines of standard output, which are not kept then. With ``idle`` it has the lowest
    priority. ``is_big``: it is in the second lane. OSError if rsync cannot be started.
    """

    started: ClassVar[int] = 0
    """The number of transfers that this process has started."""
    cpu_seconds: ClassVar[float] = 0.0
    """The processor time of those that have ended, but for those that are ``idle``, which take what is left
    over, or ``is_big``, which mostly wait for their node."""

    def __init__(
        self,
        command: tuple[str, ...],
        timeout: float,
        loop: Loop,
        listener: Callable[[list[bytes]], None] | None = None,
        idle: bool = False,
        is_big: bool = False,
    ) -> None:
        Transfer.started += 1
        self._loop, self._timeout = loop, timeout
        self._is_counted = not (idle or is_big)
        self._child = program.start(command, idle)
        self._stdin, self._stdout, self._stderr = self._child.stdin, self._child.stdout, self._child.stderr
        self._exited = os.pidfd_open(self._child.pid)
        self.pid = self._child.pid
        self._says_end = argv.SAYS_END in command
        self._output = RsyncOutput(self._says_end, self._is_own, listener)

        # All mutable state:
        self.code: int | None = None
        """The exit code; None while rsync runs."""
        self.abort_reason = ""
        """Why it was ended for a fault; empty if it was not."""
        self.superseded = False
        """Whether it was ended because another transfer is to do the same."""
        self.cancelled = False
        """Whether it was ended because it was connected, and no longer wanted."""
        self.names_sent_at: float | None = None
        """When the list of names was sent, by the loop's clock."""
        self.was_warm = False
        """Whether it was connected before there were names to send."""
        self._unsent = memoryview(b"")
        """Names that the pipe had no room for."""
        self._is_watched = False
        """Whether output is read as it comes; if not, at the end."""
        self._is_stopped = False
        """Whether it waits, stopped, for another transfer."""
        self._empty_name_sent = False
        """Whether ``is_connected`` means something."""
        self._io_total = 0
        """Bytes that rsync and its children had read and written at the last look."""
        self._progress_at = 0.0
        """When that number was seen to grow."""
        self._timers: dict[str, Timer] = {}
        """The pending timers by what they are for."""

        loop.on_exit(self._exited, self._on_exit)

    def send_when_connected(self, names: Names, may_send: Callable[[], bool] = lambda: True) -> None:
        """Send a list of names once rsync is connected, and so has entered its source.

        Connecting takes time, and the source may be replaced meanwhile. So ``may_send`` is asked just before;
        if it says no, rsync is ended, and ``cancelled``. Then ``names`` are asked for if they can be.
        """
        self.was_warm = self._empty_name_sent and self.is_connected
        if not self._empty_name_sent:
            self.send_empty_name()
        self._expect_progress()
        self._try_to_send(names, may_send, self._loop.clock())

    def _try_to_send(self, names: Names, may_send: Callable[[], bool], since: float) -> None:
        if not self.is_connected:
            shortest, longest = _CONNECTION_POLL_SECONDS
            pause = min(max((self._loop.clock() - since) / 10, shortest), longest)
            self._set_timer("connection", pause, lambda: self._try_to_send(names, may_send, since))
            return
        try:
            self.cancelled = not may_send()
        except OSError:  # rsync has ended, and its exit code tells why; if not, the batch is tried again
            self.terminate()
            return
        if self.cancelled:
            self.terminate()
        else:
            self.send_names(names if isinstance(names, bytes) else names())

    def send_names(self, names: bytes) -> None:
        """Send a list of names (``argv.names_input``), connected or not."""
        self.names_sent_at = self._loop.clock()
        self._expect_progress()
        if self._says_end:
            self.watch_output()
        self._unsent = memoryview(names)
        if not self._stdin.closed:  # otherwise rsync has ended
            self._write_names()
            if not self._stdin.closed:
                self._loop.on_writable(self._stdin, self._write_names)

    def send_empty_name(self) -> None:
        """Send a name that means nothing, so that ``is_connected`` can see rsync read it."""
        self._empty_name_sent = True
        if not self._stdin.closed:
            with contextlib.suppress(OSError):  # rsync has ended
                os.write(self._stdin.fileno(), argv.NO_NAME)

    @property
    def is_connected(self) -> bool:
        """After ``send_empty_name``: whether rsync has read that, which it does once it is connected."""
        return not self._stdin.closed and process.unread(self._stdin.fileno()) == 0

    def peers(self) -> Peers:
        """The other ends of its connections, once it ``is_connected``; OSError if they cannot be seen."""
        return Peers(self._exited, self.pid)

    @property
    def directory(self) -> str:
        """A path to the directory that rsync is in: its source once it ``is_connected``."""
        return f"/proc/{self.pid}/cwd"

    @property
    def directory_status(self) -> os.stat_result:
        """The status of that directory; OSError if rsync has ended."""
        return os.stat(self.directory)

    @property
    def stderr(self) -> list[bytes]:
        return self._output.stderr

    @property
    def stdout(self) -> list[bytes]:
        return self._output.stdout

    @property
    def is_truncated(self) -> bool:
        return self._output.is_truncated

    @property
    def percent(self) -> int | None:
        return self._output.percent

    @property
    def byte_percent(self) -> int | None:
        return self._output.byte_percent

    @property
    def done(self) -> bool:
        """Whether rsync has ended, and all that it printed was read."""
        return self.code is not None

    @property
    def is_through(self) -> bool:
        """Whether rsync has done everything without any complaint, and only has to end."""
        if not self._output.has_said_end or self.done or self._output.stderr_bytes or self._stderr.closed:
            return False
        return not self._read_output(self._stderr)  # what it has complained of came before

    def abort(self, reason: str) -> None:
        if not self.abort_reason:
            self.abort_reason = reason
            self.terminate()

    def supersede(self) -> None:
        """End it for another transfer that does the same, unless it has failed already."""
        if not self.done and not self.abort_reason:
            self.superseded = True
            self.terminate()

    def set_stopped(self, wanted: bool) -> None:
        """Stop it for a moment, or let it go on: another transfer shares its limit."""
        if wanted is self._is_stopped or self.done or (wanted and "kill" in self._timers):
            return
        self._is_stopped, self._progress_at = wanted, self._loop.clock()
        try:
            is_wrapped = os.path.samestat(self.directory_status, os.stat(process.START_DIRECTORY))
        except OSError:
            is_wrapped = False
        # The one with the names sends. Only a wrapper, which stays where it was started, has it as a child.
        family = process.family(self.pid) if is_wrapped else (self.pid,)
        process.send(family, signal.SIGSTOP if wanted else signal.SIGCONT)

    def terminate(self) -> None:
        """End it, politely first: on SIGTERM rsync removes its temporary files and ends its children."""
        self.set_stopped(False)
        if "kill" not in self._timers and not self.done:
            self._set_timer("kill", KILL_AFTER_SECONDS, self._kill)
            # A stopped process gets SIGTERM only when it is continued.
            process.send((self.pid,), signal.SIGTERM)
            process.send((self.pid,), signal.SIGCONT)

    def _kill(self) -> None:
        process.send(process.family(self.pid), signal.SIGKILL)
        self._set_timer("kill", KILL_AFTER_SECONDS, self._kill)

    def _set_timer(self, purpose: str, seconds: float, call: Callable[[], object]) -> None:
        if not self.done:
            self._timers[purpose] = self._loop.call_at(self._loop.clock() + seconds, call)

    # Progress

    def _expect_progress(self) -> None:
        self._progress_at = self._loop.clock()
        if "progress" not in self._timers:
            self._set_timer("progress", self._progress_poll_seconds, self._check_progress)
            self._set_timer("output", _OUTPUT_SECONDS, self.watch_output)

    @property
    def _progress_poll_seconds(self) -> float:
        longest = PROGRESS_POLL_SECONDS
        return min(max(self._timeout / 20, 0.05), longest) if self._timeout else longest

    def _check_progress(self) -> None:
        family, now = process.family(self.pid), self._loop.clock()
        total = process.io_total(family, but=_CARRIERS)
        if total != self._io_total or self._is_stopped:
            self._io_total, self._progress_at = total, now
        elif self._timeout and now - self._progress_at >= self._timeout:
            self.abort(f"no progress for {self._timeout:g} s")
        elif process.waits_for_fifo(family):
            # rsync opens a file that has become a FIFO since it was listed, and would wait for ever.
            self.abort("a file became a FIFO while it was to be sent")
        self._set_timer("progress", self._progress_poll_seconds, self._check_progress)

    # Streams

    def watch_output(self) -> None:
        """Read what it prints as it comes, from now on, because it may print more than its pipes hold."""
        if not self._is_watched and not self.done:
            self._is_watched = True
            self._loop.on_readable(self._stdout, lambda: self._read_output(self._stdout))
            self._loop.on_readable(self._stderr, lambda: self._read_output(self._stderr))

    def _write_names(self) -> None:
        try:
            written = os.write(self._stdin.fileno(), self._unsent[:_CHUNK_BYTES]) if self._unsent else 0
        except BlockingIOError:
            return
        except BrokenPipeError:
            written = len(self._unsent)  # rsync has ended, or is about to
        self._unsent = self._unsent[written:]
        if not self._unsent:
            self._close(self._stdin)

    def _read_output(self, stream: FileIO) -> bool:
        """Read what is there; return whether there may be more."""
        try:
            data = os.read(stream.fileno(), _CHUNK_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._close(stream)
        if stream is self._stderr:
            self._output.add_stderr(data)
            self._limit_stderr()
        else:
            self._output.add_stdout(data)
        return bool(data)

    def _is_own(self, pids: Collection[int]) -> bool:
        return any(pid in pids for pid in process.family(self.pid))

    def _limit_stderr(self) -> None:
        """End a transfer that floods standard error: that may never end, and reading it takes a core."""
        limit = MAX_EARLY_STDERR_BYTES if self.names_sent_at is None else MAX_STDERR_BYTES
        if self._output.stderr_bytes > limit:
            self.abort(f"more than {limit >> 20} MiB of errors")

    def _on_exit(self) -> None:
        # Read what is there, not to the end: a process that rsync left behind may hold the pipes for ever,
        # and fill them as fast as they are read.
        for stream in (self._stdout, self._stderr):
            for _ in range(_MAX_LAST_READS):
                if stream.closed or not self._read_output(stream):
                    break
        for stream in (self._stdin, self._stdout, self._stderr):
            self._close(stream)
        self._loop.drop(self._exited)
        os.close(self._exited)
        for timer in self._timers.values():
            timer.cancel()
        before = process.reaped_cpu_seconds()
        self.code = self._child.wait()
        if self._is_counted:
            Transfer.cpu_seconds += process.reaped_cpu_seconds() - before

    def _close(self, stream: FileIO) -> None:
        if not stream.closed:
            self._loop.drop(stream)
            stream.close()
