"""Finds workers that hang, and has them replaced.

A worker never waits for a transfer, so it reads an order at once: an order that stays unread is the sign that
it is stopped or hangs, and no answer is needed. A worker that has nothing to do is pinged a few times a
minute, but never while an order is unread, so that pings alone cannot fill its queue.

The time between two checks counts as ``MAX_GAP_SECONDS`` at most. So no worker is blamed after the machine
was suspended or the master stopped, and where a loaded machine makes checks rare, patience lasts longer.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from inosync.nodes.lifecycle import Phase
from inosync.nodes.node import Node
from inosync.system import process
from inosync.system.channel import Endpoint

MIN_PATIENCE_SECONDS, MAX_PATIENCE_SECONDS = 10.0, 60.0
"""Bounds of the patience with a node's first worker. When it starts, ssh may take 5 s to answer."""
LONGEST_PATIENCE_SECONDS = 3600.0
"""Bound of the patience while one worker after the other hangs. A worker that looks at very many names on a
slow disk only seems to hang, and must come to its end at last."""
MAX_GAP_SECONDS = 2.0


class Finding(enum.Enum):
    """What a check has found."""

    FINE = "fine"
    QUIET = "quiet"
    """The worker has read everything, and that was long ago: ping it."""
    HUNG = "hung"


def patience(timeout: float, hangs: int) -> float:
    """Return the seconds for which orders may stay unread.

    ``timeout``: the node's rtimeout, 0 for none; ``hangs``: workers of the node that hung in a row.
    """
    first = MAX_PATIENCE_SECONDS
    if timeout:
        first = min(max(timeout, MIN_PATIENCE_SECONDS), MAX_PATIENCE_SECONDS)
    return min(first * 2.0 ** min(hangs, 64), LONGEST_PATIENCE_SECONDS)


@dataclass(frozen=True, slots=True)
class HangDetector:
    """What is known of one process, pure. Times are the caller's clock, in seconds."""

    checked_at: float
    ping_at: float
    """When the worker is pinged, if it has read everything by then."""
    taken: int = 0
    """Bytes of orders that it had read at the last check."""
    unread_for: float = 0.0
    """Seconds for which it has read nothing although there was something."""

    def check(
        self, now: float, taken: int, unread: int, patience: float, rand: float
    ) -> tuple[HangDetector, Finding]:
        """``taken`` and ``unread``: bytes of orders, since the start of the process and at this moment."""
        known = replace(self, checked_at=now, taken=taken, unread_for=0.0)
        if unread and taken == self.taken:
            seconds = self.unread_for + min(max(now - self.checked_at, 0.0), MAX_GAP_SECONDS)
            finding = Finding.HUNG if seconds >= patience else Finding.FINE
            return replace(known, unread_for=seconds), finding
        if unread or now < self.ping_at:
            return known, Finding.FINE
        return replace(known, ping_at=_next_ping(now, patience, rand)), Finding.QUIET


def start(now: float, patience: float, rand: float) -> HangDetector:
    """Return what is known of a process that was just forked. ``rand`` in [0, 1) spreads the pings."""
    return HangDetector(now, _next_ping(now, patience, rand))


def _next_ping(now: float, patience: float, rand: float) -> float:
    return now + patience / 2 * (1 - rand / 2)


class Watchdog:
    """Checks all workers. A check costs a system call for each, and wakes only those that are pinged."""

    def __init__(self, clock: Callable[[], float], rand: Callable[[], float]) -> None:
        self._clock, self._rand = clock, rand
        self._detectors: dict[Endpoint, HangDetector | None] = {}
        """By the queue of the worker; None for workers that were given up."""

    def check_workers(self, nodes: Iterable[Node]) -> None:
        """Check the workers of these nodes, and forget all others; to be called every second or so."""
        before, self._detectors = self._detectors, {}
        for node in nodes:
            if node.worker.queue is not None:
                self._detectors[node.worker.queue] = self._check(node, node.worker.queue, before)

    def _check(
        self, node: Node, queue: Endpoint, known: dict[Endpoint, HangDetector | None]
    ) -> HangDetector | None:
        now, seconds = self._clock(), patience(node.spec.rtimeout, node.worker.state.hangs)
        detector = known[queue] if queue in known else start(now, seconds, self._rand())
        if detector is None or node.worker.state.phase is Phase.KILLED:
            return None
        unread = process.unread(queue.send_fd)
        taken = queue.written - unread
        detector, finding = detector.check(now, taken, unread, seconds, self._rand())
        match finding:
            case Finding.QUIET:
                node.worker.ping()
            case Finding.HUNG:
                node.worker.replace(f"worker did not answer for {detector.unread_for:.0f} s")
                return None
        return detector
