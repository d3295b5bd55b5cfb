"""The books about a batch, as far as no transfer is needed for them."""

from __future__ import annotations

from pathlib import Path

from inosync.filters.rules import Rules
from inosync.messages import Batch, Part
from inosync.rsync.argv import TransferSettings
from inosync.rsync.exit_codes import ExitKind
from inosync.rsync.outcome import Outcome
from inosync.system import spool
from inosync.worker.batch_run import BatchRun


def test_names_put_aside_are_not_found_again_by_tidying_relists(tmp_path: Path) -> None:
    for name in ("big", "small"):
        (tmp_path / name).write_text(name)
    part = Part(1, False, (b"big", b"small"))
    payload, _ = spool.pack((part,), str(tmp_path / "spool"))
    task = BatchRun(Batch(1, 2, False, payload, tidy=True), 0.0)
    settings = TransferSettings("rsync", str(tmp_path), "h:")
    assert task.has_something(settings, Rules(()))
    assert sorted(task.current.send) == [b"./", b"big", b"small"]
    rest, aside = Part(1, False, (b"small",)), Part(1, False, (b"./", b"big"))
    task.failed(Outcome(ExitKind.RETRY, "no room", due=(aside,), instead=(rest,)), 11, True)
    assert task.has_something(settings, Rules(()))
    assert task.current.send == [b"small"]
    assert task.due == [aside]
    task.came_through(Outcome(), 0)
    # It is told with the end of the batch.
    assert (task.parts, task.due, task.code, task.worry) == ([], [aside], 11, "no room")
