"""Which files are sent once more after a transfer; ``test_coarse_times`` has the rules for their times."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from inosync.changes import Part, Step
from inosync.rsync.argv import TransferSettings
from inosync.worker.job import Job
from inosync.worker.outdated import OutdatedFiles

FED_AT, NOW = 100.0, 103.0
"""By the clock."""


def outdated(tree: Path, wall: float) -> OutdatedFiles:
    settings = TransferSettings("rsync", str(tree), "n:", extra=("--modify-window=1",))
    job = SimpleNamespace(trees={1: settings, 2: settings}, wall=lambda: wall)
    return OutdatedFiles(cast(Job, job), lambda: NOW)


@pytest.mark.parametrize(
    ("age", "step", "is_again"),
    [
        (0.0, Step.CHANGED, True),
        (4.0, Step.CHANGED, True),
        (9_000.0, Step.NEW, False),
    ],
)
def test_file_that_changed_about_when_it_was_read_is_sent_again(
    tmp_path: Path, age: float, step: Step, is_again: bool
) -> None:
    file = tmp_path / "file"
    file.touch()
    wall = file.stat().st_ctime
    os.utime(file, (wall - age, wall - age))
    found = outdated(tmp_path, wall).after(Part(1, False, (b"file",), step=step), [b"file"], FED_AT)
    assert found == ([Part(1, False, (b"file",), ignore_times=True)] if is_again else [])


def test_reads_of_a_full_mirror_count_for_its_tree_alone(tmp_path: Path) -> None:
    wall = tmp_path.stat().st_ctime + 50_000
    files = outdated(tmp_path, wall)
    file = tmp_path / "file"
    file.touch()
    os.utime(file, (wall - 10_000, wall - 10_000))
    relist = Part(1, False, (b"./",), step=Step.NEW)
    assert files.after(relist, [b"./"], FED_AT) == []
    files.note_reads(FED_AT - 10_000, 2)
    assert files.after(relist, [b"./"], FED_AT) == [], "that was another tree"
    files.note_reads(FED_AT - 10_000)
    assert files.after(relist, [b"./"], FED_AT) == [Part(1, False, (b"file",), ignore_times=True)]
