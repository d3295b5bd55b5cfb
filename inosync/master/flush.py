"""Whoever wants to know when all that was changed before now is on the nodes (``flush``)."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from inosync.nodes.dispatch import Dispatcher
from inosync.nodes.node import Node
from inosync.watch.watcher import Watcher

AGAIN = 1.0
"""Seconds until another mark is made if one has not been seen: the kernel may have dropped its event."""

_marks = itertools.count(1)


@dataclass(eq=False, slots=True)
class Flush:
    """One that is waited for. ``deadline``: by the clock; infinite is without an end."""

    nodes: tuple[Node, ...]
    deadline: float
    done: Callable[[Sequence[Node]], None]
    """Is given the nodes that lack something at the end: those that do at the deadline, or will for ever."""
    marked_at: float = float("-inf")
    """When it has made its last mark."""
    seen: bool = False
    """Whether a mark of it has come out of the kernel's queue: all events before it were read."""
    position: int = -1
    """In the journal, what the nodes have to confirm; -1: not known yet."""
    since: float = 0.0
    """What was owed to a node by then, it has to have."""


class Flushes:
    """All that are waited for. ``directory`` is watched like the trees, and its files are the marks.

    A mark is an event like that of any change, read after those of all changes before it; no node is ever
    sent it. OSError if the directory cannot be made or watched.
    """

    def __init__(
        self,
        directory: str,
        nodes: Mapping[str, Node],
        watcher: Watcher,
        dispatch: Dispatcher,
        hasten: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self._directory = directory
        self._nodes, self._watcher, self._dispatch = nodes, watcher, dispatch
        self._hasten, self._clock = hasten, clock
        self._waiting: dict[Flush, None] = {}
        self._by_mark: dict[bytes, Flush] = {}
        self._open()

    def _open(self) -> None:
        os.makedirs(self._directory, 0o700, exist_ok=True)
        self._watcher.watch_marks(self._directory, self._seen)

    def begin(self, nodes: Sequence[Node], deadline: float, done: Callable[[Sequence[Node]], None]) -> Flush:
        """Wait for these nodes. OSError if no mark can be made."""
        flush = Flush(tuple(nodes), deadline, done)
        self._mark(flush)
        self._waiting[flush] = None
        return flush

    def forget(self, flush: Flush) -> None:
        """Nobody waits any more."""
        self._waiting.pop(flush, None)
        self._by_mark = {mark: known for mark, known in self._by_mark.items() if known is not flush}

    @property
    def deadline(self) -> float:
        """When ``look`` has something to do, if nothing else happens."""
        return min(
            (min(flush.deadline, flush.marked_at + AGAIN) for flush in self._waiting), default=float("inf")
        )

    def look(self) -> None:
        """See whether any has come to its end; to be called whenever something may have changed."""
        now = self._clock()
        for flush in list(self._waiting):
            if not flush.seen and now >= flush.marked_at + AGAIN:
                with contextlib.suppress(OSError):  # tried again: the disk may be full
                    self._mark(flush)
            elif flush.seen:
                flush.marked_at = now
                self._look_at(flush)
            if flush in self._waiting and (now >= flush.deadline or self._hopeless(flush)):
                self._end(flush)

    def _mark(self, flush: Flush) -> None:
        flush.marked_at = self._clock()
        name = f"mark-{next(_marks)}"
        self._by_mark[os.fsencode(name)] = flush
        path = os.path.join(self._directory, name)
        try:
            _make(path)
        except FileNotFoundError:  # somebody has cleared the run directory
            self._open()
            _make(path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def _seen(self, name: bytes) -> None:
        flush = self._by_mark.pop(name, None)
        if flush is not None and not flush.seen:
            flush.seen, flush.since = True, self._clock()

    def _look_at(self, flush: Flush) -> None:
        if flush.position < 0 and not self._settle(flush):
            return
        if not self._behind(flush):
            self._end(flush)

    def _settle(self, flush: Flush) -> bool:
        """Whether all that was told by the mark is in the journal, or owed to the nodes; hand it out then."""
        if self._watcher.is_walking or self._watcher.incomplete_trees or self._is_searching(flush):
            return False
        trees = {tree for node in flush.nodes for tree in node.trees}
        if not self._watcher.has_polled(trees, flush.since):
            return False
        self._watcher.record_unclosed()
        if self._is_searching(flush):
            return False
        flush.since = self._clock()
        flush.position = self._dispatch.backlog.journal.head
        self._hasten()
        return True

    def _is_searching(self, flush: Flush) -> bool:
        since = self._watcher.searching_since
        return since is not None and since <= flush.since

    def _behind(self, flush: Flush) -> list[Node]:
        # One that is not mirrored to any more lacks nothing.
        there = [node for node in flush.nodes if self._nodes.get(node.name) is node]
        if flush.position < 0:
            return there
        return [
            node
            for node in there
            if node.cursor < flush.position
            or node.retries.lacks_since(flush.since)
            or self._watcher.unreadable(node.trees)
        ]

    def _hopeless(self, flush: Flush) -> bool:
        """Whether all nodes that lack something will go on doing so until the operator wants otherwise."""
        return flush.seen and all(node.paused for node in self._behind(flush))

    def _end(self, flush: Flush) -> None:
        behind = self._behind(flush)
        self.forget(flush)
        flush.done(behind)


def _make(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
