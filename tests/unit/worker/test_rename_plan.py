"""Which renames are worth a run, by what a tree has; ``test_rename_runs`` has what follows from it."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from inosync.changes import WORTHWHILE_BYTES, Part, Rename, Step
from inosync.filters.rule import from_filter
from inosync.filters.rules import Rules
from inosync.rsync.argv import EVERYTHING, TransferSettings
from inosync.worker import rename_plan
from inosync.worker.rename_plan import MAX_MEASURED, RenameStep

RENAME = Rename(b"old", b"new", True)


@pytest.fixture
def settings(tmp_path: Path) -> TransferSettings:
    """A tree with a directory that is just large enough."""
    (tmp_path / "new/sub").mkdir(parents=True)
    (tmp_path / "new/sub/file").write_bytes(bytes(WORTHWHILE_BYTES - 1))
    (tmp_path / "new/other").write_bytes(b"x")
    return TransferSettings("rsync", str(tmp_path), "rsync://host/module")


def steps(
    settings: TransferSettings, *renames: Rename, step: Step = Step.NEW, rules: str = ""
) -> list[RenameStep]:
    read = Rules(list(from_filter(rules))) if rules else Rules(())
    return rename_plan.steps(Part(1, False, (b"new",), step=step), renames or (RENAME,), settings, read)


def test_directory_is_measured_with_all_that_is_below(settings: TransferSettings) -> None:
    (found,) = steps(settings)
    place = os.stat(f"{settings.source}/new")
    assert (found.bytes, found.names, found.whole) == (WORTHWHILE_BYTES, EVERYTHING, True)
    assert found.directory == (place.st_dev, place.st_ino)
    os.unlink(f"{settings.source}/new/other")
    assert steps(settings) == []


def test_links_out_of_a_directory_are_not_measured(settings: TransferSettings, tmp_path: Path) -> None:
    (tmp_path / "new/other").unlink()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/large").write_bytes(bytes(WORTHWHILE_BYTES))
    for name, target in (("directory", "../outside"), ("file", "../outside/large")):
        (tmp_path / "new" / name).symlink_to(target)
    assert steps(settings) == []


def test_directory_that_a_link_has_replaced_is_not_followed(
    settings: TransferSettings, tmp_path: Path
) -> None:
    (tmp_path / "new").rename(tmp_path / "moved")
    (tmp_path / "new").symlink_to("moved")
    assert steps(settings) == []


def test_what_rules_exclude_does_not_count(settings: TransferSettings) -> None:
    assert steps(settings, rules="- other") == []
    assert steps(settings, rules="- /old") == [], "the node has nothing at the old name"


def test_rules_of_a_place_have_the_names_listed(settings: TransferSettings) -> None:
    (found,) = steps(settings, rules="- /new/nothing")
    assert (sorted(found.names), found.whole) == ([b"other", b"sub", b"sub/file"], False)
    assert steps(replace(settings, target="/srv/www"), rules="- /new/nothing") == []


@pytest.mark.parametrize(
    ("step", "also", "deletes"),
    [
        (Step.NEW, None, True),
        (Step.SWITCHED, None, False),
        (Step.NEW, Rename(b"new/sub", b"other", True), False),
    ],
)
def test_run_deletes_only_what_no_other_rename_needs(
    settings: TransferSettings, step: Step, also: Rename | None, deletes: bool
) -> None:
    found = steps(settings, RENAME, *([also] if also else []), step=step)
    assert [one.deletes for one in found] == [deletes]


def test_file_in_its_directory_is_renamed_from_the_root(settings: TransferSettings, tmp_path: Path) -> None:
    (tmp_path / "new/other").write_bytes(bytes(WORTHWHILE_BYTES))
    root, directory = tmp_path.stat(), (tmp_path / "new").stat()
    (stays,) = steps(settings, Rename(b"new/before", b"new/other", False))
    assert (stays.names, stays.at_root, stays.directory) == (
        (b"new/other",),
        True,
        (root.st_dev, root.st_ino),
    )
    (moved,) = steps(settings, Rename(b"elsewhere/other", b"new/other", False))
    assert (moved.names, moved.at_root, moved.directory) == (
        (b"other",),
        False,
        (directory.st_dev, directory.st_ino),
    )


@pytest.mark.slow
def test_one_measure_of_a_directory_has_an_end(settings: TransferSettings, tmp_path: Path) -> None:
    for number in range(MAX_MEASURED + 1):  # the newest are listed first on tmpfs, which is /tmp on Debian 13
        (tmp_path / f"new/sub/{number}").write_bytes(b"content " * 10)
    (found,) = steps(settings)
    assert found.names == EVERYTHING
    assert steps(settings, RENAME, rules="- /nothing")[0].names != EVERYTHING


def test_copies_and_write_protected_files_are_found(settings: TransferSettings, tmp_path: Path) -> None:
    assert rename_plan.alike(settings, RENAME, Rules(())) == (), "there is nothing at the old name"
    shutil.copytree(tmp_path / "new", tmp_path / "old")
    (tmp_path / "old/other").write_text("changed")
    (tmp_path / "new/other").chmod(0o444)
    assert rename_plan.alike(settings, RENAME, Rules(())) == (b"old/sub/file",)
    assert rename_plan.write_protected(settings, RENAME, Rules(())) == (b"new/other",)
    excluding = Rules(list(from_filter("- sub")))
    assert rename_plan.alike(settings, RENAME, excluding) == ()
