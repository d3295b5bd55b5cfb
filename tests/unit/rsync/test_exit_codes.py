"""What exit codes of rsync mean."""

from __future__ import annotations

import signal

import pytest

from inosync.rsync.exit_codes import NO_CONNECTION, ExitKind, actual_code, describe, exit_kind


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([0], ExitKind.OK),
        ([23, 24, 25], ExitKind.PARTIAL),
        ([1, 2, 3, 4], ExitKind.SLOW),
        ([5, 6, 10, 11, 12, 13, 14, 19, 20, 21, 22, 30, 35, 126, 127, 255], ExitKind.RETRY),
        ([-1, -2, -9, -11, -15, 7, 99, 200], ExitKind.RETRY),
    ],
)
def test_exit_codes_have_their_kinds(codes: list[int], expected: ExitKind) -> None:
    assert {exit_kind(code) for code in codes} == {expected}


def test_exit_codes_without_a_connection_are_tried_again_soon() -> None:
    assert {exit_kind(code) for code in NO_CONNECTION} == {ExitKind.RETRY}
    assert {5, 255} <= NO_CONNECTION  # no room in the daemon, and none in sshd
    assert not NO_CONNECTION & {0, 11, 23, 24, 25, 30}


def test_exit_codes_have_descriptions_and_signals_have_names() -> None:
    assert describe(-signal.SIGKILL) == "killed by SIGKILL"
    assert describe(-40) == "killed by signal 40"
    assert describe(255) == "connection failed (exit 255)"
    assert describe(77) == "rsync failed (exit 77)"


@pytest.mark.parametrize(
    ("code", "said", "expected"),
    [
        (0, [], 0),
        (0, [b"Deletions stopped due to --max-delete limit (2 skipped)"], 25),
        (12, [b"Deletions stopped due to --max-delete limit (2 skipped)"], 12),
        (0, [b"file has vanished: Deletions stopped due to --max-delete limit"], 0),
    ],
)
def test_actual_code_hears_of_stopped_deletions(code: int, said: list[bytes], expected: int) -> None:
    assert actual_code(code, said) == expected
