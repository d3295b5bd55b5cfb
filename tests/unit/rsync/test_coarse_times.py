"""Files whose times do not tell one content from the next."""

from __future__ import annotations

import math
import os
import stat
import time
from pathlib import Path

import pytest

from inosync.rsync.coarse_times import EarlierReads, may_be_outdated, outdated_below, outdated_names

SECOND = 1_000_000_000


def status(mtime: float, ctime: float | None = None, mode: int = stat.S_IFREG) -> os.stat_result:
    """The status of a file with such times; the ctime is that of the mtime if it is not given."""
    ctime = mtime if ctime is None else ctime
    times: dict[str, float] = {"st_mtime": mtime, "st_ctime": ctime}
    times |= {f"{name}_ns": round(at * SECOND) for name, at in times.items()}
    return os.stat_result((mode, 1, 1, 1, 0, 0, 1, int(mtime), int(mtime), int(ctime)), times)


@pytest.mark.parametrize(
    ("mtime", "ctime", "expected"),
    [
        (1000.0, 1000.0, True),
        (1001.0, 1001.0, True),  # changed while rsync ran
        (999.0, 999.0, True),  # two seconds of vfat
        (998.0, 998.0, False),
        (1000.5, 1000.5, False),  # the times are not coarse
        (1000.0, 1000.5, False),  # only the mtime is, by touch(1)
        (1030.0, 1000.0, True),  # a clock that is ahead
        (9999.0, 1000.0, False),  # far in the future, by touch(1)
    ],
)
def test_file_may_be_outdated_if_it_was_read_in_the_second_of_its_time(
    mtime: float, ctime: float, expected: bool
) -> None:
    assert may_be_outdated(status(mtime, ctime), 1000.7, 1001.5, -1, None) is expected


@pytest.mark.parametrize(
    ("window", "mtime", "expected"), [(0, 999.9, True), (1, 998.9, True), (4, 996.1, True), (4, 995.0, False)]
)
def test_modify_window_makes_all_times_coarse(window: int, mtime: float, expected: bool) -> None:
    assert may_be_outdated(status(mtime), 1000.7, 1001.5, window, None) is expected


@pytest.mark.parametrize("mode", [stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO])
def test_outdated_files_are_regular_files(mode: int) -> None:
    assert not may_be_outdated(status(1000.0, mode=mode), 1000.7, 1001.5, -1, None)


@pytest.mark.parametrize(
    ("mtime", "expected"), [(897.0, False), (899.0, True), (950.0, True), (961.0, False)]
)
def test_file_may_be_outdated_if_a_full_mirror_read_it_unnamed(mtime: float, expected: bool) -> None:
    earlier = EarlierReads()
    earlier.add(900.0, 960.0)
    assert may_be_outdated(status(mtime), 1000.7, 1001.5, -1, earlier) is expected


@pytest.mark.parametrize(
    ("mtime", "ctime", "since", "expected"),
    [
        (500.0, 900.0, -math.inf, True),  # moved, over another one perhaps, or chmod(1)
        (500.0, 900.0, 902.0, True),
        (500.0, 900.0, 903.0, False),  # nothing was read since
        (500.0, 900.0, math.inf, False),  # it is new there, or its content was compared
        (500.0, 502.0, -math.inf, False),  # written, and closed later
        (500.0, 900.5, -math.inf, False),  # the times are not coarse
    ],
)
def test_file_may_be_outdated_if_it_may_have_replaced_another(
    mtime: float, ctime: float, since: float, expected: bool
) -> None:
    assert may_be_outdated(status(mtime, ctime), 1000.7, 1001.5, -1, None, since) is expected


def test_earlier_reads_one_after_another_count_as_one() -> None:
    earlier = EarlierReads()
    earlier.add(900.0, 960.0)
    earlier.add(1000.0, 1010.0)
    assert (earlier.began, earlier.ended) == (900.0, 1010.0)
    earlier.add(9000.0, 9001.0)
    assert (earlier.began, earlier.ended) == (9000.0, 9001.0)
    earlier.add(8000.0, 8500.0)
    assert (earlier.began, earlier.ended) == (8000.0, 9001.0), "it is known only now"


def test_outdated_names_skip_what_is_gone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    now = os.stat(tmp_path / "file").st_mtime
    wires = (b"file", b"gone", b"./", b"d/")
    assert outdated_names(str(tmp_path), wires, now, now, 0, None) == (b"file",)
    assert outdated_names(str(tmp_path / "gone"), wires, now, now, 0, None) == ()


def test_full_mirror_may_leave_files_that_were_read_before(tmp_path: Path) -> None:
    now = time.time()
    ages = {"moved": 5000, "a": 950, "d/b": 900, "d/e/new": 0, "d/e/\xff": 960}
    for path, age in ages.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x")
        if age:
            os.utime(tmp_path / path, (now - age, now - age))
    (tmp_path / "link").symlink_to("a")
    earlier = EarlierReads()
    assert not earlier
    earlier.add(now - 1000, now - 900)
    assert earlier
    found = outdated_below(f"{tmp_path}/", 0, earlier)
    assert sorted(found) == [b"a", b"d/b", os.fsencode("d/e/\xff"), b"moved"]
    assert outdated_below(str(tmp_path), -1, earlier) == (), "its times are not coarse"
    assert outdated_below(str(tmp_path / "gone"), 0, earlier) == ()
    # What a relist may have left is that of one directory.
    wires = (b"./", b"d/", b"gone/")
    assert sorted(outdated_names(str(tmp_path), wires, now, now, 0, earlier)) == [b"a", b"d/b", b"moved"]
    assert outdated_names(str(tmp_path), wires, now, now, 0, None) == ()
