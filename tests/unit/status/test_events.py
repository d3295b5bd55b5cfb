"""Which lines of the log are events of a node, and what is kept of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from inosync.nodes import node_log
from inosync.nodes.messages import Failed
from inosync.state.document import NodeEvent
from inosync.status import transitions
from inosync.status.events import MAX_EVENTS, MAX_TEXT_BYTES, NodeEvents
from inosync.system import log as logs
from inosync.text import NodeState

LOG = logging.getLogger("inosync.test")


@pytest.fixture
def events() -> Iterator[NodeEvents]:
    made, logger = NodeEvents({}), logging.getLogger("inosync")
    before = logger.level
    logger.addHandler(made)
    logger.setLevel(logging.INFO)
    yield made
    logger.removeHandler(made)
    logger.setLevel(before)


def texts(events: NodeEvents, name: str = "a") -> list[tuple[str, int]]:
    return [(event.text, event.count) for event in events.of(name)]


def fail(reason: str, attempt: int = 1, code: int = 12) -> None:
    node_log.note_failure("a", Failed(1, attempt, code, reason, 2.0, False))


def test_changes_of_state_and_failures_are_events(events: NodeEvents) -> None:
    transitions._log_change("a", None, NodeState.OK, 0.0, "", 0.0)
    fail("refused")
    transitions._log_change("a", NodeState.OK, NodeState.RETRYING, 3.25, "refused", 0.0)
    assert [(event.kind, event.text) for event in events.of("a")] == [
        ("state", "is ok"),
        ("failed", "refused (rsync's exit code 12)"),
        ("state", "is retrying after ok for 3.2 s: refused"),
    ]
    assert events.recorded == 3


def test_lines_that_are_no_news_of_a_node_are_no_events(events: NodeEvents) -> None:
    LOG.warning("something else")
    LOG.info("a: 3 paths in 0.1 s", extra=logs.about(event="batch", node="a"))
    assert events.of("a") == ()
    LOG.warning("a: 3 paths, but: denied", extra=logs.about(event="batch", node="a"))
    assert texts(events) == [("3 paths, but: denied", 1)]


def test_equal_failures_one_after_the_other_are_one_event(events: NodeEvents) -> None:
    for attempt in range(1, 6):
        fail("refused", attempt)
    fail("timed out")
    fail("refused")
    assert [count for _, count in texts(events)] == [5, 1, 1]
    for _ in range(2):
        transitions._log_change("a", None, NodeState.OK, 0.0, "", 0.0)
    assert [count for _, count in texts(events)] == [5, 1, 1, 1, 1]


def test_events_of_a_node_are_bounded_in_number_and_size(events: NodeEvents) -> None:
    for number in range(MAX_EVENTS + 5):
        fail(f"{number} " + "x" * 10_000)
    found = events.of("a")
    assert len(found) == MAX_EVENTS
    assert found[0].text.startswith("5 x")
    assert all(len(event.text) <= MAX_TEXT_BYTES for event in found)
    assert events.of("a", 2) == found[-2:]


def test_events_show_no_password(events: NodeEvents) -> None:
    fail("cannot reach rsync://user:secret@host/m")
    assert "secret" not in texts(events)[0][0]


def test_events_of_an_earlier_process_come_first() -> None:
    past = NodeEvent(5.0, "state", "is ok")
    events = NodeEvents({"a": (past,), "b": (past,)})
    assert events.of("a") == (past,)
    assert events.recorded == 0
    events.forget_all_but({"a"})
    assert events.of("b") == ()
    assert events.of("a") == (past,)
