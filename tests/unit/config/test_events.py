"""The events of ``emask``."""

from __future__ import annotations

import pytest

from inosync.config.errors import Invalid
from inosync.config.events import BY_READING, DEFAULT_EVENTS, events


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (list(DEFAULT_EVENTS), set(DEFAULT_EVENTS)),
        ({"IN_CREATE"}, {"IN_CREATE"}),
        (("IN_MOVE", "IN_CREATE"), {"IN_MOVED_FROM", "IN_MOVED_TO", "IN_CREATE"}),
        (["IN_CLOSE"], {"IN_CLOSE_WRITE", "IN_CLOSE_NOWRITE"}),
    ],
)
def test_events_resolve_names_for_several(value: object, expected: set[str]) -> None:
    assert events(value) == expected


def test_events_of_reading_alone_are_refused() -> None:
    with pytest.raises(Invalid) as caught:
        events(sorted(BY_READING))
    assert "IN_CLOSE_WRITE" in caught.value.problems[0].hint


def test_unknown_event_gets_the_one_that_is_most_like_it() -> None:
    with pytest.raises(Invalid) as caught:
        events(["in_creat", "IN_CREATE", "nonsense"])
    first, second = caught.value.problems
    assert first.hint == "did you mean IN_CREATE?"
    assert second.hint.startswith("write one of IN_ACCESS ")
