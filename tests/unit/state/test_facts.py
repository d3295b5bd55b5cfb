"""What a tree is known by, and which file systems below it are relied on."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from inosync.state import facts
from inosync.watch import fstype

EXT4, UNKNOWN = 0xEF53, 0x6969


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
    found = facts.of_tree(str(tmp_path / "root"), points)
    fs_id = found.root.fs_id
    inodes = {name: (tmp_path / "root" / name).stat().st_ino for name in ("disk", "file")}
    assert found.mounts == {name: f"{fs_id} {inode}" for name, inode in inodes.items()}
    assert found.devices == {tmp_path.stat().st_dev}


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
    found = facts.of_tree(str(tmp_path), [os.fsencode(tmp_path / "disk")])
    assert (found.root.fs_type, found.untrusted) == (fs_type, untrusted)
