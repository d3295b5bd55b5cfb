"""One run of rsync: started, fed, listened to, and ended if it hangs."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterable
from typing import IO, ClassVar

from inosync.rsync import argv, stdout
from inosync.system import process
from inosync.system.loop import Loop
from inosync.system.peers import Peers

KILL_AFTER = 2.0
"""Seconds that a transfer has between SIGTERM and SIGKILL."""
_LOOK_AFTER_ORPHANS = 0.02
"""Seconds between two looks whether an orphan has ended: nothing else tells."""
_LISTEN = 0.001, 0.05
"""Seconds between two looks whether it has connected, at least and at most: a tenth of the time so far."""
LOOK = 2.0
"""Seconds between two looks at a transfer's progress, at most."""
_CARRIERS = ("ssh", "dbclient")
"""Programs whose own traffic (ServerAliveInterval) goes on for ever, whatever rsync does."""
_MAX_LINES = 2_000
_CHUNK = 1 << 16


class Transfer:
    """An rsync process is_connected through a loop. After ``done`` is true, ``code`` and ``lines`` tell.

    It is started, and waits for what it is to transfer until that is said: ``begin``. ``timeout``: seconds
    without progress (bytes read or written by rsync and its children) after which it is ended from then on;
    0 is never. ``listener`` takes the lines of stdout, which are not kept then; with ``idle`` it makes way
    for everybody else. ``OSError`` when rsync cannot be started at all.
    """

    started: ClassVar[int] = 0
    """How many there have been in this process."""

    def __init__(
        self,
        command: tuple[str, ...],
        timeout: float,
        loop: Loop,
        clock: Callable[[], float],
        listener: Callable[[list[bytes]], None] | None = None,
        idle: bool = False,
    ) -> None:
        Transfer.started += 1
        self._clock = clock
        self._loop = loop
        self._timeout = timeout
        self._data = memoryview(b"")
        self._listener = listener
        self._child = process.spawn(command, idle)
        self._exited = os.pidfd_open(self._child.pid)
        self._rest = {True: b"", False: b""}
        """What came after the last line end, of stderr (True) and stdout (False)."""
        self.pid = self._child.pid
        self.code: int | None = None
        self.stderr: list[bytes] = []
        """What rsync said on stderr, without line ends; the last ones, if it is too much."""
        self.stdout: list[bytes] = []
        """What it said on stdout, without its progress."""
        self.is_truncated = False
        """Whether older lines of either were dropped."""
        self.percent: int | None = None
        self.abort_reason = ""
        """Why it was ended, if that was because it made no progress."""
        self.superseded = False
        """Whether it was ended for another one that is to do the same."""
        self.names_sent_at: float | None = None
        """When it was told what to transfer, by the clock; None: not yet."""
        self.was_warm = False
        """Whether it was connected to its node by then."""
        self._knocked = False
        self.cancelled = False
        """Whether it was ended because it was not to begin."""
        self._promised: tuple[bytes, Callable[[], bool]] | None = None
        self._begun_at = 0.0
        self._listen_at = float("inf")
        self._io_total = 0
        self._progress_at = 0.0
        self._next_look = self._kill_at = float("inf")
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        assert self._child.stderr is not None
        self._stdin, self._stdout, self._stderr = self._child.stdin, self._child.stdout, self._child.stderr
        loop.on_readable(self._exited, self._on_exit)
        loop.on_readable(self._stdout, lambda: self._on_output(self._stdout))
        loop.on_readable(self._stderr, lambda: self._on_output(self._stderr))

    def send_when_connected(self, data: bytes, sure: Callable[[], bool] = lambda: True) -> None:
        """Say what to transfer, a list of names, as soon as it has connected and stands in its source.

        It may take its time to connect, and what was true of the source when it was started may not be any
        more: so ``sure`` is asked just before. If not, it is ended, and ``refused``.
        """
        if not self._knocked:
            self.send_empty_name()
        self._promised = data, sure
        self._begun_at = self._clock()
        self._watch()
        self._listen()

    def _listen(self) -> None:
        if self._promised is None or self.done:
            return
        (data, sure), now = self._promised, self._clock()
        if not self.is_connected:
            shortest, longest = _LISTEN
            self._listen_at = now + min(max((now - self._begun_at) / 10, shortest), longest)
            return
        self._promised, self._listen_at = None, float("inf")
        try:
            self.cancelled = not sure()
        except OSError:  # it has ended, and tells why; if not, it is tried again
            self.terminate()
            return
        if self.cancelled:
            self.terminate()
        else:
            self.send_names(data)

    def _watch(self) -> None:
        """From now on it has to make progress."""
        self._progress_at = self._clock()
        self._next_look = self._progress_at + self._look_every

    def send_names(self, data: bytes) -> None:
        """Say what to transfer: a list of names."""
        self.names_sent_at = self._clock()
        self._watch()
        self._data = memoryview(data)
        if not self._stdin.closed:  # or else it has ended; its exit code tells
            self._loop.on_writable(self._stdin, self._on_room)
            self._on_room()

    def send_empty_name(self) -> None:
        """Give it something to read that means nothing: an empty name (``command.NO_NAME``)."""
        self._knocked = True
        with contextlib.suppress(OSError):  # it has ended already
            os.write(self._stdin.fileno(), argv.NO_NAME)

    @property
    def is_connected(self) -> bool:
        """After ``knock``: whether it has read that, which it does when it is connected to its node."""
        return not self._stdin.closed and process.unread(self._stdin.fileno()) == 0

    def peers(self) -> Peers:
        """Whom it is connected to, once it has ``is_connected``; OSError if that cannot be seen."""
        return Peers(self._exited, self.pid)

    @property
    def directory_status(self) -> os.stat_result:
        """The directory that it reads from, once it has ``is_connected``; OSError if it has ended."""
        return os.stat(self.directory)

    @property
    def directory(self) -> str:
        """A path to it."""
        return f"/proc/{self.pid}/cwd"

    @property
    def done(self) -> bool:
        """Whether it has ended, and all it said was read."""
        return self.code is not None

    @property
    def deadline(self) -> float:
        """When ``tend`` has something to do."""
        return min(self._next_look, self._kill_at, self._listen_at)

    def tend(self) -> None:
        """Look whether it still makes progress; end it if not."""
        if self.done:
            return
        now = self._clock()
        if now >= self._listen_at:
            self._listen()
        if now >= self._kill_at:
            process.send(process.family(self.pid), signal.SIGKILL)
            self._kill_at = now + KILL_AFTER
        if now >= self._next_look:
            self._next_look = now + self._look_every
            self._look_at_progress(now)

    def _look_at_progress(self, now: float) -> None:
        family = process.family(self.pid)
        total = process.io_total(family, but=_CARRIERS)
        if total != self._io_total:
            self._io_total, self._progress_at = total, now
        elif self._timeout and now - self._progress_at >= self._timeout:
            self.abort(f"no progress for {self._timeout:g} s")
        elif process.waits_for_fifo(family):
            # rsync opens a file that has become a FIFO since it looked, and would wait for ever.
            self.abort("a file became a FIFO while it was to be sent")

    def abort(self, why: str) -> None:
        """End it, and let ``abort_reason`` say why."""
        if not self.abort_reason:
            self.abort_reason = why
            self.terminate()

    def supersede(self) -> None:
        """End it for another one that does the same, if it does not end by itself for having failed."""
        if not self.done and not self.abort_reason:
            self.superseded = True
            self.terminate()

    def terminate(self) -> None:
        """End it, politely first: on SIGTERM rsync removes its temporary files and ends its children."""
        if self._kill_at == float("inf") and not self.done:
            self._kill_at = self._clock() + KILL_AFTER
            # A stopped process gets SIGTERM only when it goes on.
            process.send((self.pid,), signal.SIGTERM)
            process.send((self.pid,), signal.SIGCONT)

    @property
    def _look_every(self) -> float:
        return min(max(self._timeout / 20, 0.05), LOOK) if self._timeout else LOOK

    def _on_room(self) -> None:
        try:
            written = os.write(self._stdin.fileno(), self._data[:_CHUNK]) if self._data else 0
        except BlockingIOError:
            return
        except BrokenPipeError:
            written = len(self._data)  # it has ended or soon will; its exit code tells
        self._data = self._data[written:]
        if not self._data:
            self._drop(self._stdin)

    def _on_output(self, stream: IO[bytes]) -> bool:
        """Read what is there; whether there may be more."""
        try:
            data = os.read(stream.fileno(), _CHUNK)
        except BlockingIOError:
            return False
        is_error = stream is self._stderr
        # Progress is updated in place, with carriage returns; ssh ends its lines with them as well.
        *lines, self._rest[is_error] = (self._rest[is_error] + data).replace(b"\r", b"\n").split(b"\n")
        self._rest[is_error] = self._rest[is_error][-_CHUNK:]
        if not data:
            lines.append(self._rest[is_error])
            self._drop(stream)
        lines = [line for line in lines if line.strip()]
        if is_error:
            self._keep(self.stderr, lines)
        elif self._listener is not None:
            self._listener(lines)
        else:
            shares = [stdout.percent(line) for line in lines]
            self._keep(
                self.stdout, [line for line, share in zip(lines, shares, strict=True) if share is None]
            )
            self.percent = next((share for share in reversed(shares) if share is not None), self.percent)
        return bool(data)

    def _keep(self, kept: list[bytes], lines: list[bytes]) -> None:
        kept += lines
        if len(kept) > _MAX_LINES:
            self.is_truncated = True
            del kept[: -_MAX_LINES // 2]

    def _on_exit(self) -> None:
        # Not until their end: a process that it left behind may hold the pipes open for ever.
        for stream in (self._stdout, self._stderr):
            while not stream.closed and self._on_output(stream):
                pass
            if not stream.closed:
                self._drop(stream)
        if not self._stdin.closed:
            self._drop(self._stdin)
        self._loop.drop(self._exited)
        os.close(self._exited)
        self.code = self._child.wait()

    def _drop(self, stream: IO[bytes]) -> None:
        self._loop.drop(stream)
        stream.close()


class OrphanReaper:
    """The processes that an rsync leaves behind when it dies; we are a subreaper, so they become ours."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._kill_at: float | None = None

    def reap(self, known: Iterable[int]) -> bool:
        """End them, and tell whether that is done. A receiver gets the time to remove its temporary file.

        ``known``: our own children, which are none of them.
        """
        now = self._clock()
        orphans = process.orphans(known)
        if not orphans:
            self._kill_at = None
        elif self._kill_at is None:
            process.send(orphans, signal.SIGTERM)
            self._kill_at = now + KILL_AFTER
        elif now >= self._kill_at:
            process.send(orphans, signal.SIGKILL)
        return not orphans

    @property
    def deadline(self) -> float:
        """When to ask again, after it was told that there are some."""
        return float("inf") if self._kill_at is None else self._clock() + _LOOK_AFTER_ORPHANS
