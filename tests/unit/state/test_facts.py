"""What a tree is known by, and which file systems below it are relied on."""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inosync.filters.rule import from_pattern
from inosync.filters.rules import Rules
from inosync.state import facts
from inosync.state.trust import TreeFacts
from inosync.watch import fstype

EXT4, UNKNOWN = 0xEF53, 0x6969
NOTHING = Rules(()).excluded


def test_moment_has_the_time_and_how_far_it_is_ahead_of_the_boot() -> None:
    before = time.time()
    moment = facts.moment()
    assert before <= moment.wall <= time.time()
    since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert moment.wall - moment.clock_offset == pytest.approx(since_boot, abs=60)


def test_root_is_known_by_its_inode_whatever_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "link").symlink_to("root")
    status = (tmp_path / "root").stat()
    found, identity = facts.of_root(str(tmp_path / "root"))
    assert (found.inode, identity) == (status.st_ino, (status.st_dev, status.st_ino))
    assert facts.of_root(str(tmp_path / "link")) == (found, identity)
    with pytest.raises(OSError, match="missing"):
        facts.of_root(str(tmp_path / "missing"))


def test_mounts_are_those_below_the_root(tmp_path: Path) -> None:
    for name in ("root/disk", "root2/disk"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "root/file").touch()
    points = [os.fsencode(tmp_path / name) for name in ("root/disk", "root/file", "root2/disk", "")]
    found = facts.of_tree(str(tmp_path / "root"), points, NOTHING)
    disk, file = ((tmp_path / "root" / name).stat().st_ino for name in ("disk", "file"))
    assert found.mounts.keys() == {"disk", "file"}
    assert found.mounts["disk"] == f"{found.root.fs_id} {disk}"
    assert found.mounts["file"].endswith(f" {file}")
    assert found.devices == {tmp_path.stat().st_dev}


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("/none/", {"disk/a/b", "disk/file", "other"}),
        ("/disk/", {"other"}),
        ("a", {"disk/file", "other"}),
        ("/disk/*", {"other"}),
        ("/disk/*/", {"disk/file", "other"}),
        ("/*/*/b/", {"disk/file", "other"}),
        ("other/", {"disk/a/b", "disk/file"}),
    ],
)
def test_what_is_mounted_where_it_is_excluded_does_not_count(
    pattern: str, left: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("disk/a/b", "other"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "disk/file").touch()
    inode = tmp_path.stat().st_ino
    monkeypatch.setattr(fstype, "type_of", lambda fd: EXT4 if os.fstat(fd).st_ino == inode else UNKNOWN)
    points = [os.fsencode(tmp_path / name) for name in ("disk/a/b", "disk/file", "other")]
    found = facts.of_tree(str(tmp_path), points, Rules(from_pattern(pattern)).excluded)
    assert found.mounts.keys() == left
    assert found.untrusted in left


@pytest.mark.parametrize(
    ("root", "below", "fs_type", "untrusted"),
    [(EXT4, EXT4, "ext4", ""), (EXT4, UNKNOWN, "ext4", "disk"), (UNKNOWN, EXT4, "", "")],
)
def test_file_system_of_another_type_is_not_relied_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    root: int,
    below: int,
    fs_type: str,
    untrusted: str,
) -> None:
    (tmp_path / "disk").mkdir()
    inode = tmp_path.stat().st_ino
    monkeypatch.setattr(fstype, "type_of", lambda fd: root if os.fstat(fd).st_ino == inode else below)
    found = facts.of_tree(str(tmp_path), [os.fsencode(tmp_path / "disk")], NOTHING)
    assert (found.root.fs_type, found.untrusted) == (fs_type, untrusted)


# With mounts ---------------------------------------------------------------------------------------------

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")


