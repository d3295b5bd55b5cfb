"""The line of rsync's standard error that is shown to the operator."""

from __future__ import annotations

import pytest

from inosync.rsync.stderr import failure_reason, reason

SKIPPING = b"*** Skipping any contents from this failed directory ***"
ROOT_TIMES = b'rsync: [generator] failed to set times on "/dst/.": Operation not permitted (1)'
TRAILER = (
    b"rsync error: some files/attrs were not transferred (see previous errors) (code 23) at main.c(1394)"
)


CLOSED = b"rsync: connection unexpectedly closed (0 bytes received so far) [sender]"


UNEXPLAINED = b"rsync error: unexplained error (code 255) at io.c(232) [sender=3.5.0]"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], ""),
        ([b"", b"Warning: Permanently added 'h' (ED25519) to the list of known hosts."], ""),
        (
            [b"ssh: connect to host x port 22: Connection refused\r", CLOSED, UNEXPLAINED],
            "ssh: connect to host x port 22: Connection refused",
        ),
        (
            [
                b"@ERROR: auth failed on module www",
                b"rsync error: error starting client-server protocol (code 5) at main.c(1954)",
            ],
            "@ERROR: auth failed on module www",
        ),
        (
            [
                b"rsync: [sender] failed to connect to h (1.2.3.4): Connection refused (111)",
                b"rsync error: error in socket IO (code 10) at clientserver.c(143)",
            ],
            "failed to connect to h (1.2.3.4): Connection refused (111)",
        ),
        (
            [
                b"@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\r",
                b"Host key for h has changed and you have requested strict checking.\r",
                b"Host key verification failed.\r",
                CLOSED,
                UNEXPLAINED,
            ],
            "Host key for h has changed and you have requested strict checking.",
        ),
        ([b"Host key verification failed.\r", UNEXPLAINED], "Host key verification failed."),
        ([CLOSED, UNEXPLAINED], "connection unexpectedly closed (0 bytes received so far) [sender]"),
        ([UNEXPLAINED], "unexplained error"),
        (
            [
                b"rsync error: errors selecting input/output files, dirs (code 3) at flist.c(2791)",
                b"rsync error: received SIGUSR1 (code 19) at main.c(1660)",
            ],
            "errors selecting input/output files, dirs",
        ),
        (
            [
                b"protocol version mismatch -- is your shell clean?",
                b"(see the rsync manpage for an explanation)",
            ],
            "protocol version mismatch -- is your shell clean?",
        ),
        ([ROOT_TIMES, SKIPPING, TRAILER], 'failed to set times on "/dst/.": Operation not permitted (1)'),
        ([b"a\x1b[31m\\#012\xff\\#303\\#251"], "a\\x1b[31m\\n\\xffé"),
        ([b"x" * 300], "x" * 197 + "..."),
    ],
)
def test_reason_is_the_last_line_that_says_why(lines: list[bytes], expected: str) -> None:
    assert reason(lines) == expected


VANISHED = b'file has vanished: "/src/b"'


@pytest.mark.parametrize(
    ("code", "lines", "expected"),
    [
        (23, [VANISHED, TRAILER], 'file has vanished: "/src/b"'),
        (12, [], "connection broke off (exit 12)"),
        (-9, [], "killed by SIGKILL"),
        # What a child of rsync says when rsync is gone, and what rsync has said long before.
        (-9, [CLOSED, UNEXPLAINED], "killed by SIGKILL"),
        (-9, [VANISHED, CLOSED], 'killed by SIGKILL; it said: file has vanished: "/src/b"'),
        (-6, [b"free(): invalid pointer"], "killed by SIGABRT; it said: free(): invalid pointer"),
    ],
)
def test_failure_reason_of_a_killed_rsync_is_the_signal(code: int, lines: list[bytes], expected: str) -> None:
    assert failure_reason(code, lines) == expected
