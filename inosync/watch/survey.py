"""The look at the files of a tree, once all of its directories are watched, for what has changed before.

It takes most of the time of a restart, and waiting for the kernel's answers most of that: so scouts on other
processors share it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator

from inosync.watch import shares
from inosync.watch.scan import Scanner
from inosync.watch.scout import Scout
from inosync.watch.tree import Root, Since

log = logging.getLogger(__name__)

_DIRECTORIES_PER_READ = 8
"""How many directories are looked at between two reads of what the scouts report."""


class Survey:
    """Looks at the files in ``since.unchanged``. It is over when ``root.since`` is another one.

    ``inherited``: descriptors that scouts close.
    """

    def __init__(
        self, root: Root, since: Since, scanner: Scanner, inherited: Callable[[], list[int]]
    ) -> None:
        self._root, self.since, self._scanner = root, since, scanner
        self._next = 0
        """The directory that is looked at next."""
        self._shares = shares.divide(len(since.unchanged), len(os.sched_getaffinity(0)))
        self._scouts: list[Scout] = []
        """Those that have not ended."""
        title = f"scout {root.path}"
        for share in self._shares:
            closed = [*inherited(), *self.descriptors()]
            try:
                self._scouts.append(Scout(since.unchanged, share, since.after, closed, title))
            except OSError as error:
                log.debug("%s: no process to look for changes, too: %s", root.path, error.strerror)

    def is_over(self) -> bool:
        """Whether the tree is compared as a whole, or not watched any more."""
        return self._root.since is not self.since

    def step(self) -> Iterator[None] | None:
        """Return the scan to be made next; None when all was looked at."""
        if self._next % _DIRECTORIES_PER_READ == 0:
            self._take_reports()
        self._next = shares.skip_done(self._next, self._shares)
        if self._next >= len(self.since.unchanged):
            return None
        directory = self.since.unchanged[self._next]
        self._next += 1
        return self._scanner.look(self.since, directory)

    def descriptors(self) -> list[int]:
        """What a forked child has to close."""
        return [scout.fd for scout in self._scouts]

    def end(self) -> None:
        """End the scouts."""
        for scout in self._scouts:
            scout.end()
        self._scouts.clear()

    def _take_reports(self) -> None:
        for scout in list(self._scouts):
            for number, names in scout.read():
                directory = self.since.unchanged[number]
                if names is None:
                    self.since.unchanged.append(directory)
                elif names:
                    self._scanner.recorder.record_files(self.since, directory, names)
            if scout.has_ended:
                self._scouts.remove(scout)
                scout.end()
                if scout.share.left > scout.share.first:
                    log.warning(
                        "%s: process %d, which looked for changes, too, has ended: its share is done here",
                        self._root.path,
                        scout.pid,
                    )
