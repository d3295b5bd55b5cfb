"""The directories that have no watch: how many, why, and what they were like the last time."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from inosync.watch.tree import Directory

NO_WATCHES = "no watches left"
"""Why a directory is not watched, if the kernel's limit is the reason (inotify_add_watch(2), ENOSPC)."""


@dataclass(frozen=True, slots=True)
class _GroupKey:
    tree: int
    why: str
    is_polled: bool


@dataclass(slots=True)
class _Group:
    """The directories of one tree that are not watched for one reason."""

    wpath: str
    example: bytes
    """The path of one of them."""
    since: float
    """When the first of them was found, by the clock."""
    count: int = 0
    unreadable_since: dict[Directory, float] = field(default_factory=dict)
    """Of those that are not polled, when each was found, the first one first."""
    logged: int = 0
    """The count that ``news`` has given last."""


@dataclass(slots=True)
class _Record:
    group: _GroupKey
    digest: int = 0
    """What the directory was like (``entries.digest``)."""
    compared_at: int = 0
    """When that was looked at, in nanoseconds since the epoch; 0: not yet."""


class Unwatched:
    """The set of them. Each takes about 300 bytes, beside what every directory takes."""

    def __init__(self) -> None:
        self._records: dict[Directory, _Record] = {}
        self._groups: dict[_GroupKey, _Group] = {}

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, directory: object) -> bool:
        return directory in self._records

    def __iter__(self) -> Iterator[Directory]:
        return iter(self._records)

    def add(
        self,
        directory: Directory,
        tree: int,
        wpath: str,
        path: bytes,
        why: str,
        now: float,
        is_polled: bool = True,
    ) -> None:
        """Note that a directory, at a path in a tree, cannot be watched; ``is_polled``: but read."""
        key = _GroupKey(tree, why, is_polled)
        record = self._records.get(directory)
        if record is not None and record.group == key:
            return
        self.discard(directory)
        group = self._groups.setdefault(key, _Group(wpath, path, now))
        if not group.count:
            group.example, group.since = path, now
        group.count += 1
        if not is_polled:
            group.unreadable_since[directory] = now
        self._records[directory] = _Record(key)

    def discard(self, directory: Directory) -> None:
        """Note that a directory is watched by now, or gone."""
        record = self._records.pop(directory, None)
        if record is not None:
            group = self._groups[record.group]
            group.count -= 1
            group.unreadable_since.pop(directory, None)
            if not group.count and not group.logged:
                del self._groups[record.group]

    def compared_at(self, directory: Directory) -> int:
        """Return when a directory was last compared, in nanoseconds since the epoch; 0 if it never was."""
        record = self._records.get(directory)
        return 0 if record is None else record.compared_at

    def has_changed(self, directory: Directory, digest: int, at: int) -> bool:
        """Whether a directory may be different from the last time; with 0 it always may. ``at``: the time."""
        record = self._records.get(directory)
        if record is None:
            return True
        before, record.digest, record.compared_at = record.digest, digest, at
        return not digest or digest != before

    def because(self, why: str) -> int:
        """Return how many are not watched for this reason."""
        return sum(group.count for key, group in self._groups.items() if key.why == why)

    def of(self, trees: Collection[int] | None) -> tuple[int, str]:
        """Return how many directories of these trees (None: of all) are unwatched, and why most are."""
        groups = [
            (group.count, key.why)
            for key, group in self._groups.items()
            if group.count and (trees is None or key.tree in trees)
        ]
        return sum(count for count, _ in groups), max(groups, default=(0, ""))[1]

    def unreadable(self, trees: Collection[int]) -> int:
        """Return how many directories of these trees are not even polled, because they cannot be read."""
        groups = self._groups.items()
        return sum(group.count for key, group in groups if not key.is_polled and key.tree in trees)

    def unseen_since(self, trees: Collection[int], covered_since: float) -> float | None:
        """Since when there may be unseen changes in these trees; None if all is watched.

        ``covered_since``: since when all that are polled were compared.
        """
        times = [
            max(group.since, covered_since) if key.is_polled else next(iter(group.unreadable_since.values()))
            for key, group in self._groups.items()
            if group.count and key.tree in trees
        ]
        return min(times, default=None)

    def news(self) -> Iterator[tuple[str, int, bytes, str]]:
        """Yield (wpath, count, path of one of them, reason) whose count has changed much since the last call.

        Much: it has become 0, or has at least doubled, or halved.
        """
        for key, group in list(self._groups.items()):
            count, before = group.count, group.logged
            if count != before and not before < count < 2 * before and not before / 2 < count < before:
                group.logged = count
                if not count:
                    del self._groups[key]
                yield group.wpath, count, group.example, key.why
