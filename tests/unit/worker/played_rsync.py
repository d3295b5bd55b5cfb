"""A node in memory, and runs of rsync that change it name by name, as rsync 3.5.0 does.

rsync makes its list first. Then its generator goes through the list, files before directories, makes
directories and links, and removes; the files follow, at once or, at worst, when the generator is through.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

DIRECTORY = ("directory", b"")

Entry = tuple[str, bytes]
"""``file`` with its content, ``link`` with its target, or ``DIRECTORY``."""


def look(path: bytes) -> Entry | None:
    """Return what is at a path; None if nothing is."""
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            return "link", os.readlink(path)
        if stat.S_ISDIR(status.st_mode):
            return DIRECTORY
        with open(path, "rb") as file:
            return "file", file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def tree_at(root: bytes) -> dict[bytes, Entry]:
    """Return all that is in a directory, by path."""
    found: dict[bytes, Entry] = {}
    for above, directories, files in os.walk(root):
        for name in (*directories, *files):
            path = os.path.join(above, name)
            entry = look(path)
            assert entry is not None
            found[path[len(root) + 1 :]] = entry
    return found


@dataclass
class Copy:
    """What a node has."""

    entries: dict[bytes, Entry] = field(default_factory=dict)
    failing: dict[bytes, int] = field(default_factory=dict)
    """Names that cannot be changed on the node, and for how many tries to come."""

    def below(self, path: bytes) -> list[bytes]:
        """Return what is below a directory, the deepest first."""
        return sorted((each for each in self.entries if each.startswith(path + b"/")), reverse=True)

    def listed(self, directory: bytes) -> list[bytes]:
        return [path for path in self.entries if path.rpartition(b"/")[0] == directory]

    def put(self, path: bytes, entry: Entry) -> None:
        """Make an entry, in directories that are made if they are not there."""
        above = path.rpartition(b"/")[0]
        if above and self.entries.get(above) != DIRECTORY:
            self.put(above, DIRECTORY)
        self.entries[path] = entry

    def fails(self, path: bytes) -> bool:
        """Return whether a name cannot be changed this time."""
        if self.failing.get(path, 0) == 0:
            return False
        self.failing[path] -= 1
        return True


@dataclass
class Run:
    """One run of rsync, for names as it reads them."""

    source: bytes
    copy: Copy
    names: Sequence[bytes]
    max_size: int = 0
    """In bytes; larger files are left out; 0: none is."""
    only_removes: bool = False
    only_adds: bool = False
    """Whether links are left out, and nothing is removed."""
    is_late: bool = False
    """Whether files follow when the generator is through."""
    removes_last: bool = False
    """Whether what is not listed is removed when all files are there (--delete-delay)."""
    _doomed: list[bytes] = field(default_factory=list)
    """What is removed then."""
    failed: dict[bytes, None] = field(default_factory=dict)
    """Names that could not be changed, or have vanished."""

    def steps(self) -> Iterator[None]:
        """Change the copy a little with each step."""
        listed, relisted = self._make_list()
        yield
        late = []
        for path in sorted(listed, key=lambda path: _order(path, listed[path])):
            entry = listed[path]
            if entry is not None and entry[0] == "file":
                if self.is_late:
                    late.append(path)
                else:
                    yield from self._file(path)
            elif entry is None:
                yield from self._remove(path)
            elif entry == DIRECTORY:
                yield from self._directory(path, relisted)
            else:
                yield from self._link(path, entry)
        for path in late:
            yield from self._file(path)
        for path in self._doomed:
            yield from self._remove(path)

    def _make_list(self) -> tuple[dict[bytes, Entry | None], dict[bytes, Collection[bytes]]]:
        listed: dict[bytes, Entry | None] = {}
        relisted: dict[bytes, Collection[bytes]] = {}
        for name in self.names:
            path = b"" if name == b"./" else name.rstrip(b"/")
            entry = DIRECTORY if not path else look(self.source + b"/" + path)
            listed[path] = entry
            above = path.rpartition(b"/")[0] if entry is not None else b""
            while above:
                listed.setdefault(above, DIRECTORY)
                above = above.rpartition(b"/")[0]
            if name.endswith(b"/") and entry == DIRECTORY:
                found = self._list(path)
                relisted[path] = found.keys()
                listed |= found if not self.only_removes else {}
        return listed, relisted

    def _list(self, directory: bytes) -> dict[bytes, Entry | None]:
        found: dict[bytes, Entry | None] = {}
        try:
            names = os.listdir(self.source + b"/" + directory)
        except FileNotFoundError:
            return found
        for name in names:
            path = directory + b"/" + name if directory else name
            if (entry := look(self.source + b"/" + path)) is not None:
                found[path] = entry
        return found

    def _remove(self, path: bytes) -> Iterator[None]:
        if path not in self.copy.entries or self.only_adds:
            return
        if self.copy.fails(path):
            self.failed[path] = None
            return
        for each in (*self.copy.below(path), path):
            del self.copy.entries[each]
            yield

    def _directory(self, path: bytes, relisted: dict[bytes, Collection[bytes]]) -> Iterator[None]:
        if path and self.copy.entries.get(path) != DIRECTORY:
            if self.only_removes:
                return
            yield from self._make_room(path)
            self.copy.put(path, DIRECTORY)
            yield
        if path in relisted and not self.only_adds:
            for each in self.copy.listed(path):
                if each not in relisted[path]:
                    if self.removes_last:
                        self._doomed.append(each)
                    else:
                        yield from self._remove(each)

    def _link(self, path: bytes, entry: Entry) -> Iterator[None]:
        if self.only_removes or self.only_adds or self.copy.entries.get(path) == entry:
            return
        yield from self._put(path, entry)

    def _put(self, path: bytes, entry: Entry) -> Iterator[None]:
        if self.copy.fails(path):
            self.failed[path] = None
            return
        yield from self._make_room(path)
        self.copy.put(path, entry)
        yield

    def _make_room(self, path: bytes) -> Iterator[None]:
        """Remove a directory that is in the way of what is none, or the other way round (--force)."""
        if path in self.copy.entries:
            for each in self.copy.below(path):
                del self.copy.entries[each]
                yield

    def _file(self, path: bytes) -> Iterator[None]:
        if self.only_removes:
            return
        entry = look(self.source + b"/" + path)
        if entry is None or entry[0] != "file":  # it has vanished
            self.failed[path] = None
            return
        if 0 < self.max_size < len(entry[1]) or self.copy.entries.get(path) == entry:
            return
        yield from self._put(path, entry)


def _order(path: bytes, entry: Entry | None) -> list[tuple[int, bytes]]:
    """Return the key of rsync's order: in each directory the files before the directories."""
    parts = path.split(b"/")
    return [(1, part) for part in parts[:-1]] + [(int(entry == DIRECTORY), parts[-1])]
