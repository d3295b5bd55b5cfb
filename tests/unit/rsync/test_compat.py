"""What an rsync says that is too old or broken. The lines are those of real ones (see the module)."""

from __future__ import annotations

import pytest

from inosync.rsync import compat, stderr

OURS = b"rsync error: error in rsync protocol data stream (code 12) at io.c(285) [sender=3.5.0]"
CLOSED = b"rsync: connection unexpectedly closed (0 bytes received so far) [sender]"
UNKNOWN = [
    b"rsync: on remote machine: --delete-missing-args: unknown option",
    b"rsync error: syntax or usage error (code 1) at main.c(1528) [server=3.0.9]",
    CLOSED,
    OURS,
]
BROKEN = [
    b"invalid file mode 00 for d/gone [Receiver]",
    b"rsync error: protocol incompatibility (code 2) at flist.c(874) [Receiver=3.4.3]",
]
HERE = [
    b"rsync: --delete-missing-args: unknown option",
    b"rsync error: syntax or usage error (code 1) at main.c(1528) [client=3.0.9]",
]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (UNKNOWN, "the node's rsync 3.0.9 does not know --delete-missing-args: a newer one is needed"),
        (BROKEN, "the node's rsync 3.4.3 is broken in --delete-missing-args: another one is needed"),
        (
            HERE,
            "rsync 3.0.9 does not know --delete-missing-args: "
            "if it is spelt right in extra, a newer one is needed",
        ),
        (
            [b"rsync: on remote machine: --log-file=/x: unknown option", CLOSED, b"rsync error: odd"],
            "the node's rsync does not know --log-file: a newer one is needed",
        ),
        ([b"invalid file mode 0170000 for x [receiver]"], ""),
        ([CLOSED, OURS], ""),
        ([], ""),
    ],
)
def test_reason_names_whose_rsync_it_is_and_what_is_needed(lines: list[bytes], expected: str) -> None:
    assert compat.reason(lines) == expected
    if expected:
        assert stderr.reason(line + b"\r\n" for line in lines) == expected


@pytest.mark.parametrize(
    ("lines", "refuses"),
    [
        (UNKNOWN, True),
        (BROKEN, True),
        (HERE, True),
        ([b"rsync: on remote machine: --mkpath: unknown option"], False),
        # What a stranger may call a file.
        ([b'rsync: [sender] link_stat "/src/invalid file mode 00 for x [x]" failed: Odd (5)'], False),
        ([CLOSED, OURS], False),
    ],
)
def test_refuses_missing_recognises_old_and_broken_rsyncs(lines: list[bytes], refuses: bool) -> None:
    assert compat.refuses_missing(lines) is refuses
