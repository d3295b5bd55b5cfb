"""``-s hold``: nothing is sent to any node, so that what is written meanwhile arrives as one whole."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from inosync.master.flush import Behind, Flush, Flushes
from inosync.master.worker_pool import WorkerPool
from inosync.nodes.lifecycle import Phase
from inosync.state.document import State
from inosync.system.loop import Timer
from inosync.text import plural

log = logging.getLogger(__name__)

DEFAULT_SECONDS = 3600.0
"""The longest time of a hold that says none: a deploy script that died does not hold for ever."""
RELEASE_SECONDS = 60.0
"""How long a release waits at most for the events, and the walk, of what was written before it."""


@dataclass(slots=True)
class Hold:
    """Begins and ends the hold. Until when it lasts, if there is one, the dispatcher knows."""

    pool: WorkerPool
    flushes: Flushes
    _expiry: Timer | None = None
    """Ends the hold that lasts too long."""
    _release: Flush | None = None
    """Waits for what was written before the release; None if that was not asked for."""

    def restore(self, state: State | None, wall: float) -> None:
        """Go on with the hold of an earlier process, before anything is sent; ``wall``: the time."""
        if state is not None and state.held_until is not None and state.held_until > wall:
            self.begin(state.held_until - max(wall, state.written))  # the time may have been set back

    def begin(self, seconds: float) -> None:
        """Send nothing, for so long at most. What is on its way to a node goes on."""
        self._forget()
        loop = self.pool.loop
        until = loop.clock() + seconds
        log.warning("nothing is sent to any node until release, for %.0f s at most", seconds)
        self._expiry = loop.call_at(until, self._expire)
        self.pool.dispatch.hold(until)
        self.stop_retries()
        self.pool.publisher.publish_soon()

    def release(self) -> bool:
        """Send what was written up to now, as soon as all of it is known; False if nothing is held."""
        if self.pool.dispatch.held_until is None:
            return False
        if self._release is None:
            deadline = self.pool.loop.clock() + RELEASE_SECONDS
            try:
                self._release = self.flushes.begin((), deadline, self._end)
            except OSError:  # the disk is full
                self._end(())
        return True

    def stop_retries(self) -> None:
        """Take back the batches that workers would try again. To be called now and then."""
        if self.pool.dispatch.held_until is None or self.pool.is_stopping:
            return
        for node in self.pool.nodes.values():
            if node.worker.state.phase is Phase.WAITING:
                self.pool.replace_worker(node)

    def _expire(self) -> None:
        log.warning("the hold has lasted as long as it may: it ends")
        self.release()

    def _end(self, _behind: Behind) -> None:
        self._forget()
        changes = len(self.pool.mirror.journal)
        log.info("released: what was written meanwhile is sent, %s", plural(changes, "change"))
        self.pool.dispatch.hold(None)
        self.flushes.release()
        self.pool.publisher.publish_soon()

    def _forget(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        if self._release is not None:
            self.flushes.cancel(self._release)
        self._expiry = self._release = None
