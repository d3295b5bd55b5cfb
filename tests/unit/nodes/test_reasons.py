"""Why a node does not have everything, as people read it."""

from __future__ import annotations

import pytest

from inosync.changes import Change, Kind, Lane
from inosync.nodes import reasons
from inosync.nodes.messages import Batch
from inosync.nodes.outstanding import Outstanding
from inosync.nodes.retries import RetrySet


def retries(failed: bool = False, behind: int = 0) -> RetrySet:
    found = RetrySet((1.0, 2.0))
    if failed:
        found.settle([Change(1, b"failed", Kind.NAME)], (), 0.0, 0.0, 0.0)
    found.add_behind([Change(1, b"link%d" % number, Kind.NAME) for number in range(behind)], 0.0, 0.0)
    return found


@pytest.mark.parametrize(
    ("problem", "failed", "behind", "reason"),
    [
        ("", False, 0, ""),
        ("", False, 1, ""),
        ("no room", True, 0, "no room"),
        ("", True, 0, "some names could not be transferred"),
        ("no room", True, 1, "no room; 1 name waits for that, such as link0"),
        ("no room", True, 2, "no room; 2 names wait for that, such as link0"),
    ],
)
def test_degraded_node_says_what_failed_and_what_waits_for_it(
    problem: str, failed: bool, behind: int, reason: str
) -> None:
    assert reasons.degraded(problem, retries(failed, behind)) == reason


@pytest.mark.parametrize(
    ("count", "percent", "behind", "reason"),
    [
        (1, None, 0, "1 big file"),
        (2, 45, 0, "2 big files, 45%"),
        (1, 0, 1, "1 big file, 0%; 1 name waits for that, such as link0"),
    ],
)
def test_big_files_under_way_say_how_far_they_are(
    count: int, percent: int | None, behind: int, reason: str
) -> None:
    second = Outstanding(Batch(1, count, False, lane=Lane.SECOND), 0, 0.0, 0.0, percent)
    assert reasons.big_files(second, retries(behind=behind)) == reason
    assert reasons.big_files(None, retries(behind=behind)) == ""
