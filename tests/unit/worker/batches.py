"""Batches for a tree, and what looks at their first part."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from support.wait import until

from inosync.changes import Lane, Part, Step
from inosync.filters.rules import Rules
from inosync.nodes.messages import Batch
from inosync.rsync.argv import TransferSettings
from inosync.system import spool
from inosync.worker.batch_run import BatchRun
from inosync.worker.lanes import Lanes, UnderWay


def names_in(parts: list[Part]) -> list[bytes]:
    return [name for part in parts for name in part.names]


def run_of(tmp_path: Path, lane: Lane, *names: bytes, full: bool = False) -> BatchRun:
    """A batch for a tree with the big files big, d/big and the small ones small, d/small."""
    (tmp_path / "tree/d").mkdir(parents=True)
    for path, size in (("big", 11), ("small", 3), ("d/big", 11), ("d/small", 3), ("middle", 8)):
        (tmp_path / "tree" / path).write_bytes(b"x" * size)
    payload, _ = spool.pack((Part(1, full, names),), "")
    return BatchRun(Batch(1, len(names), full, payload, lane=lane), 0.0)


def look(run: BatchRun, tmp_path: Path, other: UnderWay | None = None) -> bool:
    settings = TransferSettings("rsync", str(tmp_path / "tree"), "h:")
    return run.prepare_part(settings, Rules(()), 10, other)


def under_way(lane: Lane, *names: bytes) -> UnderWay:
    lanes = Lanes()
    lanes.begin(lane, Part(1, not names, names), names)
    other = lanes.other(Lane.SECOND if lane is Lane.FIRST else Lane.FIRST, 1)
    assert other is not None
    return other


def published(tmp_path: Path, *parts: Part) -> tuple[BatchRun, Callable[[], bool]]:
    """A batch for a tree in which links lead to release 2 and to a page; and what looks at its first part."""
    (tmp_path / "releases/2").mkdir(parents=True)
    (tmp_path / "d").mkdir()
    for name in ("releases/2/f", "asset", "page"):
        (tmp_path / name).touch()
    (tmp_path / "current").symlink_to("releases/2")
    (tmp_path / "elsewhere").symlink_to("page")
    payload, _ = spool.pack(parts, str(tmp_path / "spool"))
    run = BatchRun(Batch(1, 6, False, payload), 0.0)
    settings = TransferSettings("rsync", str(tmp_path), "h:")
    return run, lambda: run.prepare_part(settings, Rules(()))


def published_at(tmp_path: Path, complete_at: int, *parts: Part) -> tuple[BatchRun, Callable[[], bool]]:
    """The same, with all changes up to a time, in nanoseconds since the epoch; the tree may be there."""
    if not (tmp_path / "current").is_symlink():
        published(tmp_path)
    payload, _ = spool.pack(parts, str(tmp_path / "spool"))
    run = BatchRun(Batch(1, 6, False, payload, complete_at=complete_at), 0.0)
    settings = TransferSettings("rsync", str(tmp_path), "h:")
    return run, lambda: run.prepare_part(settings, Rules(()))


def last_change(tree: Path) -> int:
    return max(map(changed_at, (tree, *tree.rglob("*"))))


def changed_at(path: Path) -> int:
    return path.lstat().st_ctime_ns


def write_again(path: Path) -> int:
    path.write_text("again")
    return changed_at(path)


def switch_again(tree: Path, run: BatchRun) -> None:
    """Switch the link after the changes of a batch."""

    def has_switched() -> bool:
        (tree / "fresh").symlink_to("page")
        (tree / "fresh").rename(tree / "current")
        return changed_at(tree / "current") > run.batch.complete_at

    until(has_switched, 10, "a time of the file system after the batch")


SWITCHED = Part(1, False, (b"current", b"elsewhere"), step=Step.SWITCHED)


REMOVED = Part(1, False, (b"releases/1", b"d/old"), step=Step.REMOVED)
