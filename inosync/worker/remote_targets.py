"""Whether the target of a tree on a remote node has what it was sent.

If a disk was mounted there, or a backup restored, the new directory may lack everything but the next change.
And a connection that is kept to an rsync daemon, or to rrsync, leads into the directory that was there when
it was made: what is sent over it is lost, with exit code 0. So a little later a dry run over another
connection looks for a few names.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from math import inf

from inosync.changes import Part, Source
from inosync.nodes import backoff
from inosync.rsync import itemize
from inosync.rsync.coarse_times import GRANULARITY_SECONDS, has_coarse_times
from inosync.rsync.target import Transport, transport
from inosync.system.loop import Loop, Timer, call_by
from inosync.worker.compare import Comparisons, Found
from inosync.worker.job import Job
from inosync.worker.lanes import MIN_BIG_BYTES

LOOK_SECONDS = 1.0
"""A look follows a batch after this time, or up to three times as much: not all nodes look at once."""
PERIOD_SECONDS = 60.0
"""The shortest time between two looks."""
MAX_PERIOD_SECONDS = 3600.0
"""The longest one, while no other connection is possible."""
_MAX_SENT = 100
_MAX_ENTRIES = 500
_BATCH_AGE_SECONDS = 60.0
"""A batch may lack what was changed shortly before: the master reads and waits before it cuts it."""
_CLOCK_SECONDS = 0.1
"""How much the times of files may be behind the clock: they count in ticks of the kernel."""


@dataclass(slots=True)
class _Sent:
    """What was sent of one tree since the last look."""

    source: Source | None = None
    names: dict[bytes, tuple[float, int]] = field(default_factory=dict)
    """By path: since when it must not have changed to count, in seconds since the epoch, and the inode number
    that it must have: directories above may be renamed."""


class RemoteTargets:
    """``replaced`` takes a tree and the reason; ``renew`` has all warm rsyncs connect anew."""

    def __init__(
        self,
        job: Job,
        comparisons: Comparisons,
        replaced: Callable[[int, str], bool],
        renew: Callable[[], None],
        loop: Loop,
        rand: Callable[[], float],
    ) -> None:
        self._job, self._comparisons, self._loop, self._rand = job, comparisons, loop, rand
        self._replaced, self._renew = replaced, renew
        self._trees = {tree for tree, s in job.trees.items() if transport(s.target) is not Transport.LOCAL}
        self._sent: dict[int, _Sent] = {}  # by tree; the first one is looked at next
        self._level_at: dict[int, float] = {}  # since the epoch, by tree: what is older is there
        self._next_at = -inf  # before this time there is no look
        self._failures = 0  # looks in a row that came to nothing
        self._timer: Timer | None = None

    def begin_full(self, tree: int) -> None:
        """A full mirror begins: whatever the target is, it will have everything."""
        self._sent.pop(tree, None)

    def came_through(self, part: Part, names: Iterable[bytes], started_at: float, sent_at: float) -> None:
        """All of a part is on the node. ``names``: as sent.

        By the clock, ``started_at`` is when the worker got the batch, ``sent_at`` when rsync got the names.
        """
        if part.tree not in self._trees:
            return
        epoch = self._job.wall() - self._loop.clock()
        age = _CLOCK_SECONDS if part.full else _BATCH_AGE_SECONDS
        level_at = epoch + started_at - age
        self._level_at[part.tree] = max(self._level_at.get(part.tree, 0.0), level_at)
        if not part.full:
            sent = self._sent.setdefault(part.tree, _Sent())
            sent.source = part.source
            for name in islice(names, max(_MAX_SENT - len(sent.names), 0)):
                path = name.removesuffix(b"/")
                if path != b"." and (found := self._look_up(part.tree, path)):
                    sent.names.setdefault(path, (epoch + sent_at, found[1]))
            self._look_later()

    def _look_later(self) -> None:
        now = self._loop.clock()
        at = max(now, self._next_at) + LOOK_SECONDS * (1 + 2 * self._rand())
        self._timer = call_by(self._loop, at, self._look, self._timer)

    def _look(self) -> None:
        """Look at the tree that has waited longest."""
        if self._loop.clock() < self._next_at:  # the last look has failed
            self._look_later()
            return
        for tree, sent in list(self._sent.items()):
            names = [*chain(*self._unchanged(tree, sent)), *self._old_entries(tree)]
            if self._comparisons.is_running:
                self._look_later()
            elif names:
                self._next_at = self._loop.clock() + PERIOD_SECONDS
                self._look_later()  # at this tree if the look comes to nothing, or else at the next one
                judge = partial(self._judge, tree, sent)
                self._comparisons.compare_names(tree, sent.source, dict.fromkeys(names), judge)
            else:
                del self._sent[tree]
                continue
            return

    def _judge(self, tree: int, sent: _Sent, found: Found) -> None:
        if self._sent.get(tree) is not sent:
            return  # a full mirror has begun
        del self._sent[tree]
        if found.reason:
            self._sent[tree] = sent
            self._failures += 1
            pause = backoff.delay(self._failures, PERIOD_SECONDS, MAX_PERIOD_SECONDS, self._rand())
            self._next_at = self._loop.clock() + pause
            if self._failures == 1 and "max connections" not in found.reason:
                self._renew()  # a new connection leads nowhere: the kept ones may lead to a wrong place
            return
        self._failures = 0
        lost = lost_paths(found.lines)
        if is_replaced(self._unchanged(tree, sent), self._old_entries(tree), lost) and not found.held:
            target = self._job.trees[tree].target
            if self._replaced(tree, f"{target} lacks what it was sent, as if it were another directory"):
                self._renew()
                for other in self._level_at.keys() - {tree}:  # they may be in the same directory
                    self._sent.setdefault(other, _Sent())
                self._next_at = self._loop.clock()
                self._look_later()
            else:
                self._sent[tree] = sent

    def _unchanged(self, tree: int, sent: _Sent) -> Iterable[set[bytes]]:
        """The names that are as they were when they were sent, by batch."""
        batches: dict[float, set[bytes]] = {}
        for name, (sent_at, inode) in sent.names.items():
            if (found := self._look_up(tree, name)) and found[0] < sent_at and found[1] == inode:
                batches.setdefault(sent_at, set()).add(name)
        return batches.values()

    def _old_entries(self, tree: int) -> list[bytes]:
        """Entries of the root that the node is known to have."""
        level_at, excluded = self._level_at.get(tree, 0.0), self._job.rules[tree].excluded
        try:
            with os.scandir(os.fsencode(self._job.trees[tree].source)) as entries:
                names = [
                    entry.name
                    for entry in islice(entries, _MAX_ENTRIES)
                    if not (excluded(entry.name, entry.is_dir(follow_symlinks=False)) or _may_be_big(entry))
                ]
        except OSError:
            return []
        return [name for name in names if (found := self._look_up(tree, name)) and found[0] < level_at]

    def _look_up(self, tree: int, path: bytes) -> tuple[float, int] | None:
        return _look_up(os.path.join(os.fsencode(self._job.trees[tree].source), path))


def _look_up(path: bytes) -> tuple[float, int] | None:
    """When a path was changed at the latest, in seconds since the epoch, and its inode number."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    margin = GRANULARITY_SECONDS if has_coarse_times(status) else 0.0
    return status.st_ctime + margin, status.st_ino


def _may_be_big(entry: os.DirEntry[bytes]) -> bool:
    """Whether an entry may still be on its way in the second lane."""
    return entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_size > MIN_BIG_BYTES


def lost_paths(lines: Iterable[bytes]) -> set[bytes]:
    """Return the paths that a comparison found missing, or of another size."""
    found = filter(None, map(itemize.parse, lines))
    return {one.path for one in found if one.missing or one.what[3:4] == b"s"}


def is_replaced(batches: Iterable[set[bytes]], entries: Iterable[bytes], lost: set[bytes]) -> bool:
    """Whether a target is another directory: it lacks all of a batch, or half of the root's entries.

    Single names may be lacking for other reasons: the node may refuse them, or they were removed there.
    """
    entries = set(entries)
    return any(names <= lost for names in batches) or (
        bool(entries) and 2 * len(entries & lost) >= len(entries)
    )
