"""How much is in a directory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from inosync.system import entries


def test_count_stops_at_most_and_leaves_out_excluded_entries(tmp_path: Path) -> None:
    asked: list[tuple[bytes, bool]] = []

    def excluded(name: bytes, is_directory: bool) -> bool:
        asked.append((name, is_directory))
        return name == b"lost+found"

    (tmp_path / "lost+found").mkdir()
    (tmp_path / "link").symlink_to("lost+found")
    os.close(os.open(os.fsencode(tmp_path) + b"/\xff", os.O_CREAT))
    fd = entries.open_directory(str(tmp_path))
    try:
        assert entries.count(fd, excluded, 10) == 2
        assert sorted(asked) == [(b"link", False), (b"lost+found", True), (b"\xff", False)]
        assert entries.count(fd, excluded, 1) == 1
        assert entries.count(fd, lambda _name, _is_directory: True, 10) == 0
        status = tmp_path.stat()
        assert entries.identity(fd) == (status.st_dev, status.st_ino)
    finally:
        os.close(fd)


def test_open_directory_refuses_other_files(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    for name in ("file", "fifo", "missing"):
        with pytest.raises(OSError, match=name):
            entries.open_directory(str(tmp_path / name))


def digest(path: Path, since: int = 1 << 62) -> int:
    """What it comes to."""
    fd = entries.open_directory(str(path))
    steps = entries.digest(fd, lambda name, _is_directory: name == b"excluded", since)
    try:
        while True:
            next(steps)
    except StopIteration as end:
        return int(end.value)
    finally:
        os.close(fd)


def test_digest_differs_after_each_change_in_the_directory(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for number in range(300):
        (tmp_path / f"{number}").write_text("content")
    changes: list[Callable[[], object]] = [
        lambda: None,
        lambda: os.utime(tmp_path / "17", (1, 1)),
        lambda: (tmp_path / "17").chmod(0o600),
        lambda: os.replace(tmp_path / "17", tmp_path / "18"),
        lambda: (tmp_path / "19").unlink(),
        lambda: (tmp_path / "sub").chmod(0o700),
        lambda: tmp_path.chmod(0o711),
        lambda: os.truncate(tmp_path / "20", 3),
        lambda: (tmp_path / "new").symlink_to("20"),
    ]
    seen = []
    for change in changes:
        change()
        assert digest(tmp_path) == digest(tmp_path)
        seen.append(digest(tmp_path))
    assert len({*seen}) == len(changes)
    (tmp_path / "sub/file").touch()  # what is in it is its own affair
    assert digest(tmp_path) == seen[-1]


def test_digest_of_a_directory_changed_just_now_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    changed = (tmp_path / "file").stat().st_ctime_ns
    assert digest(tmp_path, changed + 1) != 0
    assert digest(tmp_path, changed) == 0


def test_opened_below_follows_no_symlink_on_the_way(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").touch()
    (tmp_path / "way").symlink_to("a")
    (tmp_path / "end").symlink_to("a/b")
    with entries.opened(str(tmp_path)) as root:
        for path, found in ((b"", ["a", "end", "way"]), (b"a", ["b"]), (b"a/b", ["file"])):
            with entries.opened_below(root, path) as directory:
                assert sorted(os.listdir(directory)) == found
        for path in (b"way/b", b"end", b"a/b/file", b"a/b/file/x", b"missing/b"):
            with (
                pytest.raises(OSError, match=r"Not a directory|No such file"),
                entries.opened_below(root, path),
            ):
                pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list everything")
def test_opened_below_passes_directories_that_cannot_be_listed(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a").chmod(0o111)
    with entries.opened(str(tmp_path)) as root, entries.opened_below(root, b"a/b") as directory:
        assert os.listdir(directory) == []
