"""Directories that are the same, or in each other, by whatever road; mount tables are made up."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import mount_namespace

from inosync.system import mounts
from inosync.system.overlap import Location, MountTable, compare, locations, overlap

HERE = Path(__file__).resolve().parents[3]

ROOT = "1 0 8:1 / / rw - ext4 /dev/sda1 rw"
SOURCE = "/srv/www"


def said(target: str, *lines: str, source: str = SOURCE) -> str:
    """Return what a target is to the source by a table with these lines, the root's before them."""
    table = mounts.parse("\n".join((ROOT, *lines)).encode())

    def where(path: str) -> set[Location]:
        return locations(os.fsencode(path), -1, table)

    return compare(where(source), where(target))


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/srv/www", "is"),
        ("/srv", "contains"),
        ("/", "contains"),
        ("/srv/www/copy", "lies inside"),
        ("/srv/www2", ""),
        ("/backup", ""),
    ],
)
def test_plain_paths_are_compared_by_their_components(target: str, expected: str) -> None:
    assert said(target) == expected


@pytest.mark.parametrize(
    ("bound", "target", "expected"),
    [
        ("/srv", "/mnt", "contains"),
        ("/srv", "/mnt/www", "is"),
        ("/srv", "/mnt/www/copy", "lies inside"),
        ("/srv", "/mnt/other", ""),
        ("/srv/www", "/mnt", "is"),
        ("/srv/www/deep", "/mnt", "lies inside"),
        ("/srv/www/deep", "/mnt/er", "lies inside"),
        ("/", "/mnt/srv", "contains"),
        ("/backup", "/mnt", ""),
    ],
)
def test_overlap_sees_through_a_bind_mount(bound: str, target: str, expected: str) -> None:
    assert said(target, f"2 1 8:1 {bound} /mnt rw - ext4 /dev/sda1 rw") == expected


def test_overlap_counts_mounts_below_the_source() -> None:
    below = "2 1 8:1 /data /srv/www/data rw - ext4 /dev/sda1 rw"
    assert said("/data/copy", below) == "lies inside"
    assert said("/data", below) == "is"
    assert said("/other", below) == ""


def test_overlap_counts_mounts_below_the_target() -> None:
    assert said("/backup", "2 1 8:1 /srv /backup/srv rw - ext4 /dev/sda1 rw") == "contains"
    assert said("/backup", "2 1 8:1 /home /backup/home rw - ext4 /dev/sda1 rw") == ""


def test_overlap_knows_a_file_system_that_is_mounted_twice() -> None:
    twice = ["2 1 8:2 / /srv rw - xfs /dev/sdb rw", "3 1 8:2 / /again rw - xfs /dev/sdb rw"]
    assert said("/again/www", *twice) == "is"
    assert said("/again", *twice) == "contains"
    assert said("/again/copy", *twice) == ""


def test_another_device_is_apart_whatever_its_paths() -> None:
    assert said("/mnt/srv/www", "2 1 8:2 / /mnt rw - ext4 /dev/sdb rw") == ""


def test_shares_of_one_server_are_apart_though_their_device_is_one() -> None:
    shares = ["2 1 0:50 / /srv rw - nfs4 s:/a rw", "3 1 0:50 / /mnt rw - nfs4 s:/b rw"]
    assert said("/mnt/www", *shares) == ""
    assert said("/mnt/www", shares[0], shares[1].replace("s:/b", "s:/a")) == "is"


def test_overlap_sees_the_layers_of_an_overlay() -> None:
    overlay = "2 1 0:40 / /merged rw - overlay overlay rw,lowerdir=/low:/srv,upperdir=/up,workdir=/work"
    assert said("/merged/www", overlay) == "is"
    assert said("/merged", overlay) == "contains"
    assert said("/up/x", overlay, source="/merged") == "lies inside"
    assert said("/elsewhere", overlay, source="/merged") == ""


def test_names_with_spaces_in_the_table_are_read() -> None:
    assert said("/mnt", r"2 1 8:1 /my\040data /mnt rw - ext4 /dev/sda1 rw", source="/my data") == "is"


def test_symlinks_are_followed_though_the_target_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "src/www").mkdir(parents=True)
    (tmp_path / "link").symlink_to("src")
    source = str(tmp_path / "src/www")
    assert overlap(source, str(tmp_path / "link/www")) == "is"
    assert overlap(source, str(tmp_path / "link")) == "contains"
    assert overlap(source, str(tmp_path / "link/www/new/deep")) == "lies inside"
    assert overlap(source, str(tmp_path / "link/new")) == ""
    assert MountTable("/none").overlap(source, str(tmp_path / "link/www")) == "is"
    assert overlap(str(tmp_path / "none"), str(tmp_path / "link/www")) == ""


def test_real_bind_mounts_are_seen(tmp_path: Path) -> None:
    mount_namespace.launcher(tmp_path)
    (tmp_path / "src/www/deep").mkdir(parents=True)
    (tmp_path / "bm").mkdir()
    program = "import sys; from inosync.system.overlap import overlap; print(repr(overlap(*sys.argv[1:])))"

    def found(bound: str, target: str) -> str:
        script = 'mount --bind "$0" "$1" && shift && exec "$@"'
        words = [sys.executable, "-c", program, str(tmp_path / "src/www"), str(tmp_path / target)]
        shell = ["unshare", "-m", "--propagation", "private", "sh", "-ec", script]
        command = [*shell, str(tmp_path / bound), str(tmp_path / "bm"), *words]
        done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout.strip().strip("'")

    assert found("src", "bm") == "contains"
    assert found("src/www", "bm") == "is"
    assert found("src/www", "bm/new") == "lies inside"
    assert found("src/www/deep", "bm") == "lies inside"
    assert found("src", "bm/new") == ""
