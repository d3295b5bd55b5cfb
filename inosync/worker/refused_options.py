"""What the node's rsync refuses, and is not asked for any more."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from inosync.rsync import compat

RETRY_SECONDS = 3600.0
"""After that, what was refused is asked for again: the node may have got another rsync."""


class RefusedOptions:
    """What is known of one node. ``clock`` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.stats = True
        """Whether the node may be asked what was sent (``TransferSettings.stats``)."""
        self.max_size = True
        """Whether the node may be told which files are too big (``TransferSettings.max_size``)."""
        self.send_nothing = True
        """Whether the node may be told to remove only (``argv.batch_argv``, ``only_removes``)."""
        self.list_missing = True
        """Whether names that are gone may be listed; if not, their directories are."""
        self._retry_at = 0.0  # when they are listed again
        self._is_reported = False  # that they are not
        self.needs_anchor = False
        """Whether a directory to look in has to be named from the node's root (``RenameWay``)."""
        self._renames_at = -math.inf  # when renames are followed again

    def explain(self, lines: Sequence[bytes]) -> bool:
        """Whether an rsync failed because of something that it need not be asked for."""
        allowed = {"stats": self.stats, "max-size": self.max_size, "min-size": self.send_nothing}
        return allowed.get(compat.refused_by_daemon(lines), False) or (
            self.list_missing and compat.refuses_missing(lines)
        )

    def learn(self, lines: Sequence[bytes]) -> bool:
        """Leave out what these lines ``explain``; whether the operator is to know, which is so once."""
        match compat.refused_by_daemon(lines):
            case "stats":
                self.stats = False
                return False
            case "max-size":
                self.max_size = False
                return False
            case "min-size":
                self.send_nothing = False
                return False
        self.list_missing = False
        self._retry_at = self._clock() + RETRY_SECONDS
        was_reported, self._is_reported = self._is_reported, True
        return not was_reported

    def anchor_paths(self) -> bool:
        """Name directories from the node's root from now on; whether that is new."""
        was_anchored, self.needs_anchor = self.needs_anchor, True
        return not was_anchored

    def refuse_renames(self) -> None:
        """Follow no renames for a while: the node's rsync refuses what that takes."""
        self._renames_at = self._clock() + RETRY_SECONDS

    def follows_renames(self) -> bool:
        return self._clock() >= self._renames_at

    def retry_is_due(self) -> bool:
        """Whether it is time to list names that are gone again; from then on they are."""
        if self.list_missing or self._clock() < self._retry_at:
            return False
        self.list_missing = True
        return True
