"""What an rsync prints, as it comes in pieces."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from inosync.rsync.output import RsyncOutput

EXIT_NOTE = b"[sender] _exit_cleanup(code=0, file=main.c, line=1): entered"
WAITS = b"client_run waiting on 9"


def output(says_end: bool = False, own: Sequence[int] = ()) -> RsyncOutput:
    return RsyncOutput(says_end, lambda pids: not set(own).isdisjoint(pids))


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ([b"one\ntwo\n", b""], [b"one", b"two"]),
        ([b"o", b"ne\ntw", b"o", b""], [b"one", b"two"]),
        ([b"one\r\n", b"\n  \ntwo\n"], [b"one", b"two"]),
        ([b"no end"], []),
        ([b"x" * 70_000, b"\n"], [b"x" * 65_536]),
    ],
)
def test_lines_are_put_together_from_pieces(pieces: list[bytes], lines: list[bytes]) -> None:
    found = output()
    for piece in pieces:
        found.add_stdout(piece)
        found.add_stderr(piece)
    assert (found.stdout, found.stderr) == (lines, lines)
    assert found.stderr_bytes == sum(map(len, pieces))


def test_progress_is_no_line() -> None:
    found = output()
    found.add_stdout(b"file\r      1,024  50%    1.00kB/s    0:00:01\r")
    found.add_stdout(b"      2,048 100%    1.00kB/s    0:00:01 (xfr#1, ")
    found.add_stdout(b"to-chk=1/4)\n")
    assert (found.percent, found.byte_percent, found.stdout) == (75, 100, [b"file"])


def test_last_lines_are_kept_of_too_many() -> None:
    found = output()
    found.add_stderr(b"".join(b"%d\n" % number for number in range(2_001)))
    assert (found.is_truncated, len(found.stderr), found.stderr[-1]) == (True, 1_000, b"2000")


def test_listener_gets_the_lines_instead() -> None:
    heard: list[bytes] = []
    found = RsyncOutput(False, lambda _pids: False, heard.extend)
    found.add_stdout(b"one\ntwo\n")
    assert (heard, found.stdout) == ([b"one", b"two"], [])


@pytest.mark.parametrize(
    ("own", "says_end", "has_said"), [([9], True, True), ([8], True, False), ([9], False, False)]
)
def test_end_counts_if_rsync_waits_for_a_process_of_its_own(
    own: Sequence[int], says_end: bool, has_said: bool
) -> None:
    found = output(says_end, own)
    found.add_stdout(WAITS + b"\n")
    assert found.has_said_end is has_said


@pytest.mark.parametrize("says_end", [True, False])
def test_notes_about_the_exit_say_nothing_where_they_were_asked_for(says_end: bool) -> None:
    found = output(says_end)
    found.add_stderr(EXIT_NOTE + b"\n")
    assert found.stderr == ([] if says_end else [EXIT_NOTE])
