"""From the journal to the nodes: batches, cut once for all nodes at the same cursor, and who may have one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from inosync.journal.journal import Journal
from inosync.journal.subscription import Subscription
from inosync.messages import Batch, Change, Kind, Part, Source
from inosync.nodes.lifecycle import Phase
from inosync.nodes.node import Node, next_id, spool_path
from inosync.system import spool

log = logging.getLogger(__name__)

HEAVY = 1_000
"""Names in a batch from which on it waits for a slot, as FULL does."""
HOLD = 30.0
"""Seconds after which a transfer does not count against the slots any more. They spare this machine's
processors and disks; what takes this long mostly waits for its node, and must not hold up the others."""
PAUSE = 5.0
"""Seconds until a batch is cut again that could not be written to the run directory."""


class _Halted(Exception):
    """Something of a batch must not be sent, as was found out just now."""


@dataclass(slots=True)
class _Cut:
    """A batch as nodes may share it."""

    payload: bytes
    file: str
    count: int
    full: bool
    users: int = 0


class SendGuard(Protocol):
    """Who knows whether a tree may be mirrored."""

    @property
    def halted(self) -> Mapping[int, object]:
        """Trees of which nothing is sent."""

    @property
    def generation(self) -> int:
        """Another one, and what was cut before is not to be sent again."""

    def check(self, tree: int) -> bool:
        """Look at the tree, before anything of it is sent; False if it is among ``halted`` now."""

    def source(self, tree: int, full: bool) -> Source | None:
        """What its root has to be."""


@dataclass(slots=True)
class Dispatcher:
    """Gives batches to nodes that can take one."""

    journal: Journal
    directory: str
    """Where batches go that are too long for a message."""
    slots: int
    """Heavy batches at once, those of the last ``HOLD`` seconds."""
    clock: Callable[[], float]
    at: Callable[[float, Callable[[], None]], None]
    """Calls back at a time of the clock."""
    gate: SendGuard
    unwatched: Callable[[Node], str] = lambda _node: ""
    """Why a node is degraded whatever it is sent: directories of it are not watched."""
    released: int = 0
    """The journal's position up to which changes may be sent."""
    _cuts: dict[object, _Cut] = field(default_factory=dict)
    _cut_at: int = -1
    _counts: dict[tuple[int, Subscription | None], tuple[int, float | None]] = field(default_factory=dict)
    _counted_at: int = -1
    _files: dict[str, _Cut] = field(default_factory=dict)
    _running: dict[Node, float] = field(default_factory=dict)
    """Since when they have a slot."""
    _waiting: dict[Node, None] = field(default_factory=dict)
    _next_look: float = 0.0
    """When they are looked at because of the time."""
    _unwritten: set[Node] = field(default_factory=set)

    def release(self) -> None:
        """What the journal holds by now may be sent."""
        self.released = self.journal.head

    @property
    def calm(self) -> bool:
        """Whether there is a slot, and nobody who waits for one."""
        return not self._waiting and self._free() > 0

    def pending(self, node: Node) -> int:
        """Changes that a node has not confirmed; those that only a full mirror can tell count as one."""
        known = self._behind(node)[0] + node.retry_count
        return max(known, 1) if node.batch is not None else known

    def oldest(self, node: Node) -> float | None:
        """Since when a node lags, by the clock; None if it does not."""
        return node.oldest_missing(self._oldest(node))

    def lag(self, node: Node) -> float:
        """How many seconds a node lags; 0 if it does not."""
        oldest = self.oldest(node)
        return 0.0 if oldest is None else max(self.clock() - oldest, 0.0)

    def _oldest(self, node: Node) -> float | None:
        """When the oldest change in the journal was recorded that a node has not confirmed."""
        return self.journal.oldest_since(node.cursor) if node.view.everything else self._behind(node)[1]

    def _behind(self, node: Node) -> tuple[int, float | None]:
        """Changes in the journal that a node has not confirmed, and since when the oldest of them is there.

        Long to count: done once for all like it.
        """
        if self._counted_at != self.journal.head:
            self._counts.clear()
            self._counted_at = self.journal.head
        view = None if node.view.everything else node.view
        known = self._counts.get((node.cursor, view))
        if known is None:
            known = self.journal.backlog(node.cursor, view.concerns if view else None)
            self._counts[node.cursor, view] = known
        return known

    def waits_for(self, node: Node) -> str:
        """What a node that can take a batch waits for; empty if that is nothing in particular."""
        if node in self._unwritten:
            return f"no room in {self.directory}"
        return "waiting for a slot" if node in self._waiting else ""

    def offer(self, node: Node) -> None:
        """Send a node its next batch if it can take one, there is one, and it has a slot if it needs one."""
        if node.state.phase is not Phase.IDLE or node.batch is not None or node.paused:
            return
        now = self.clock()
        ready = [change for change in node.ready_retries(now) if change.tree not in self.gate.halted]
        if node.cursor >= self.released and not ready:
            return
        if node in self._waiting and not self._is_next(node):
            return
        head = self.journal.head
        since = self._oldest(node)
        try:
            cut = self._cut(node, ready)
        except OSError as error:
            self._cannot_write(node, error)
            return
        except _Halted:
            self.offer(node)  # what is left of it
            return
        if cut is None:
            node.cursor = head
            return
        if _is_heavy(cut) and not self._has_slot(node):
            self._drop_if_unused(cut)
            return
        self._waiting.pop(node, None)
        cut.users += 1
        overdue = node.degraded_reason_after(ready) or self.unwatched(node)
        batch = Batch(
            next_id(), cut.count, cut.full, cut.payload, cut.file, node.untidy, overdue, _is_heavy(cut)
        )
        node.send_batch(batch, head, now if since is None else since, ready)

    def _cannot_write(self, node: Node, error: OSError) -> None:
        if node not in self._unwritten:
            self._unwritten.add(node)
            log.error("%s: %s: batches cannot be written: they wait", self.directory, error.strerror)
            self.at(self.clock() + PAUSE, lambda: self._write_again(node))

    def _write_again(self, node: Node) -> None:
        self._unwritten.discard(node)
        self.offer(node)

    def finished(self, node: Node, file: str) -> None:
        """A node needs a batch no longer, and its slot neither."""
        cut = self._files.get(file)
        if cut is not None:
            cut.users -= 1
            if cut.users == 0:
                del self._files[file]
                spool.discard(file)
        self.rest(node)

    def again(self, node: Node) -> None:
        """A node has a heavy batch that failed, and wants a slot for the next try."""
        if self._has_slot(node):
            node.grant_slot()

    def rest(self, node: Node) -> None:
        """A node gives up its slot: it has finished, failed for now, or died."""
        if self._running.pop(node, None) is not None:
            # Not at once: whoever calls is in the middle of changing its own state.
            self.at(self.clock(), self._next)

    def forget(self, node: Node) -> None:
        """A node is not mirrored to any more."""
        self._waiting.pop(node, None)
        self.rest(node)

    def _next(self) -> None:
        """Give the free slots to those who have waited longest, if they still want them."""
        for node in list(self._waiting):
            if not self._free():
                break
            if node.batch is None:
                self.offer(node)
            else:
                self.again(node)
            self._waiting.pop(node, None)
        if self._waiting:
            self._look_again()

    def _is_next(self, node: Node) -> bool:
        return bool(self._free()) and next(iter(self._waiting), node) is node

    def _free(self) -> int:
        return max(self.slots - len(self._held_until()), 0)

    def _held_until(self) -> list[float]:
        """When the slots that are taken are free again at the latest."""
        now = self.clock()
        return [since + HOLD for since in self._running.values() if since + HOLD > now]

    def _look_again(self) -> None:
        """Have the nodes that wait looked at when the next slot is free by time, if by nothing else."""
        now = self.clock()
        when = min(self._held_until(), default=now)
        if not now < self._next_look <= when:
            self._next_look = when
            self.at(when, self._next)

    def _has_slot(self, node: Node) -> bool:
        """Give a node a slot; if there is none, or others have waited longer, it waits."""
        if self._is_next(node):
            self._waiting.pop(node, None)
            self._running[node] = self.clock()
            return True
        self._waiting.setdefault(node)
        self._look_again()
        return False

    def _cut(self, node: Node, ready: list[Change]) -> _Cut | None:
        """The batch for a node; None if nothing of what changed concerns it. Or _Halted."""
        if self._cut_at != self.journal.head:
            self._cuts.clear()
            self._cut_at = self.journal.head
        # What is halted is told by the epoch.
        key = (node.cursor, node.view, self.gate.generation, tuple(ready))
        cut = self._cuts.get(key)
        if cut is None or (cut.file and cut.file not in self._files):
            parts = self._parts(node, ready)
            if not parts:
                return None
            if not all(self.gate.check(part.tree) for part in parts):
                raise _Halted
            parts = [replace(part, source=self.gate.source(part.tree, part.full)) for part in parts]
            key = (node.cursor, node.view, self.gate.generation, tuple(ready))
            number = next_id()
            payload, file = spool.pack(tuple(parts), spool_path(self.directory, number))
            count = sum(len(part.names) for part in parts)
            cut = self._cuts[key] = _Cut(payload, file, count, any(part.full for part in parts))
            if file:
                self._files[file] = cut
        return cut

    def _drop_if_unused(self, cut: _Cut) -> None:
        if cut.file and not cut.users:
            del self._files[cut.file]
            spool.discard(cut.file)

    def _parts(self, node: Node, ready: list[Change]) -> list[Part]:
        changes = self.journal.since(node.cursor)
        if changes is None:
            changes = [Change(tree, b"", Kind.TREE) for tree in node.trees]
        elif not node.view.everything:
            changes = list(filter(node.view.concerns, changes))
        wanted = [tree for tree in node.trees if tree not in self.gate.halted]
        return list(_sorted_out([*changes, *ready], wanted))


def _is_heavy(cut: _Cut) -> bool:
    return cut.full or cut.count >= HEAVY


def _sorted_out(changes: list[Change], trees: list[int]) -> Iterable[Part]:
    names: dict[tuple[int, bool], dict[bytes, None]] = {}
    full = {change.tree for change in changes if change.kind is Kind.TREE}
    for change in changes:
        names.setdefault((change.tree, change.ignore_times), {}).setdefault(change.wire)
    for tree in trees:
        if tree in full:
            yield Part(tree, True)
        elif (tree, False) in names:
            yield Part(tree, False, tuple(names[tree, False]))
        if (tree, True) in names:
            yield Part(tree, False, tuple(names[tree, True]), ignore_times=True)
