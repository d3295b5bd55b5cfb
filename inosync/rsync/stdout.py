"""What rsync prints on standard output during and after a transfer: its progress, and bytes transferred."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

# Compiled here, in the master, because a forked process would pay for it in memory that is not shared.
_TO_CHECK = re.compile(rb"to-chk=(\d+)/(\d+)\)\s*$")
SKIPPED = b'skipping non-regular file "'
"""How the line about a link begins that a run without links leaves out. There may be very many."""
_TRANSFERRED = re.compile(rb"sent ([\d.,]+)([KMGTP]?) bytes  received ([\d.,]+)([KMGTP]?) bytes ")
_TOTAL = re.compile(rb"Total file size: ([\d.,]+)([KMGTP]?) bytes")
_LITERAL = re.compile(rb"Literal data: ([\d.,]+)([KMGTP]?) bytes")
_BYTES = re.compile(rb"\s*[\d.,]+[KMGTP]?\s+(\d+)%\s+[\d.,]+[kMGT]?B/s\s+\d+:\d\d:\d\d\s*(?:\(xfr#.*\))?\s*")
_FILES = re.compile(rb"Number of (?:regular )?files transferred: ([\d.,]+)")
_LISTED = re.compile(rb"Number of files: [\d.,]+[KMGTP]? \(reg: ([\d.,]+)")
_NO_DIGIT = re.compile(rb"\D")
_UNITS = b" KMGTP"
_EXIT_NOTE = re.compile(rb"\[\w+\] _exit_cleanup\(code=-?\d+, file=[\w./-]+, line=-?\d+\): ")
_THROUGH = re.compile(rb"client_run waiting on (\d{1,9})")


def transferred_bytes(lines: Iterable[bytes]) -> int:
    """Return the bytes sent and received that --stats reports, 0 without a report; -h in ``extra`` rounds."""
    for line in lines:
        if found := _TRANSFERRED.match(line):
            sent, sent_unit, received, received_unit = found.groups()
            return _bytes(sent, sent_unit) + _bytes(received, received_unit)
    return 0


def unsent_bytes(lines: Iterable[bytes]) -> int:
    """Return the size of all files that were looked at, less what was sent of them; 0 without a report."""
    total, literal = 0, 0
    for line in lines:
        if found := _TOTAL.match(line):
            total = _bytes(found[1], found[2])
        elif found := _LITERAL.match(line):
            literal = _bytes(found[1], found[2])
    return max(total - literal, 0)


def transferred_files(lines: Iterable[bytes]) -> int:
    """Return the number of files transferred that --stats reports, 0 without a report."""
    return _count(_FILES, lines)


def equal_files(lines: Sequence[bytes], missing: int) -> int:
    """Return how many of the regular files that were listed rsync took for equal, 0 without a report.

    ``missing``: how many names were given that are not there. They count as regular files in the report
    (output_itemized_counts in main.c takes what is nothing else for that).
    """
    return max(_count(_LISTED, lines) - missing - transferred_files(lines), 0)


def _count(pattern: re.Pattern[bytes], lines: Iterable[bytes]) -> int:
    found = next((found for line in lines if (found := pattern.match(line))), None)
    return int(_NO_DIGIT.sub(b"", found[1])) if found else 0


def _bytes(number: bytes, unit: bytes) -> int:
    if not unit:
        return int(_NO_DIGIT.sub(b"", number))
    try:
        return int(float(number.replace(b",", b".")) * 1000 ** _UNITS.index(unit))
    except ValueError:
        return 0


def waits_for(line: bytes) -> int | None:
    """Return the process that rsync waits for when the other side has done everything; None for other lines.

    With ``argv.SAYS_END`` it says so. It has had the last word of the receiver then, which that says when all
    files have their names, and all errors were reported (client_run and do_recv in main.c). What is left is
    that it looks each 20 ms whether that process has ended, which looks each 20 ms whether its child has.
    """
    found = _THROUGH.fullmatch(line)
    return int(found[1]) if found else None


def is_exit_note(line: bytes) -> bool:
    """Whether this is one of the other lines of ``argv.SAYS_END``, which say nothing.

    After a failure they are on standard error: the receiver of a local path is a child that has the option.
    """
    return _EXIT_NOTE.match(line) is not None


def percent(line: bytes) -> int | None:
    """Return the share of entries checked, 0 to 100, from a line of --info=progress2; None for other lines.

    Lines with ``ir-chk`` have none: the sender is still listing, a thousand entries ahead, and the share of
    those would be near 100 from the start. rsync's own percentage counts bytes, which says nothing while it
    compares.
    """
    found = _TO_CHECK.search(line)
    if not found:
        return None
    left, total = int(found[1]), int(found[2])
    return 100 * (total - left) // total if total else 100


def byte_percent(line: bytes) -> int | None:
    """Return the share of bytes, 0 to 100, from a line of --info=progress2; None for other lines."""
    found = _BYTES.fullmatch(line)
    return min(int(found[1]), 100) if found else None
