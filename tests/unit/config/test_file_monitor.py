"""When a change of a file is noticed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inosync.config.file_monitor import FileMonitor
from inosync.system import fingerprint
from inosync.system.fingerprint import Fingerprint


def reported(looks: str) -> str:
    """Return at which calls a file that was "a" is reported as changed: "!" there, "." elsewhere.

    Each letter is what is found at its path at one look; "-" is nothing.
    """
    found = iter(looks)

    def at(_path: str) -> Fingerprint | None:
        letter = next(found)
        return None if letter == "-" else (ord(letter),) * 5

    monitor = FileMonitor({"f": (ord("a"),) * 5}, at)
    return "".join("!" if monitor.changed() else "." for _ in looks)


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        ("aaaa", "...."),
        ("abbb", "..!."),
        ("bbbb", ".!.."),
        # being written
        ("abcdd", "....!"),
        ("ab-cc", "....!"),
        # there and back again, unnoticed and noticed
        ("abaa", "...."),
        ("abbaa", "..!.!"),
        # gone, for a moment or longer
        ("a-aa", "...."),
        ("a--b", "..!."),
        ("a---bb", "..!..!"),
        ("a--aa", "..!.!"),
    ],
)
def test_change_is_reported_once_after_it_has_come_to_rest(looks: str, expected: str) -> None:
    assert reported(looks) == expected


def test_each_file_is_reported_separately() -> None:
    now: dict[str, Fingerprint | None] = {"one": (1,) * 5, "two": (1,) * 5}
    monitor = FileMonitor({"one": (1,) * 5, "two": (1,) * 5}, lambda path: now[path])
    now["two"] = (2,) * 5
    assert [monitor.changed(), monitor.changed(), monitor.changed()] == [[], ["two"], []]
    now["one"] = now["two"] = None
    assert [monitor.changed(), monitor.changed()] == [[], ["one", "two"]]


def test_monitor_of_no_files_reports_nothing() -> None:
    assert FileMonitor({}).changed() == []


def written(path: Path) -> None:
    path.write_text("other")


def touched(path: Path) -> None:
    os.utime(path, (1, 1))


def replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_text("same")
    os.utime(other, ns=(0, path.stat().st_mtime_ns))
    other.rename(path)


def linked(path: Path) -> None:
    other = path.with_name("other")
    other.write_text("same")
    path.unlink()
    path.symlink_to(other)


def made_private(path: Path) -> None:
    path.chmod(0o600)


@pytest.mark.parametrize("change", [written, touched, replaced, linked, made_private, Path.unlink])
def test_fingerprint_shows_which_change_it_is(tmp_path: Path, change: object) -> None:
    path = tmp_path / "file"
    path.write_text("same")
    os.utime(path, (1000, 1000))
    before = fingerprint.at(str(path))
    assert before is not None
    monitor = FileMonitor({str(path): before})
    assert monitor.changed() == monitor.changed() == []
    assert callable(change)
    change(path)
    assert monitor.changed() == []
    assert monitor.changed() == [str(path)]
    assert fingerprint.at(str(path)) == (None if change is Path.unlink else fingerprint.of(path.stat()))
