"""Copies of what a batch switches to, and whether what it leads to is still there."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from inosync.worker import frozen
from inosync.worker.frozen import Frozen


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with a link, a page, and both in directories."""
    root = tmp_path / "tree"
    (root / "releases/1").mkdir(parents=True)
    (root / "releases/1/f").write_text("f")
    (root / "current").symlink_to("releases/1")
    (root / "page").write_text("page")
    (root / "d/e").mkdir(parents=True)
    (root / "d/e/to").symlink_to("../../page")
    (root / "d/e").chmod(0o750)
    os.utime(root / "page", ns=(1, 1_000_000_007))
    os.utime(root / "d/e", ns=(1, 2_000_000_009))
    return root


def copies(tree: Path, *names: bytes) -> Frozen:
    return Frozen(str(tree), str(tree.parent / "copies"), names)


def test_copies_are_like_the_originals(tree: Path) -> None:
    found = copies(tree, b"current", b"page", b"d/e/to")
    assert found.names == {b"current", b"page", b"d/e/to"}
    place = Path(found.place)
    for name in ("current", "page", "d", "d/e", "d/e/to"):
        one, other = os.lstat(tree / name), os.lstat(place / name)
        assert (one.st_mode, one.st_uid, one.st_gid, one.st_mtime_ns) == (
            other.st_mode,
            other.st_uid,
            other.st_gid,
            other.st_mtime_ns,
        )
    assert (os.readlink(place / "current"), (place / "page").read_text()) == ("releases/1", "page")
    assert stat.S_IMODE(os.stat(place).st_mode) == 0o700
    found.remove()
    assert not place.exists()


@pytest.mark.parametrize("name", ["#page", ";link"])
def test_names_that_rsync_takes_for_comments_are_not_copied(tree: Path, name: str) -> None:
    """They are sent as ./NAME, and with it the root: that of the copies is private."""
    (tree / name).write_text("x")
    assert copies(tree, os.fsencode(name), b"page").names == {b"page"}


def test_copies_stay_when_the_originals_change(tree: Path) -> None:
    found = copies(tree, b"current")
    (tree / "current").unlink()
    (tree / "current").symlink_to("releases/2")
    assert os.readlink(Path(found.place) / "current") == "releases/1"


def test_what_cannot_be_copied_is_left_out(tree: Path) -> None:
    (tree / "outside").symlink_to(tree.parent)
    (tree.parent / "secret").write_text("secret")
    os.mkfifo(tree / "fifo")
    (tree / "large").write_bytes(b"x" * (frozen.MAX_FILE_BYTES + 1))
    names = (b"gone", b"page/below", b"outside/secret", b"fifo", b"large", b"d", b"current")
    found = copies(tree, *names)
    assert found.names == {b"current"}
    assert not (Path(found.place) / "outside").exists()
    assert not list(Path(found.place).rglob("secret"))


def test_copies_need_room(tree: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        Frozen(str(tree), str(tree / "none/copies"), [b"current"])


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ((), True),
        (("-avz",), True),
        (("-aX",), False),
        (("--acls",), False),
        (("-L",), False),
        (("-H",), False),
    ],
)
def test_can_freeze_depends_on_what_a_copy_lacks(extra: tuple[str, ...], expected: bool) -> None:
    assert frozen.can_freeze(extra) is expected


def test_newer_names_are_those_changed_after_the_batch_or_gone(tree: Path) -> None:
    changed = os.lstat(tree / "current").st_ctime_ns
    gone = {b"gone", b"gone/", b"page/f"}
    now = time.time_ns()
    assert frozen.newer(str(tree), [b"current", *gone], changed, now) == {b"current", *gone}
    assert frozen.newer(str(tree), [b"current", *gone], changed + 1, now) == gone
    assert frozen.newer(str(tree), [b"current"], changed, changed - 1) == set(), "of another clock"


def remove_file(tree: Path) -> None:
    (tree / "releases/1/f").unlink()


def remove_asset(tree: Path) -> None:
    (tree / "page").unlink()


def make_again(tree: Path) -> None:
    (tree / "releases/1").rename(tree / "releases/0")
    (tree / "releases/1").mkdir()


@pytest.mark.parametrize("change", [remove_file, remove_asset, make_again])
def test_basis_does_not_hold_when_something_of_it_has_gone(tree: Path, change: object) -> None:
    basis = frozen.basis(str(tree), [b"current"], [b"releases/1/", b"page"])
    assert frozen.holds(str(tree), basis)
    assert callable(change)
    change(tree)
    assert not frozen.holds(str(tree), basis)


def test_basis_holds_when_something_is_added_elsewhere(tree: Path) -> None:
    basis = frozen.basis(str(tree), [b"current"], [b"releases/1/", b"page"])
    (tree / "releases/2").mkdir()
    (tree / "page").write_text("changed")
    assert frozen.holds(str(tree), basis)
