"""Records: what is left of two when one may have been lost."""

from __future__ import annotations

import pytest

from inosync.fleet.records import NodeRecord, merged

TIDY = NodeRecord("e", 5, 5, tidy=True)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (None, None, None),
        (NodeRecord("old", 9, 9), None, None),
        (NodeRecord("old", 9, 9), NodeRecord("e", 1, 2), NodeRecord("e", 1, 2)),
        (NodeRecord("e", 5, 7), None, NodeRecord("e", 5, 7)),
        (NodeRecord("e", 5, 7), NodeRecord("e", 3, 9), NodeRecord("e", 5, 9)),
        (NodeRecord("e", None, 7), NodeRecord("e", 3, 3), NodeRecord("e", 3, 7)),
        (NodeRecord("e", None, 7), NodeRecord("e", None, 3), NodeRecord("e", None, 7)),
        (TIDY, TIDY, TIDY),
        (TIDY, None, NodeRecord("e", 5, 5)),
        (TIDY, NodeRecord("e", 5, 6), NodeRecord("e", 5, 6)),
    ],
)
def test_record_keeps_what_was_ever_true(
    a: NodeRecord | None, b: NodeRecord | None, expected: NodeRecord | None
) -> None:
    assert merged(a, b, "e") == expected
    assert merged(b, a, "e") == expected
