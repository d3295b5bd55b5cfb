"""Which files are trusted, and which are not."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from support.configs import refused, text, write

from inosync.config.load import load


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("path", "mistake"),
    [
        ("missing.py", "missing.py: cannot be read: No such file or directory"),
        ("a", "a: is a directory; name a configuration file with -c"),
        ("file/x", "file/x: cannot be read: Not a directory"),
        ("x\0", r"x\x00: is not the name of a file"),
        ("x\n", r"x\n: cannot be read: No such file"),
        ("/dev/null", "/dev/null: is not a file"),
    ],
)
def test_path_that_is_no_file_is_refused(path: str, mistake: str) -> None:
    assert refused(path).startswith(mistake)


@pytest.mark.usefixtures("here")
def test_fifo_is_refused_without_waiting_for_it() -> None:
    os.mkfifo("fifo")
    assert (
        refused("fifo")
        == "fifo: is not a file; name a configuration file with -c, or write one: inosync --init"
    )


@pytest.mark.usefixtures("here")
def test_file_that_cannot_be_opened_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)
    assert refused("conf.py").startswith("conf.py: cannot be read: Permission denied; ")


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
@pytest.mark.usefixtures("here")
def test_file_that_others_can_write_is_not_run(mode: int) -> None:
    write("raise SystemExit")
    os.chmod("conf.py", mode)
    assert refused("conf.py") == "conf.py: is writable by others; chmod go-w conf.py"


@pytest.mark.parametrize(("mode", "good"), [(0o775, False), (0o777, False), (0o1777, True), (0o755, True)])
def test_file_in_a_directory_that_others_can_write_is_not_run(here: Path, mode: int, good: bool) -> None:
    (here / "etc").mkdir()
    write(text(), "etc/conf.py")
    (here / "etc").chmod(mode)
    if good:
        assert load("etc/conf.py")
    else:
        assert refused("etc/conf.py").endswith(f"etc: is writable by others; chmod go-w {here}/etc")


def test_directory_that_a_link_leads_to_is_checked(here: Path) -> None:
    (here / "etc").mkdir()
    write(text(), "etc/conf.py")
    (here / "etc").chmod(0o777)
    (here / "link.py").symlink_to("etc/conf.py")
    assert "etc: is writable by others" in refused("link.py")


def test_every_directory_on_the_way_is_checked(here: Path) -> None:
    (here / "loose/etc").mkdir(parents=True)
    for directory in (here / "loose", here / "loose/etc"):
        directory.chmod(0o755)
    write(text(), "loose/etc/conf.py")
    (here / "direct").symlink_to("loose/../loose/etc")
    (here / "second").symlink_to(here / "loose/hop")
    (here / "loose/hop").symlink_to("../file.py")
    write(text(), "file.py")
    ways = ("loose/etc/conf.py", "direct/conf.py", "direct/../../file.py", "second", "./loose/hop")
    for way in ways:
        assert load(way)
    (here / "loose").chmod(0o777)
    for way in ways:
        assert refused(way) == f"{here}/loose: is writable by others; chmod go-w {here}/loose"
    (here / "loose").chmod(0o1777)
    for way in ways:
        assert load(way)
    assert load("file.py")


def test_links_in_a_circle_are_refused(here: Path) -> None:
    (here / "conf.py").symlink_to("conf.py")
    assert refused("conf.py").startswith("conf.py: cannot be read: Too many levels of symbolic links")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives anything away")
def test_foreign_link_in_a_sticky_directory_is_not_followed(here: Path) -> None:
    write(text(), "file.py")
    (here / "sticky").mkdir()
    (here / "sticky").chmod(0o1777)
    link = here / "sticky/conf.py"
    link.symlink_to("../file.py")
    assert load("sticky/conf.py")
    os.lchown(link, 1, 1)
    assert refused("sticky/conf.py") == f"{link}: belongs to user 1; chown -h root {link}"
    (here / "sticky").chmod(0o755)
    assert load("sticky/conf.py")
    (here / "sticky").chmod(0o1777)
    (here / "sticky/theirs/etc").mkdir(parents=True)
    (here / "sticky/theirs/etc").chmod(0o755)
    write(text(), "sticky/theirs/etc/conf.py")
    (here / "sticky/theirs").chmod(0o755)
    assert load("sticky/theirs/etc/conf.py")
    os.chown(here / "sticky/theirs", 1, 1)
    assert f"{here}/sticky/theirs: belongs to user 1" in refused("sticky/theirs/etc/conf.py")


@pytest.mark.usefixtures("here")
def test_file_of_another_user_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    write("raise SystemExit")
    real, uid = os.fstat, os.geteuid() + 1

    def owned_by_another(fd: int) -> os.stat_result:
        return os.stat_result((*tuple(real(fd))[: stat.ST_UID], uid, *tuple(real(fd))[stat.ST_UID + 1 :]))

    monkeypatch.setattr(os, "fstat", owned_by_another)
    assert refused("conf.py") == f"conf.py: belongs to user {uid}; chown root conf.py"
