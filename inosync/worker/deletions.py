"""How a node is told of deletions: by names that are gone or, if its rsync cannot take them, by relists."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from inosync.rsync import compat

AGAIN = 3600.0
"""Seconds after which names that are gone are listed again: the node may have got another rsync."""


class Deletions:
    """What is known of one node. ``clock`` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._again_at = 0.0
        self._told = False
        self.listed = True
        """Whether names that are gone may be listed (``TransferSettings.list_missing``)."""

    def refused(self, lines: Sequence[bytes]) -> bool:
        """Whether a failed batch said that they may not, which is news."""
        if not self.listed or not compat.refuses_missing(lines):
            return False
        self.listed = False
        self._again_at = self._clock() + AGAIN
        return True

    def news(self) -> bool:
        """Whether it is to be told: the first time."""
        told, self._told = self._told, True
        return not told

    def again(self) -> bool:
        """Whether it is time to list them again; then they are."""
        if self.listed or self._clock() < self._again_at:
            return False
        self.listed = True
        return True
