"""Finds what a transfer may have sent as it was before, where file systems have coarse times."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from inosync.changes import Part, Step
from inosync.rsync.coarse_times import UNKNOWN_SECONDS, EarlierReads, outdated_below, outdated_names
from inosync.rsync.options import modify_window
from inosync.worker.job import Job


class OutdatedFiles:
    """Knows when the files of each tree were read. ``clock`` is that of the times it is given."""

    def __init__(self, job: Job, clock: Callable[[], float]) -> None:
        self._job, self._clock = job, clock
        # An earlier worker, or process, may have read files of which nothing is known.
        self._reads = {tree: EarlierReads(job.wall() - UNKNOWN_SECONDS, job.wall()) for tree in job.trees}

    def note_reads(self, since: float, tree: int | None = None) -> None:
        """Note that a transfer has read files of a tree, or of any, and may have sent them."""
        for reads in self._reads.values() if tree is None else (self._reads[tree],):
            reads.add(self._wall_at(since), self._job.wall())

    def after(self, part: Part, names: Sequence[bytes], since: float) -> list[Part]:
        """Return what is to be sent once more after a transfer that has read these names ``since`` then."""
        again = self._names_after(part, names, since)
        if part.full or any(name.endswith(b"/") for name in names):
            self._reads[part.tree].add(self._wall_at(since), self._job.wall())
        return [Part(part.tree, False, again, ignore_times=True)] if again else []

    def is_any_after(self, part: Part, names: Sequence[bytes], since: float) -> bool:
        """Whether ``after`` would return anything now."""
        return bool(self._names_after(part, names, since))

    def _names_after(self, part: Part, names: Sequence[bytes], since: float) -> tuple[bytes, ...]:
        settings, reads = self._job.trees[part.tree], self._reads[part.tree]
        began, now, window = self._wall_at(since), self._job.wall(), modify_window(settings.extra)
        again: tuple[bytes, ...] = ()
        if not part.full:
            earlier = None if part.ignore_times else reads
            # The node had nothing at a new name that rsync could have taken for the file.
            replaced_since = math.inf if part.ignore_times or part.step is Step.NEW else -math.inf
            again = outdated_names(settings.source, names, began, now, window, earlier, replaced_since)
        elif part.step is not Step.NEW and not part.ignore_times:  # else more of it follows
            again = outdated_below(settings.source, window, reads)
        return again

    def _wall_at(self, at: float) -> float:
        """Return a time by the clock in seconds since the epoch."""
        return self._job.wall() - (self._clock() - at)
