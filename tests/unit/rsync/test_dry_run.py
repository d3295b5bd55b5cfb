"""Dry runs of full mirrors, by the real rsync: what they find, their order, and why they fail."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support import trees

from inosync.rsync import dry_run, itemize
from inosync.rsync.argv import TransferSettings
from inosync.rsync.dry_run import DryRun

RSYNC = shutil.which("rsync") or ""
pytestmark = pytest.mark.skipif(not RSYNC, reason="rsync is not installed")


@pytest.fixture
def settings(tmp_path: Path) -> TransferSettings:
    """A tree, and a copy that differs in each way."""
    tree, copy = tmp_path / "tree", tmp_path / "copy"
    for place, content in ((tree, "content"), (copy, "of before")):
        (place / "sub").mkdir(parents=True)
        (place / "sub/file").write_text(content)
    (tree / "new\nline").write_text("x")
    (copy / "own").write_text("x")
    return TransferSettings(RSYNC, str(tree), str(copy))


def only(settings: TransferSettings, timeout: float = 60) -> DryRun:
    [run] = dry_run.full_mirrors([(settings, timeout)], 1)
    assert isinstance(run, DryRun)
    return run


def shown(run: DryRun) -> set[tuple[str, str]]:
    return {(one.word, os.fsdecode(one.path)) for one in run.differences}


def test_dry_run_finds_what_a_full_mirror_would_do_and_changes_nothing(
    settings: TransferSettings, tmp_path: Path
) -> None:
    before = trees.snapshot(tmp_path, content=True)
    run = only(settings)
    assert shown(run) == {("missing", "new\nline"), ("content", "sub/file"), ("extra", "own")}
    assert run.reason == ""
    assert trees.snapshot(tmp_path, content=True) == before


@pytest.mark.parametrize(
    ("rdelete", "deletes"), [(True, True), ("startup", True), ("running", False), (False, False)]
)
def test_dry_run_deletes_as_a_full_mirror_does(
    settings: TransferSettings, rdelete: bool | str, deletes: bool
) -> None:
    assert (("extra", "own") in shown(only(replace(settings, rdelete=rdelete)))) is deletes


def test_dry_run_is_not_silenced_by_options_of_the_user(settings: TransferSettings) -> None:
    extra = ("-q", "--out-format=%n", "--info=progress2", "-v")
    assert len(shown(only(replace(settings, extra=extra)))) == 3


def test_dry_run_of_a_level_node_finds_nothing(settings: TransferSettings) -> None:
    shutil.rmtree(settings.target)
    shutil.copytree(settings.source, settings.target)
    run = only(settings)
    assert (list(run.differences), run.reason) == ([], "")


def test_dry_run_counts_more_differences_than_it_keeps(
    settings: TransferSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(itemize, "MAX_DIFFERENCES", 1)
    run = only(settings)
    assert len(run.lines) == 1
    assert run.count >= 3


def test_dry_run_says_why_it_is_not_complete(settings: TransferSettings, tmp_path: Path) -> None:
    assert "No such file" in only(replace(settings, source=str(tmp_path / "gone"))).reason
    hanging = tmp_path / "rsync"
    hanging.write_text("#!/bin/sh\nexec sleep 600\n")
    hanging.chmod(0o755)
    assert only(replace(settings, rsync=str(hanging)), 0.1).reason == "no progress for 0.1 s"


def test_dry_runs_come_in_their_order_with_those_that_cannot_start(
    settings: TransferSettings, tmp_path: Path
) -> None:
    slow = tmp_path / "slow"
    slow.write_text(f'#!/bin/sh\nsleep 0.2\nexec {RSYNC} "$@"\n')
    slow.chmod(0o755)
    wanted = [
        replace(settings, rsync=str(slow)),
        replace(settings, rsync="/nonexistent/rsync"),
        replace(settings, rdelete=False),
    ]
    runs = list(dry_run.full_mirrors([(one, 60.0) for one in wanted], 3))
    assert [len(shown(run)) if isinstance(run, DryRun) else run.filename for run in runs] == [
        3,
        "/nonexistent/rsync",
        2,
    ]


def test_dry_runs_are_as_many_at_once_as_is_said(settings: TransferSettings, tmp_path: Path) -> None:
    log = tmp_path / "log"
    counting = tmp_path / "counting"
    counting.write_text(f'#!/bin/sh\necho begin >> "{log}"\n{RSYNC} "$@"\necho end >> "{log}"\n')
    counting.chmod(0o755)
    wanted = [(replace(settings, rsync=str(counting)), 60.0)] * 3
    assert len(list(dry_run.full_mirrors(wanted, 1))) == 3
    assert log.read_text().split() == ["begin", "end"] * 3
