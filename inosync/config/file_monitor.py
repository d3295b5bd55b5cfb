"""Finds out by polling whether files have changed; meant for a few files, about once a second.

An inotify watch would miss that editors and tools replace files, directories and links on the way to them.
A file system that hangs blocks the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from inosync.system import fingerprint
from inosync.system.fingerprint import Fingerprint


class FileMonitor:
    """Files by path, with what each was when it was last read. ``at`` returns what one is now."""

    def __init__(
        self,
        files: Mapping[str, Fingerprint],
        at: Callable[[str], Fingerprint | None] = fingerprint.at,
    ) -> None:
        self._known: dict[str, Fingerprint | None] = dict(files)
        self._seen: dict[str, Fingerprint | None] = dict(files)
        self._at = at

    def changed(self) -> list[str]:
        """Return the paths changed or removed since the last read, once for each change.

        A path is returned only if it is the same as at the call before, because it may be half written.
        """
        changed: list[str] = []
        for path, known in self._known.items():
            now = self._at(path)
            if now != known and now == self._seen[path]:
                changed.append(path)
            self._seen[path] = now
        self._known.update((path, self._seen[path]) for path in changed)
        return changed
