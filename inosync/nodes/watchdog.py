"""The look at each worker whether it takes its orders, and the end of those that do not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from inosync.nodes import silence
from inosync.nodes.lifecycle import Phase
from inosync.nodes.node import Node
from inosync.nodes.silence import HangDetector, HangFinding
from inosync.system import process
from inosync.system.channel import Endpoint

log = logging.getLogger(__name__)


class Watchdog:
    """Has workers replaced that are stopped, or hang. ``look`` is to be called every second or so.

    A look costs the master a system call for each worker, and wakes nobody but those that are asked.
    ``rand`` in [0, 1) is for jitter.
    """

    def __init__(self, clock: Callable[[], float], rand: Callable[[], float]) -> None:
        self._clock, self._chance = clock, rand
        self._known: dict[Endpoint, HangDetector | None] = {}
        """What is known of each worker, by its queue; None of those that are given up."""

    def look(self, nodes: Iterable[Node]) -> None:
        """Look at the workers of these nodes, and forget all others."""
        before, self._known = self._known, {}
        for node in nodes:
            if node.queue is not None and node.process is not None:
                self._known[node.queue] = self._look_at(node, node.queue, before)

    def _look_at(
        self, node: Node, queue: Endpoint, known: dict[Endpoint, HangDetector | None]
    ) -> HangDetector | None:
        now, patience = self._clock(), silence.patience(node.spec.rtimeout, node.state.hangs)
        before = known[queue] if queue in known else silence.start(now, patience, self._chance())
        if before is None or node.state.phase is Phase.KILLED:
            return None
        unread = process.unread(queue.send_fd)
        taken = queue.written - unread
        after, finding = silence.look(before, now, taken, unread, patience, self._chance())
        match finding:
            case HangFinding.ASK:
                node.ping_worker()
            case HangFinding.GIVE_UP:
                node.replace_worker(f"worker did not answer for {after.seconds:.0f} s")
                return None
        return after
