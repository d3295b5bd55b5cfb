"""Waiting until everything that was changed before now is on the nodes (``flush``)."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from inosync.master.mirror import Mirror
from inosync.nodes.node import Node
from inosync.status.far_node import FarNode
from inosync.system.loop import Timer
from inosync.watch.watcher import Watcher

MARK_AGAIN_SECONDS = 1.0
"""The time until a mark that was not seen is made again: the kernel may have dropped its event."""

Behind = Sequence[Node | FarNode]
"""The nodes that lack something."""

_marks = itertools.count(1)


@dataclass(eq=False, slots=True)
class Flush:
    """One flush that has not ended. Times by the clock, in seconds."""

    nodes: tuple[Node, ...]
    """With none it ends when all that was changed before is known, and handed out."""
    deadline: float
    """Infinite: it has none."""
    done: Callable[[Behind], None]
    """Called once, with the nodes that lack something: at the deadline, or until an operator resumes them."""
    marked_at: float = -math.inf
    """When its last mark was made."""
    seen: bool = False
    """Whether a mark of it has come out of the kernel's queue: all events before it were read."""
    position: int = -1
    """What the nodes have to confirm, as a position in the journal; -1: not known yet."""
    since: float = 0.0
    """A node has to have what was owed to it by then."""
    timer: Timer | None = None
    """Looks at it at its deadline."""
    far: frozenset[str] = frozenset()
    """Nodes that other machines serve."""


@dataclass(slots=True)
class Flushes:
    """All flushes that have not ended.

    A mark is a file made in ``directory``, which is watched like the trees: its event is read after those of
    all changes before it. No node is ever sent a mark.
    """

    directory: str
    mirror: Mirror
    watcher: Watcher
    release: Callable[[], None]
    """Hands out what the journal holds."""
    elsewhere: Callable[[], Sequence[FarNode]] = tuple
    """Returns the nodes that other machines serve, as they are now."""
    _waiting: dict[Flush, None] = field(default_factory=dict)
    _by_mark: dict[bytes, Flush] = field(default_factory=dict)
    """The flushes by the names of their marks that were not seen yet."""

    def watch_directory(self) -> None:
        """Make the directory and watch it. OSError if that cannot be."""
        os.makedirs(self.directory, 0o700, exist_ok=True)
        self.watcher.watch_marks(self.directory, self._mark_seen)

    def begin(
        self,
        nodes: Sequence[Node],
        deadline: float,
        done: Callable[[Behind], None],
        far: Iterable[str] = (),
    ) -> Flush:
        """Wait for these nodes. OSError if no mark can be made. ``far``: those of other machines."""
        flush = Flush(tuple(nodes), deadline, done, far=frozenset(far))
        self._mark(flush)
        if deadline < math.inf:
            flush.timer = self.mirror.loop.call_at(deadline, self.end_finished)
        self._waiting[flush] = None
        return flush

    def cancel(self, flush: Flush) -> None:
        """Wait no more, and call ``done`` no more."""
        self._waiting.pop(flush, None)
        self._by_mark = {mark: known for mark, known in self._by_mark.items() if known is not flush}
        if flush.timer is not None:
            flush.timer.cancel()

    def end_finished(self) -> None:
        """End the flushes that have come to their end. To be called in each turn of the loop."""
        now = self.mirror.loop.clock()
        for flush in list(self._waiting):
            if not flush.seen:
                if now >= flush.marked_at + MARK_AGAIN_SECONDS:
                    with contextlib.suppress(OSError):  # the disk may be full: tried again
                        self._mark(flush)
            elif flush.position < 0:
                self._take_position(flush)
            behind = self._behind(flush)
            if flush.nodes or flush.far:
                has_all = flush.seen and not any(self._can_come(flush, node) for node in behind)
            else:
                has_all = flush.position >= 0
            if now >= flush.deadline or has_all:
                self.cancel(flush)
                flush.done(behind)

    def _mark(self, flush: Flush) -> None:
        flush.marked_at = self.mirror.loop.clock()
        self.mirror.loop.call_at(flush.marked_at + MARK_AGAIN_SECONDS, self.end_finished)
        name = f"mark-{next(_marks)}"
        self._by_mark[os.fsencode(name)] = flush
        path = os.path.join(self.directory, name)
        try:
            _make(path)
        except FileNotFoundError:  # the run directory was cleared
            self.watch_directory()
            _make(path)
        with contextlib.suppress(OSError):  # it means nothing any more
            os.unlink(path)

    def _mark_seen(self, name: bytes) -> None:
        flush = self._by_mark.pop(name, None)
        if flush is not None and not flush.seen:
            flush.seen, flush.since = True, self.mirror.loop.clock()

    def _take_position(self, flush: Flush) -> None:
        """Once all that happened before the mark is in the journal or owed to the nodes, hand it out."""
        if self.watcher.is_walking or self.watcher.incomplete_trees or self._is_searching(flush):
            return
        trees = {tree for node in flush.nodes for tree in node.trees}
        if not self.watcher.coverage.has_polled(trees, flush.since):
            return
        self.watcher.record_unclosed()
        if self._is_searching(flush):
            return
        flush.since = self.mirror.loop.clock()
        flush.position = self.mirror.journal.head
        self.release()

    def _is_searching(self, flush: Flush) -> bool:
        since = self.watcher.searching_since
        return since is not None and since <= flush.since

    def _behind(self, flush: Flush) -> list[Node | FarNode]:
        # A node that is not mirrored to any more lacks nothing.
        there = [node for node in flush.nodes if self.mirror.nodes.get(node.name) is node]
        far = [node for node in self.elsewhere() if node.name in flush.far] if flush.far else []
        if flush.position < 0:
            return [*there, *far]
        near = [node for node in there if node.cursor < flush.position or self._lacks(node, flush.since)]
        return [*near, *(node for node in far if node.cursor < flush.position or node.is_owed)]

    def _can_come(self, flush: Flush, node: Node | FarNode) -> bool:
        """What paused and held nodes lack they lack until the operator wants otherwise."""
        if node.paused or flush.position < 0:
            return not node.paused
        # What it is owed apart may wait for anything newer.
        wanted = flush.position if node.cursor < flush.position else self.mirror.journal.head
        return not self.mirror.dispatch.roll_out.is_stuck(node.name, wanted)

    def _lacks(self, node: Node, since: float) -> bool:
        return node.retries.lacks_since(since) or bool(self.watcher.coverage.unreadable(node.trees))


def _make(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
