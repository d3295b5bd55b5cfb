"""What a worker finds at a root before it transfers anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from inosync.messages import Source
from inosync.rsync.source import SourceState, check_source


def source(path: Path, whole: bool = True) -> Source:
    status = path.stat()
    return Source((status.st_dev, status.st_ino), whole)


def nothing(_name: bytes, _is_directory: bool) -> bool:
    return False


def everything(_name: bytes, _is_directory: bool) -> bool:
    return True


def test_what_has_an_entry_is_good_and_what_has_none_that_counts_is_empty(tmp_path: Path) -> None:
    expected = source(tmp_path)
    assert check_source(str(tmp_path), expected, nothing) is SourceState.EMPTY
    (tmp_path / "file").touch()
    assert check_source(str(tmp_path), expected, nothing) is SourceState.OK
    assert check_source(str(tmp_path), expected, everything) is SourceState.EMPTY


@pytest.mark.parametrize("excluded", [nothing, everything])
def test_where_an_empty_one_is_no_loss_it_is_good(
    excluded: Callable[[bytes, bool], bool], tmp_path: Path
) -> None:
    assert check_source(str(tmp_path), source(tmp_path, whole=False), excluded) is SourceState.OK


def test_one_that_is_gone_or_another_one_is_not_mirrored(tmp_path: Path) -> None:
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


def test_without_a_guard_nothing_is_looked_at(tmp_path: Path) -> None:
    assert check_source(str(tmp_path / "none"), None, nothing) is SourceState.OK
