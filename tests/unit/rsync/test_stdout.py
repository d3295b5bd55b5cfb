"""What is read from rsync's standard output."""

from __future__ import annotations

import pytest

from inosync.rsync import stdout
from inosync.rsync.stdout import is_exit_note, percent, transferred_bytes, waits_for


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"              2  28%    0.00kB/s    0:00:00 (xfr#1, to-chk=11/13)", 15),
        (b"      1,238,099 100%  146.38kB/s    0:00:08 (xfr#5, ir-chk=1000/4000)", None),
        (b"              0   0%    0.00kB/s    0:00:00 (xfr#0, to-chk=0/1)  ", 100),
        (b"              0 100%    0.00kB/s    0:00:00 (xfr#0, to-chk=0/0)", 100),
        (b"              2  28%    0.00kB/s    0:00:00  ", None),
        (b"", None),
        (b"file (to-chk=1/2) name", None),
    ],
)
def test_percent_is_the_share_of_entries_checked(line: bytes, expected: int | None) -> None:
    assert percent(line) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"sent 97 bytes  received 35 bytes  264.00 bytes/sec", 132),
        (b"sent 1,234,567 bytes  received 12 bytes  1.00 bytes/sec", 1_234_579),
        (b"sent 1.20K bytes  received 12 bytes  1.00 bytes/sec", 1_212),
        (b"sent 1.50G bytes  received 2.00M bytes  1.00K bytes/sec", 1_502_000_000),
        (b"sent 1.2.3K bytes  received 12 bytes  1.00 bytes/sec", 12),
        (b"sent a file of 3 bytes  received by 4 bytes  x", 0),
        (b"Total bytes sent: 97", 0),
    ],
)
def test_transferred_bytes_are_read_from_statistics(line: bytes, expected: int) -> None:
    assert transferred_bytes([b"Number of files: 1 (reg: 1)", line, b"total size is 3"]) == expected
    assert transferred_bytes([]) == 0


@pytest.mark.parametrize(
    ("line", "share"),
    [
        (b"         32,768   0%    0.00kB/s    0:00:00  ", 0),
        (b"     21,284,544  33%   19.51MB/s    0:00:02  ", 33),
        (b"     63,000,000 100%   20.07MB/s    0:00:02 (xfr#2, to-chk=0/3)", 100),
        (b"         63.00M  45%   20.07MB/s   10:00:02 (xfr#2, ir-chk=1000/3456)", 45),
        (b"d/a file 50%", None),
        (b"deleting 12,3 50%", None),
        (b"Number of files: 3", None),
    ],
)
def test_byte_percent(line: bytes, share: int | None) -> None:
    assert stdout.byte_percent(line) == share


@pytest.mark.parametrize(
    ("lines", "count"),
    [
        ([b"Number of regular files transferred: 1,234"], 1234),
        ([b"Number of files transferred: 12"], 12),
        ([b"Number of files: 3 (reg: 2, dir: 1)", b"Number of regular files transferred: 0"], 0),
        ([], 0),
    ],
)
def test_transferred_files(lines: list[bytes], count: int) -> None:
    assert stdout.transferred_files(lines) == count


@pytest.mark.parametrize(
    ("line", "pid"),
    [
        (b"client_run waiting on 4711", 4711),
        (b"client_run waiting on 4711 more", None),
        (b"a client_run waiting on 4711", None),
        (b"client_run waiting on", None),
        (b"client_run waiting on 12345678901234567890", None),
        (b"", None),
    ],
)
def test_process_that_rsync_waits_for_is_in_its_last_line(line: bytes, pid: int | None) -> None:
    assert waits_for(line) == pid


@pytest.mark.parametrize(
    ("line", "is_note"),
    [
        (b"[receiver] _exit_cleanup(code=11, file=receiver.c, line=657): entered", True),
        (b"[sender] _exit_cleanup(code=11, file=io.c, line=-1892): entered", True),
        (b"[sender] _exit_cleanup(code=0, file=main.c, line=1394): about to call exit(0)", True),
        (b"rsync error: error in file IO (code 11) at receiver.c(657) [receiver=3.5.0]", False),
        (b"rsync: [sender] write error: Broken pipe (32)", False),
        (b"", False),
    ],
)
def test_notes_about_the_exit_are_known(line: bytes, is_note: bool) -> None:
    assert is_exit_note(line) is is_note


@pytest.mark.parametrize(
    ("lines", "missing", "count"),
    [
        ([], 0, 0),
        ([b"Number of files: 3 (reg: 2, dir: 1)", b"Number of regular files transferred: 2"], 0, 0),
        ([b"Number of files: 3 (reg: 2, dir: 1)", b"Number of regular files transferred: 1"], 0, 1),
        ([b"Number of files: 3 (reg: 3)", b"Number of regular files transferred: 1"], 2, 0),
        (
            [b"Number of files: 1,204 (reg: 1,202, link: 2)", b"Number of regular files transferred: 2"],
            0,
            1200,
        ),
        ([b"Number of files: 1 (dir: 1)", b"Number of regular files transferred: 0"], 0, 0),
        ([b"Number of files: 3", b"Number of files transferred: 2"], 0, 0),  # rsync before 3.1
    ],
)
def test_equal_files(lines: list[bytes], missing: int, count: int) -> None:
    assert stdout.equal_files(lines, missing) == count
