"""Whether the target of a tree on a local node is still the directory that was mirrored to.

If a disk was mounted there, or a backup restored, the new directory may lack everything but the next change.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping

from inosync.nodes.messages import TargetReplaced
from inosync.rsync.target import Transport, transport
from inosync.system.overlap import overlap

REPORT_SECONDS = 3600.0
"""The shortest time between two reports of a tree: on some FUSE file systems inode numbers change."""


class TargetReports:
    """Reports trees whose targets were replaced. ``clock`` is monotonic, in seconds."""

    def __init__(self, report: Callable[[TargetReplaced], None], clock: Callable[[], float]) -> None:
        self._report, self._clock = report, clock
        self._quiet_until: dict[int, float] = {}  # when the next report may follow, by tree

    def add(self, tree: int, reason: str) -> bool:
        """Report a tree; False if the last report is too near."""
        now = self._clock()
        if now < self._quiet_until.get(tree, now):
            return False
        self._quiet_until[tree] = now + REPORT_SECONDS
        self._report(TargetReplaced(tree, reason))
        return True


class LocalTargets:
    """``targets``: by tree; those that are not local are left out. ``replaced``: ``TargetReports.add``."""

    def __init__(self, targets: Mapping[int, str], replaced: Callable[[int, str], bool]) -> None:
        self._targets = {
            tree: target for tree, target in targets.items() if transport(target) is Transport.LOCAL
        }
        self._replaced = replaced
        self._identities: dict[int, tuple[int, int]] = {}  # device and inode, by tree

    def begin_full(self, tree: int) -> None:
        """A full mirror begins: whatever the target is, it will have everything."""
        if found := self._identity(tree):
            self._identities[tree] = found
        else:
            self._identities.pop(tree, None)  # rsync makes it

    def check(self, tree: int) -> None:
        """Report the tree if its target is another directory than before."""
        found = self._identity(tree)
        if not found or self._identities.setdefault(tree, found) == found:
            return
        if self._replaced(tree, f"{self._targets[tree]} is another directory than before"):
            self._identities[tree] = found

    def _identity(self, tree: int) -> tuple[int, int] | None:
        try:
            status = os.stat(self._targets[tree])
        except (KeyError, OSError):  # not local, or rsync says what is wrong
            return None
        return status.st_dev, status.st_ino


def overlap_reason(target: str, sources: Iterable[str]) -> str:
    """Return why nothing may be sent to a target: a mount or link that is new leads it to a wpath."""
    for source in sources if transport(target) is Transport.LOCAL else ():
        if how := overlap(source, target):
            return f"the target {how} the wpath {source}, which would be deleted: nothing is sent"
    return ""
