"""The log lines about what a node's worker has reported."""

from __future__ import annotations

import logging

import pytest

from inosync.messages import Batch, Done
from inosync.nodes.node_log import note_done

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
            "n: 1 path held back: a directory was not what it had to be",
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
