"""Which directories were read by transfers while a rename may have happened. Pure.

rsync lists files first and opens them later. If a directory is renamed in between, and another takes its
place, the file that is new there arrives with the size and time of the old one. The next batch sends it again
because it has another time here. But a directory that is made on the node by hard links to the old one would
keep the wrong content for good where the sizes are equal.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

from inosync.changes import Part, Rename
from inosync.worker.lanes import directory_of

SLACK_SECONDS = 5.0
"""The longest time that is expected from a rename until its event is read."""
MERGE_SECONDS = 1.0
"""Transfers that end so soon after each other are remembered as one."""
MAX_REMEMBERED = 32
MAX_DIRECTORIES = 10_000
"""Of all entries; a transfer from more directories counts as one from all."""


@dataclass(slots=True)
class _Sent:
    """What was sent of a tree up to a time."""

    tree: int
    first_end: float
    last_end: float
    directories: set[bytes]
    """Those whose files were listed, without what is below them."""
    tops: set[bytes]
    """Those of which everything was listed."""


class SentDirectories:
    """Remembers the last transfers of a worker. ``now``: of an earlier worker's nothing is known."""

    def __init__(self, now: float) -> None:
        self._unknown_until = now
        """Until when there were transfers of which nothing is remembered."""
        self._sent: deque[_Sent] = deque()
        """Oldest first."""
        self._directories = 0
        """How many the entries have together."""

    def ended(self, part: Part, names: Collection[bytes], now: float) -> None:
        """A transfer of these names has ended; of all names, if it was of a whole tree."""
        directories = {_read_directory(name) for name in names}
        is_all = part.full or len(directories) > MAX_DIRECTORIES
        self._add(_Sent(part.tree, now, now, set() if is_all else directories, {b""} if is_all else set()))

    def rename_ended(self, tree: int, rename: Rename, now: float) -> None:
        """A transfer that follows a rename has ended: it has sent what the node lacked."""
        self._add(_Sent(tree, now, now, set(), {rename.new}))

    def may_hide_others(self, tree: int, rename: Rename) -> bool:
        """Return whether the node may have other contents at the old path than size and time say."""
        before = rename.at - SLACK_SECONDS
        return before < self._unknown_until or any(
            sent.tree == tree and before < sent.last_end and _reads(sent, rename.old) for sent in self._sent
        )

    def _add(self, sent: _Sent) -> None:
        last = self._sent[-1] if self._sent else None
        if (
            last is not None
            and last.tree == sent.tree
            and sent.last_end - last.first_end < MERGE_SECONDS
            and len(last.directories) + len(sent.directories) <= MAX_DIRECTORIES
        ):
            self._directories += len(sent.directories - last.directories)
            last.last_end = sent.last_end
            last.directories |= sent.directories
            last.tops |= sent.tops
        else:
            self._directories += len(sent.directories)
            self._sent.append(sent)
        while len(self._sent) > MAX_REMEMBERED or self._directories > MAX_DIRECTORIES:
            oldest = self._sent.popleft()
            self._directories -= len(oldest.directories)
            self._unknown_until = max(self._unknown_until, oldest.last_end)


def _read_directory(name: bytes) -> bytes:
    """Return the directory whose files a name lists: itself, or the one that it is in."""
    if name == b"./":
        return b""
    return name.rstrip(b"/") if name.endswith(b"/") else directory_of(name)


def _reads(sent: _Sent, path: bytes) -> bool:
    return any(_is_within(directory, path) for directory in sent.directories) or any(
        _is_within(top, path) or _is_within(path, top) for top in sent.tops
    )


def _is_within(path: bytes, directory: bytes) -> bool:
    return not directory or path == directory or path.startswith(directory + b"/")
