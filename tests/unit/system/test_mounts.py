"""Mount points: in fstab, as people write it, and in the kernel's table."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inosync.system import mounts

FSTAB = rb"""
# /etc/fstab: static file system information.
UUID=0-1 / ext4 errors=remount-ro 0 1
#/dev/sda2 /commented ext4 defaults 0 2
  # LABEL=x /indented ext4
/dev/sdb1	/srv/www/	ext4	defaults,noauto	0 2
/dev/sdc1 /with\040space\011and\134tab xfs
/dev/sdd1 none swap sw 0 0
/dev/sde1 swap swap sw 0 0
/dev/sdf1
nfs:/x\040y /latin1\344 nfs
"""


def test_fstab_mount_points_are_read_as_getmntent_does() -> None:
    assert list(mounts.in_fstab(FSTAB)) == [b"/", b"/srv/www", b"/with space\tand\\tab", b"/latin1\xe4"]


@pytest.mark.parametrize("text", [b"", b"\n", b"#", b"a", b"a b", b"\0\xff \\0 \\999", b"x /\\08"])
def test_fstab_with_any_bytes_is_read(text: bytes) -> None:
    assert all(point.startswith(b"/") for point in mounts.in_fstab(text))


def test_expected_follows_symlinks_to_a_mount_point(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    table = tmp_path / "fstab"
    environ = {"LIBMOUNT_FSTAB": str(table)}
    for written, asked in (("real", "link"), ("link", "real"), ("link/", "link"), ("missing", "missing")):
        table.write_text(f"tmpfs {tmp_path}/{written} tmpfs\n")
        assert mounts.expected(str(tmp_path / asked), environ), (written, asked)
    assert not mounts.expected(str(tmp_path), environ)


def test_expected_is_false_without_fstab(tmp_path: Path) -> None:
    assert not mounts.expected("/", {"LIBMOUNT_FSTAB": str(tmp_path / "none")})


TABLE = rb"""25 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw
30 25 0:26 /sub /a\040b rw - tmpfs tmpfs rw
"""


def test_mounted_reads_the_table_of_the_kernel(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_bytes(TABLE)
    assert mounts.points(mounts.parse(TABLE)) == {b"/", b"/a b"}
    assert mounts.mounted("/", str(table))
    assert mounts.mounted("/a b", str(table))
    assert not mounts.mounted("/a", str(table))


def test_mounted_knows_root_and_proc_of_this_machine(tmp_path: Path) -> None:
    assert mounts.mounted("/")
    assert mounts.mounted("/proc") == os.path.ismount("/proc")
    assert not mounts.mounted(str(tmp_path))


def test_mounted_falls_back_to_device_numbers(tmp_path: Path) -> None:
    assert mounts.mounted("/", str(tmp_path / "none"))
    assert not mounts.mounted(str(tmp_path), str(tmp_path / "none"))


def test_changes_report_nothing_while_the_table_is_the_same() -> None:
    changes = mounts.Changes()
    try:
        assert changes.take() == set()
        assert len(changes.descriptors()) == 1
    finally:
        changes.close()
    assert changes.descriptors() == []


def test_changes_report_all_mount_points_if_the_loop_has_seen_one() -> None:
    changes = mounts.Changes()
    try:
        assert changes.take(has_changed=True) == changes.known != set()
    finally:
        changes.close()


def test_changes_report_nothing_without_the_table(tmp_path: Path) -> None:
    changes = mounts.Changes(str(tmp_path / "none"))
    assert changes.take() == set()
    changes.close()


MOUNTINFO = b"""22 1 8:1 / / rw - ext4 /dev/sda1 rw
30 22 0:50 / /srv rw - nfs4 server:/srv rw
31 30 0:51 / /srv/local rw - xfs /dev/sdb rw
32 22 0:52 / /mnt/with\\040space rw shared:1 - fuse.sshfs far: rw
33 22 0:53 / /srv2 rw - cifs //server/x rw
"""


@pytest.mark.parametrize(
    ("path", "remote"),
    [
        ("/var/log/inosync", False),
        ("/srv/log", True),
        ("/srv", True),
        ("/srv/local/log", False),
        ("/srvlog", False),
        ("/mnt/with space/log", True),
        ("/srv2/log", True),
    ],
)
def test_file_system_that_asks_elsewhere_is_remote(tmp_path: Path, path: str, remote: bool) -> None:
    table = tmp_path / "mountinfo"
    table.write_bytes(MOUNTINFO)
    assert mounts.is_remote(path, str(table)) is remote
    assert not mounts.is_remote(path, str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("kind", "options", "late"),
    [
        ("nfs4", "rw,vers=4.2,rsize=1048576,hard", True),
        ("nfs", "rw,acregmin=0,acregmax=0,acdirmin=0,acdirmax=0,hard", False),
        ("nfs", "rw,acregmin=0,acregmax=0,acdirmin=30,acdirmax=60,hard", True),
        ("nfs4", "rw,noac,hard", False),
        ("cifs", "rw,actimeo=1", True),
        ("smb3", "rw,actimeo=0", False),
        ("ceph", "rw,acl", False),
        ("ext4", "rw", False),
    ],
)
def test_file_system_that_shows_changes_late_is_known(
    tmp_path: Path, kind: str, options: str, late: bool
) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(f"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 22 0:50 / /srv rw - {kind} a:/b {options}\n")
    assert mounts.shows_changes_late("/srv/www", str(table)) is late
    assert not mounts.shows_changes_late("/var/www", str(table))
