"""The log lines about what a node's worker has reported."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from inosync.messages import Batch, Done
from inosync.nodes.node_log import BATCH_LOG_SECONDS, BatchLog

NODE = "inosync.nodes.node_log"


def note(log: BatchLog, now: float, paths: int = 1, full: bool = False, reason: str = "") -> None:
    log.note("n", Batch(1, paths, full), replace(Done(1, paths, 0.25, bytes=70), reason=reason), now)


def test_batches_far_apart_have_a_line_each(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, NODE)
    log = BatchLog()
    for number in range(3):
        note(log, 100.0 + number * BATCH_LOG_SECONDS)
    assert caplog.messages == ["n: 1 path in 0.25 s, 70 bytes"] * 3


def test_batches_close_together_are_counted_in_the_next_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, NODE)
    log = BatchLog()
    for number in range(1, 1001):
        note(log, 100.0 + number / 100, paths=2)
    note(log, 200.0, paths=3)
    assert caplog.messages == [
        "n: 2 paths in 0.25 s, 70 bytes",
        "n: 3 paths in 0.25 s, 70 bytes; before it 1998 paths in 999 batches",
    ]
    assert caplog.records[-1].__dict__["facts"]["batches_before"] == 999
    note(log, 300.0)
    assert caplog.messages[-1] == "n: 1 path in 0.25 s, 70 bytes"


def test_complaints_and_full_mirrors_have_a_line_at_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, NODE)
    log = BatchLog()
    note(log, 100.0)
    note(log, 100.1)
    note(log, 100.2, reason="no room")
    note(log, 100.3, full=True)
    assert caplog.messages[1:] == [
        "n: 1 path in 0.25 s, 70 bytes; before it 1 path in 1 batch, but: no room",
        "n: full mirror in 0.25 s, 70 bytes",
    ]


def test_each_batch_has_a_line_at_the_level_of_debugging(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, NODE)
    log = BatchLog()
    for number in range(5):
        note(log, 100.0 + number / 100)
    assert caplog.messages == ["n: 1 path in 0.25 s, 70 bytes"] * 5
