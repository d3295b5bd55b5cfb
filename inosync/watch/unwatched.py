"""The directories that have no watch: how many, why, and what they were like the last time."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from inosync.watch.tree import Directory

NO_WATCHES = "no watches left"
"""Why a directory is not watched, if the kernel's limit is the reason (inotify_add_watch(2), ENOSPC)."""


@dataclass(slots=True)
class _Group:
    """Those of one tree that are not watched for one reason."""

    wpath: str
    example: bytes
    count: int = 0
    told: int = 0
    """What ``news`` has said last."""


_Key = tuple[int, str, bool]
"""The tree, the reason, and whether those of that group are compared."""


@dataclass(slots=True)
class _Record:
    group: _Key
    digest: int = 0
    """What it was like (``entries.digest``)."""


class Unwatched:
    """About 300 bytes for each of them, beside what every directory takes."""

    def __init__(self) -> None:
        self._records: dict[Directory, _Record] = {}
        self._groups: dict[_Key, _Group] = {}

    def __len__(self) -> int:
        return len(self._records)

    def __bool__(self) -> bool:
        return bool(self._records)

    def __contains__(self, directory: object) -> bool:
        return directory in self._records

    def __iter__(self) -> Iterator[Directory]:
        return iter(self._records)

    def add(
        self, directory: Directory, tree: int, wpath: str, path: bytes, why: str, compared: bool = True
    ) -> None:
        """A directory, with the path that it has in the tree, cannot be watched; ``compared``: but read."""
        key = tree, why, compared
        record = self._records.get(directory)
        if record is not None and record.group == key:
            return
        self.discard(directory)
        group = self._groups.setdefault(key, _Group(wpath, path))
        if not group.count:
            group.example = path
        group.count += 1
        self._records[directory] = _Record(key)

    def discard(self, directory: Directory) -> None:
        """It is watched by now, or gone."""
        record = self._records.pop(directory, None)
        if record is not None:
            group = self._groups[record.group]
            group.count -= 1
            if not group.count and not group.told:
                del self._groups[record.group]

    def has_changed(self, directory: Directory, digest: int) -> bool:
        """Whether it may be different from what it was like the last time; 0 is always different."""
        record = self._records.get(directory)
        if record is None:
            return True
        before, record.digest = record.digest, digest
        return not digest or digest != before

    def because(self, why: str) -> int:
        """How many are not watched for this reason."""
        return sum(group.count for (_, reason, _), group in self._groups.items() if reason == why)

    def of(self, trees: Collection[int] | None) -> tuple[int, str]:
        """How many of these trees are not watched (None: of all), and why most of them are not."""
        groups = [
            (group.count, why)
            for (tree, why, _), group in self._groups.items()
            if group.count and (trees is None or tree in trees)
        ]
        return sum(count for count, _ in groups), max(groups, default=(0, ""))[1]

    def unseen(self, trees: Collection[int]) -> int:
        """How many of these trees are not even compared, as they cannot be read."""
        return sum(
            group.count
            for (tree, _, compared), group in self._groups.items()
            if not compared and tree in trees
        )

    def news(self) -> Iterator[tuple[str, int, bytes, str]]:
        """(wpath, how many, the path of one of them, why), where that is not what was told before.

        Small differences are none: a number is told again when it is twice as large, half, or 0.
        """
        for key, group in list(self._groups.items()):
            count, told = group.count, group.told
            if count != told and not told < count < 2 * told and not told / 2 < count < told:
                group.told = count
                if not count:
                    del self._groups[key]
                yield group.wpath, count, group.example, key[1]