class Mounts:
    """A tree in a directory, and what is mounted in it; the last goes first."""

    def __init__(self, home: Path) -> None:
        self.tree, self.beside, self.points = home / "tree", home / "beside", list[Path]()
        for path in (self.tree / "dir", self.beside / "one", self.beside / "other", self.beside / "work"):
            path.mkdir(parents=True)
        for name in ("tree/file", "beside/file", "beside/other file"):
            (home / name).write_text(name)

    def mount(self, point: Path, *options: str | Path) -> None:
        done = subprocess.run(["mount", *options, point], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"it cannot be mounted: {done.stderr.strip()}")
        self.points.append(point)

    def umount(self) -> None:
        subprocess.run(["umount", self.points.pop()], check=True)

    def facts(self) -> TreeFacts:
        return facts.of_tree(str(self.tree), map(os.fsencode, [self.tree.parent, *self.points]), NOTHING)


@pytest.fixture
def mounts(tmp_path: Path) -> Iterator[Mounts]:
    made = Mounts(tmp_path)
    yield made
    while made.points:
        made.umount()


def tmpfs(mounts: Mounts) -> None:
    mounts.mount(mounts.tree / "dir", "-t", "tmpfs", "tmpfs")


def bound(point: str, source: str) -> Callable[[Mounts], None]:
    return lambda mounts: mounts.mount(mounts.tree / point, "--bind", mounts.beside / source)


PAIRS: dict[str, tuple[Callable[[Mounts], None], Callable[[Mounts], None], bool]] = {
    "the same directory": (bound("dir", "one"), bound("dir", "one"), True),
    "another directory": (bound("dir", "one"), bound("dir", "other"), False),
    "a new file system of the same type": (tmpfs, tmpfs, False),
    "the same file": (bound("file", "file"), bound("file", "file"), True),
    "another file": (bound("file", "file"), bound("file", "other file"), False),
}


@needs_root
@pytest.mark.parametrize("case", PAIRS)
def test_mounts_in_a_tree_are_told_apart(case: str, mounts: Mounts) -> None:
    first, second, are_same = PAIRS[case]
    before = mounts.facts()
    first(mounts)
    one = mounts.facts()
    assert one.mounts.keys() == {mounts.points[0].name}
    mounts.umount()
    assert mounts.facts() == before
    second(mounts)
    assert (mounts.facts().mounts == one.mounts) is are_same


@needs_root
def test_device_of_what_is_mounted_is_relied_on(mounts: Mounts) -> None:
    tmpfs(mounts)
    found = mounts.facts()
    assert found.devices == {mounts.tree.stat().st_dev, (mounts.tree / "dir").stat().st_dev}
    assert found.untrusted == ""


@needs_root
def test_overlay_is_not_relied_on(mounts: Mounts) -> None:
    places = (
        f"lowerdir={mounts.beside}/one",
        f"upperdir={mounts.beside}/other",
        f"workdir={mounts.beside}/work",
    )
    mounts.mount(mounts.tree / "dir", "-t", "overlay", "-o", ",".join(places), "overlay")
    assert mounts.facts().untrusted == "dir"
    root, _ = facts.of_root(str(mounts.tree / "dir"))
    assert root.fs_type == ""


@needs_root
@pytest.mark.parametrize("has_uuid", [True, False])
def test_file_systems_are_told_apart(has_uuid: bool, mounts: Mounts, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_uuid:  # an old kernel
        monkeypatch.setattr(facts, "_GET_UUID", 0)
    found = []
    for _ in range(2):
        tmpfs(mounts)
        found.append(facts.of_root(str(mounts.tree / "dir"))[0])
        assert found[-1].fs_type == "tmpfs"
        assert facts.of_root(str(mounts.tree / "dir"))[0] == found[-1]
        mounts.umount()
    assert found[0] != found[1]


def test_subvolumes_are_told_apart_by_more_than_their_uuid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "ioctl", lambda *_arguments: b"\x10" + b"u" * 16)
    monkeypatch.setattr(fstype, "type_of", lambda _fd: 0x9123683E)
    root, _ = facts.of_root(str(tmp_path))
    assert root.fs_id == f"{os.statvfs(tmp_path).f_fsid:x}"
