"""Looks from time to time whether files are what they were. Meant for a few files, once in a second or so.

No inotify watch: editors and tools replace files, directories and links on the way to them, and a look sees
where the path leads now. A file system that hangs would hold up whoever looks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from inosync.system import fingerprint
from inosync.system.fingerprint import Fingerprint


class FileMonitor:
    """Files, by path, and what each of them was when it was last read. ``at`` tells what one is now."""

    def __init__(
        self,
        files: Mapping[str, Fingerprint],
        at: Callable[[str], Fingerprint | None] = fingerprint.at,
    ) -> None:
        self._known: dict[str, Fingerprint | None] = dict(files)
        self._seen: dict[str, Fingerprint | None] = dict(files)
        self._at = at

    def changed(self) -> list[str]:
        """The files that are others than they were, or gone; each once for each change.

        Only what is the same as at the look before is told: it may have been half written then.
        """
        told: list[str] = []
        for path, known in self._known.items():
            now = self._at(path)
            if now != known and now == self._seen[path]:
                told.append(path)
            self._seen[path] = now
        self._known.update((path, self._seen[path]) for path in told)
        return told
