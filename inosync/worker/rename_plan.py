"""Which renames are worth a run of rsync on a node, and what each run needs: by what the tree is now."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from inosync.changes import WORTHWHILE_BYTES, Part, Rename, Step
from inosync.filters.rules import Rules
from inosync.rsync.argv import EVERYTHING, TransferSettings, renames_at_root
from inosync.rsync.options import one_file_system
from inosync.rsync.renames import are_position_free, is_plain
from inosync.rsync.target import Transport, transport
from inosync.system import entries

MAX_RUNS = 16
"""Renames that are followed for one part; of more the largest, because each costs a run of rsync."""
MAX_LISTED = 50_000
"""Entries of directories that are looked at for one part; given to rsync one by one where rules need that."""
MAX_MEASURED = 5_000
"""Entries of one directory that are looked at to find out how large it is."""


@dataclass(slots=True)
class RenameStep:
    """A rename that is worth a run."""

    rename: Rename
    names: tuple[bytes, ...]
    """What rsync is given: relative to the new directory, or to the one that a new file is in."""
    whole: bool
    """As in ``RenameWay``."""
    directory: tuple[int, int]
    """Device and inode of that directory."""
    bytes: int
    """About how much is in it."""
    at_root: bool = False
    """``argv.renames_at_root``."""
    deletes: bool = False
    """As in ``RenameWay``."""
    tries: int = 0


def steps(
    part: Part, renames: tuple[Rename, ...], settings: TransferSettings, rules: Rules
) -> list[RenameStep]:
    """Return what is worth a run for a part, in the order of the renames."""
    replaced = {rename.old for rename in renames}
    found: list[RenameStep] = []
    with contextlib.suppress(OSError), _opened(settings, rules) as tree:
        for rename in renames:
            # The node has something else there, which only hard links replace.
            links = rename.is_directory and not tree.has(rename.old)
            if is_plain(settings.target, rename) and (links or rename.new not in replaced):
                with contextlib.suppress(OSError):
                    found += tree.measured(rename)
    found = [step for step in found if step.bytes >= WORTHWHILE_BYTES]
    chosen = sorted(found, key=lambda step: -step.bytes)[:MAX_RUNS]
    for step in chosen:
        below = step.rename.new + b"/"
        # Another one may need what the node has below the new name, and what is not here may be led to.
        is_free = part.step is Step.NEW and not any(old.startswith(below) for old in replaced)
        step.deletes = step.whole and is_free
    return [step for step in found if step in chosen]


def alike(settings: TransferSettings, rename: Rename, rules: Rules) -> tuple[bytes, ...]:
    """Return the names at the old path that rsync takes for the files at the new one."""
    with contextlib.suppress(OSError), _opened(settings, rules) as tree:
        return tuple(tree.alike(rename))
    return ()


def write_protected(settings: TransferSettings, rename: Rename, rules: Rules) -> tuple[bytes, ...]:
    """Return the files at the new path that their owner may not write to."""
    with contextlib.suppress(OSError), _opened(settings, rules) as tree:
        return tuple(tree.write_protected(rename))
    return ()


@contextlib.contextmanager
def _opened(settings: TransferSettings, rules: Rules) -> Iterator[_Tree]:
    with entries.opened(settings.source) as root:
        yield _Tree(root, settings, rules)


@dataclass(frozen=True, slots=True)
class _Entry:
    path: bytes
    """Relative to the directory that is listed."""
    status: os.stat_result

    @property
    def size(self) -> int:
        return _size(self.status)


class _Tree:
    """What is in a tree now. Its methods raise OSError if a path is not there."""

    def __init__(self, root: int, settings: TransferSettings, rules: Rules) -> None:
        self._root, self._settings, self._rules = root, settings, rules
        self._device = os.fstat(root).st_dev if one_file_system(settings.extra) else None
        self._entries_left = MAX_LISTED

    def has(self, path: bytes) -> bool:
        try:
            self._status(path)
        except OSError:
            return False
        return True

    def measured(self, rename: Rename) -> list[RenameStep]:
        """Return the step for a rename; none if it cannot be followed."""
        rules, target = self._rules, self._settings.target
        if any(rules.excluded_below(path, rename.is_directory) for path in (rename.old, rename.new)):
            return []
        above, _, name = rename.new.rpartition(b"/")
        with entries.opened_below(self._root, rename.new if rename.is_directory else above) as directory:
            status = os.fstat(directory)
            place = status.st_dev, status.st_ino
            if self._device not in (None, status.st_dev):
                return []
            if not rename.is_directory:
                size = _size(os.lstat(name, dir_fd=directory))
                at_root = renames_at_root(target, rename)
                if at_root:
                    name, place = rename.new, entries.identity(self._root)
                return [RenameStep(rename, (name,), False, place, size, at_root)]
            whole = are_position_free(rules.rules)
            if not whole and transport(target) is Transport.LOCAL:
                return []  # names cannot be confined to the tree there: see ``options.confinable``
            listing = self._listing(directory, rename.new, self._device)
            most = min(self._entries_left, MAX_MEASURED) if whole else self._entries_left
            found = list(islice(listing, most))
            self._entries_left -= len(found)
            if not whole and next(listing, None):
                return []
            names = EVERYTHING if whole else tuple(entry.path for entry in found)
            return [RenameStep(rename, names, whole, place, sum(entry.size for entry in found))]

    def alike(self, rename: Rename) -> Iterator[bytes]:
        if not rename.is_directory:
            if _content(self._status(rename.old)) == _content(self._status(rename.new)):
                yield rename.old
            return
        for entry in self._below(rename.old):
            if stat.S_ISDIR(entry.status.st_mode):
                continue
            with contextlib.suppress(OSError):
                new = self._status(rename.new + b"/" + entry.path)
                if stat.S_ISREG(new.st_mode) and _content(entry.status) == _content(new):
                    yield rename.old + b"/" + entry.path

    def write_protected(self, rename: Rename) -> Iterator[bytes]:
        if not rename.is_directory:
            if _is_write_protected(self._status(rename.new)):
                yield rename.new
            return
        for entry in self._below(rename.new):
            if _is_write_protected(entry.status):
                yield rename.new + b"/" + entry.path

    def _status(self, path: bytes) -> os.stat_result:
        return os.lstat(path, dir_fd=self._root)

    def _below(self, path: bytes) -> Iterator[_Entry]:
        with entries.opened_below(self._root, path) as directory:
            yield from self._listing(directory, path, None)

    def _listing(self, directory: int, path: bytes, device: int | None) -> Iterator[_Entry]:
        """Yield what is below an open directory, which has this path, and is not excluded.

        With ``device`` nothing on other file systems. What cannot be read is left out.
        """
        waiting = [b""]
        while waiting:
            above = waiting.pop()
            with (
                contextlib.suppress(OSError),
                entries.opened_below(directory, above) as own,
                os.scandir(own) as found,
            ):
                for entry in found:
                    name = os.fsencode(entry.name)
                    below = above + b"/" + name if above else name
                    is_directory = entry.is_dir(follow_symlinks=False)
                    if self._rules.excluded(path + b"/" + below, is_directory):
                        continue
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except OSError:
                        continue
                    if is_directory and device in (None, status.st_dev):
                        waiting.append(below)
                    yield _Entry(below, status)


def _size(status: os.stat_result) -> int:
    """Return the size of a regular file; else 0."""
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _content(status: os.stat_result) -> tuple[int, int]:
    """Return what rsync tells contents apart by."""
    return _size(status), status.st_mtime_ns


def _is_write_protected(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and not status.st_mode & stat.S_IWUSR
