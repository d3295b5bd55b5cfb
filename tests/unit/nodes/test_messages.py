"""The messages between the master and its workers."""

from __future__ import annotations

import dataclasses

import pytest

from inosync.changes import Part
from inosync.nodes import messages
from inosync.nodes.messages import Leftovers, Order, Report


def test_leftovers_of_each_kind_are_among_all() -> None:
    kinds = [field.name for field in dataclasses.fields(Leftovers)]
    left = Leftovers(**{kind: (Part(number, True),) for number, kind in enumerate(kinds)})
    assert left.all() == tuple((Part(number, True),) for number in range(len(kinds)))


@pytest.mark.parametrize("kind", [*Order.__args__, *Report.__args__], ids=lambda kind: kind.__name__)
def test_message_cannot_be_changed_on_its_way(kind: type) -> None:
    assert getattr(messages, kind.__name__) is kind
    assert dataclasses.is_dataclass(kind)
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
