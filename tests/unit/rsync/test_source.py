"""What a worker finds at a root before it transfers anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from inosync.changes import Source
from inosync.rsync.source import SourceState, check_source


def source(path: Path, whole: bool = True) -> Source:
    status = path.stat()
    return Source((status.st_dev, status.st_ino), whole)


def nothing(_name: bytes, _is_directory: bool) -> bool:
    return False


def everything(_name: bytes, _is_directory: bool) -> bool:
    return True


def test_root_is_empty_if_no_entry_counts(tmp_path: Path) -> None:
    expected = source(tmp_path)
    assert check_source(str(tmp_path), expected, nothing) is SourceState.EMPTY
    (tmp_path / "file").touch()
    assert check_source(str(tmp_path), expected, nothing) is SourceState.OK
    assert check_source(str(tmp_path), expected, everything) is SourceState.EMPTY


@pytest.mark.parametrize("excluded", [nothing, everything])
def test_root_that_may_be_empty_is_ok(excluded: Callable[[bytes, bool], bool], tmp_path: Path) -> None:
    assert check_source(str(tmp_path), source(tmp_path, whole=False), excluded) is SourceState.OK


def test_root_that_is_gone_or_another_one_is_replaced(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    expected = source(root, whole=False)
    root.rename(tmp_path / "away")
    assert check_source(str(root), expected, nothing) is SourceState.REPLACED
    root.write_text("")
    assert check_source(str(root), expected, nothing) is SourceState.REPLACED
    root.unlink()
    root.mkdir()
    assert check_source(str(root), expected, nothing) is SourceState.REPLACED
    root.rmdir()
    root.symlink_to("away")
    assert check_source(str(root), expected, nothing) is SourceState.OK


def test_root_is_not_checked_without_an_expectation(tmp_path: Path) -> None:
    assert check_source(str(tmp_path / "none"), None, nothing) is SourceState.OK
