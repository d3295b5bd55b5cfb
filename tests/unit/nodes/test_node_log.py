"""The log lines about what a node's worker has reported."""

from __future__ import annotations

import logging

import pytest

from inosync.changes import Part
from inosync.nodes import node_log
from inosync.nodes.lifecycle import LOGGED_DEATHS, Phase, WorkerState
from inosync.nodes.messages import Batch, Done
from inosync.nodes.node_log import MAX_LISTED_PATHS, note_done
from inosync.nodes.outstanding import Outstanding
from inosync.system import spool

NODE = "inosync.nodes.node_log"


@pytest.mark.parametrize(
    ("batch", "done", "expected", "is_detail"),
    [
        (Batch(1, 2, False), Done(1, 0.25, bytes=70), "n: 2 paths in 0.25 s, 70 bytes", True),
        (Batch(1, 0, True), Done(1, 0.25, bytes=70), "n: full mirror in 0.25 s, 70 bytes", False),
        (
            Batch(1, 1, False),
            Done(1, 0.25, code=23, reason="no room"),
            "n: 1 path in 0.25 s, 0 bytes, but: no room",
            False,
        ),
        (
            Batch(1, 1, False),
            Done(1, 0.25, held=(1,)),
            "n: 1 path held back by the guard",
            False,
        ),
        (
            Batch(1, 1, False),
            Done(1, 0.25, renamed_bytes=9),
            "n: 1 path in 0.25 s, 0 bytes; 9 more were there under another name",
            False,
        ),
    ],
)
def test_only_a_plain_batch_is_a_detail(
    caplog: pytest.LogCaptureFixture, batch: Batch, done: Done, expected: str, is_detail: bool
) -> None:
    caplog.set_level(logging.INFO, NODE)
    note_done("n", batch, done)
    [record] = caplog.records
    assert record.getMessage() == expected
    assert record.__dict__["is_detail"] is is_detail


@pytest.mark.parametrize(
    ("before", "state", "line"),
    [
        (
            Phase.KILLED,
            WorkerState(wake_at=9.0, deaths=1, reason="worker ended"),
            "n: its worker is gone (pid 7)",
        ),
        (
            Phase.BUSY,
            WorkerState(wake_at=9.0, deaths=1, reason="worker ended"),
            "n: worker ended (pid 7); the next one starts in 2.0 s",
        ),
        (
            Phase.BUSY,
            WorkerState(wake_at=9.0, deaths=2, reason="worker ended"),
            "n: worker ended (pid 7), 2 times in a row; the next one starts in 2.0 s",
        ),
        (Phase.BUSY, WorkerState(wake_at=9.0, deaths=LOGGED_DEATHS + 1), ""),
        (Phase.STOPPING, WorkerState(phase=Phase.STOPPED), ""),
    ],
)
def test_end_of_a_worker_is_logged_unless_it_was_wanted(
    before: Phase, state: WorkerState, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    node_log.note_death("n", before, state, " (pid 7)", 7.0)
    assert caplog.messages == ([line] if line else [])


def test_paths_of_a_batch_are_listed_only_for_debugging(caplog: pytest.LogCaptureFixture) -> None:
    parts = (Part(1, False, tuple(b"%03d" % number for number in range(MAX_LISTED_PATHS + 2))), Part(2, True))
    sent = Outstanding(Batch(1, 1, False, spool.pack(parts, "")[0]), 0, 0.0, 0.0)
    caplog.set_level(logging.INFO)
    node_log.list_paths("n", sent, (1, 2))
    assert caplog.messages == []
    caplog.set_level(logging.DEBUG)
    node_log.list_paths("n", sent, (2,))
    node_log.list_paths("n", sent, (1, 2))
    assert caplog.messages[0] == "n: sent: all"
    assert caplog.messages[1].startswith("n: sent: 000, 001, ")
    assert caplog.messages[1].endswith(", 099 and 3 more")
