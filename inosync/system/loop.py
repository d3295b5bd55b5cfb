"""The event loop of a process: descriptors that become ready, and timers."""

from __future__ import annotations

import heapq
import itertools
import math
import select
import time
from collections.abc import Callable
from typing import Protocol


class _HasDescriptor(Protocol):
    def fileno(self) -> int: ...


Source = int | _HasDescriptor


class Timer:
    """One call at one time."""

    __slots__ = ("_call", "when")

    def __init__(self, when: float, call: Callable[[], object]) -> None:
        self.when = when
        """By the loop's clock, in seconds."""
        self._call: Callable[[], object] | None = call

    def cancel(self) -> None:
        """Do not make the call; harmless when it has been made."""
        self._call = None

    @property
    def is_pending(self) -> bool:
        """Whether the call is still to be made."""
        return self._call is not None

    def run(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call()


class Loop:
    """Calls what waits for a descriptor or for a time. ``clock`` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._epoll = select.epoll()
        self._calls: dict[int, tuple[Callable[[], object]]] = {}
        """By descriptor; each tuple is an object of its own."""
        self._timers: list[tuple[float, int, Timer]] = []
        """A heap; the number keeps timers of one time in the order in which they were set."""
        self._numbers = itertools.count()
        self.exits = 0
        """The number of calls that ``on_exit`` has led to."""

    def on_readable(self, source: Source, call: Callable[[], object]) -> None:
        """Call when there is something to read, or the end."""
        self._register(source, select.EPOLLIN, call)

    def on_writable(self, source: Source, call: Callable[[], object]) -> None:
        """Call when writing would not block, or would fail."""
        self._register(source, select.EPOLLOUT, call)

    def on_change(self, source: Source, call: Callable[[], object]) -> None:
        """Call when a table of the kernel has changed, such as /proc/self/mountinfo: proc_pid_mounts(5)."""
        self._register(source, select.EPOLLPRI, call)

    def on_exit(self, pidfd: int, call: Callable[[], object]) -> None:
        def ended() -> None:
            self.exits += 1
            call()

        self._register(pidfd, select.EPOLLIN, ended)

    def _register(self, source: Source, event: int, call: Callable[[], object]) -> None:
        fd = source if isinstance(source, int) else source.fileno()
        self._epoll.register(fd, event)
        self._calls[fd] = (call,)

    def drop(self, source: Source) -> None:
        """Forget a descriptor, before it is closed; harmless when it is not known."""
        fd = source if isinstance(source, int) else source.fileno()
        if self._calls.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def call_at(self, when: float, call: Callable[[], object]) -> Timer:
        """Call once, in the first turn at or after ``when`` by the clock."""
        timer = Timer(when, call)
        heapq.heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def call_every(self, seconds: float, call: Callable[[], object]) -> None:
        """Call at once, and then again and again, so many seconds after the end of the last call."""

        def repeat() -> None:
            call()
            self.call_at(self.clock() + seconds, repeat)

        self.call_at(self.clock(), repeat)

    @property
    def next_timer(self) -> float:
        """When the next timer is due by the clock; infinite if there is none."""
        while self._timers and not self._timers[0][2].is_pending:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else math.inf

    def turn(self, timeout: float | None) -> None:
        """Wait until something is ready, at most ``timeout`` seconds (None: for ever), and make the calls.

        A timer that a call sets for now or earlier runs in the next turn, so that a turn ends.
        """
        due = self.next_timer
        if due < math.inf:
            until_due = max(due - self.clock(), 0.0)
            timeout = until_due if timeout is None else min(timeout, until_due)
        ready = self._epoll.poll(timeout, max(len(self._calls), 1))
        for fd, call in [(fd, self._calls.get(fd)) for fd, _ in ready]:
            # A call may have dropped another descriptor, and its number may belong to a new file by now.
            if call is not None and self._calls.get(fd) is call:
                call[0]()
        if self._timers:
            self._run_timers()

    def _run_timers(self) -> None:
        now, number = self.clock(), next(self._numbers)
        later = []
        while self._timers and self._timers[0][0] <= now:
            entry = heapq.heappop(self._timers)
            if entry[1] > number:
                later.append(entry)
            else:
                entry[2].run()
        for entry in later:
            heapq.heappush(self._timers, entry)

    def descriptors(self) -> list[int]:
        """What a forked child has to close."""
        return [self._epoll.fileno()]


def call_by(loop: Loop, when: float, call: Callable[[], object], timer: Timer | None) -> Timer:
    """Have a call made at a time, or by its timer of before, if that is pending and comes no later.

    Return the timer that makes the call.
    """
    if timer is not None and timer.is_pending:
        if timer.when <= when:
            return timer
        timer.cancel()
    return loop.call_at(when, call)
