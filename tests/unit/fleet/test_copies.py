"""Which copy a sender has: another one has another identity, and the same one keeps it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from inosync.fleet import copies


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "relay").mkdir()
    copies.prepare(str(tmp_path / "relay" / "www"))
    return tmp_path / "relay" / "www"


def identity(root: Path) -> str:
    return copies.identity([str(root)])


def test_copy_keeps_its_identity(root: Path) -> None:
    before = identity(root)
    (root / "new").write_text("content")
    copies.prepare(str(root))
    assert identity(root) == before


def replace_root(root: Path) -> None:
    root.rename(root.with_name("old"))
    root.mkdir()


def replace_all(root: Path) -> None:
    shutil.copytree(root.parent, root.parent.with_name("old"))
    shutil.rmtree(root.parent)
    root.parent.mkdir()
    copies.prepare(str(root))


def remove_marker(root: Path) -> None:
    (root.parent / ".inosync" / "copy").unlink()


def damage_marker(root: Path) -> None:
    (root.parent / ".inosync" / "copy").write_bytes(b"\xff")


@pytest.mark.parametrize("change", [replace_root, replace_all, remove_marker, damage_marker])
def test_copy_that_is_another_one_has_another_identity(root: Path, change: Callable[[Path], None]) -> None:
    before = identity(root)
    change(root)
    assert identity(root) != before


def test_copy_behind_a_link_or_missing_has_none(root: Path) -> None:
    root.rmdir()
    with pytest.raises(FileNotFoundError):
        identity(root)
    (root.parent / "else").mkdir()
    root.symlink_to("else")
    with pytest.raises(OSError, match=r"\[Errno"):
        identity(root)


def test_marker_behind_a_link_is_not_followed(root: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("0" * 32)
    marker = root.parent / ".inosync" / "copy"
    marker.unlink(missing_ok=True)
    marker.symlink_to(secret)
    with pytest.raises(OSError, match=r"\[Errno"):
        identity(root)
    assert secret.read_text() == "0" * 32


def test_place_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        copies.prepare(str(tmp_path / "unmounted" / "www"))
    assert os.listdir(tmp_path) == []


# Shared storage


def test_storage_is_another_one_when_its_root_is(tmp_path: Path) -> None:
    (tmp_path / "www").mkdir()
    before = copies.storage([str(tmp_path / "www")])
    (tmp_path / "www" / "new").write_text("x")
    assert copies.storage([str(tmp_path / "www")]) == before
    (tmp_path / "www").rename(tmp_path / "old")
    with pytest.raises(FileNotFoundError):
        copies.storage([str(tmp_path / "www")])
    (tmp_path / "www").mkdir()
    assert copies.storage([str(tmp_path / "www")]) != before
    assert sorted(os.listdir(tmp_path)) == ["old", "www"], "nothing is made there"


def test_storage_that_shows_changes_late_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inosync.fleet.copies.mounts.shows_changes_late", lambda _path: True)
    with pytest.raises(OSError, match="actimeo=0"):
        copies.storage([str(tmp_path)])


def test_proof_is_that_of_what_is_in_the_root(tmp_path: Path) -> None:
    """The path does not count, but the numbers of the files do: a copy proves nothing."""
    one, other = tmp_path / "one", tmp_path / "other"
    for root in (one, other):
        root.mkdir()
        (root / "file").write_text("same")
        (root / os.fsdecode(b"\xff")).write_text("same")
    proof = copies.proof([str(one)])
    assert len(proof) == 32
    assert copies.proof([str(other)]) != proof
    (tmp_path / "link").symlink_to("one")
    assert copies.proof([str(tmp_path / "link")]) == proof
    (one / "new").write_text("x")
    assert copies.proof([str(one)]) not in (proof, "")
    assert copies.proof([str(one), str(tmp_path / "none")]) == ""
