"""What the origin of a fleet keeps: it survives as it is, and nothing else is taken for it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inosync.fleet.records import NodeRecord
from inosync.fleet.recovery import MAX_POSITION
from inosync.state import saved_fleet
from inosync.state.saved_fleet import SavedFleet

FLEET = SavedFleet(
    "config",
    "epoch",
    MAX_POSITION,
    3,
    5.25,
    (("/w", b"a\xff\n"), ("/w", b"b")),
    {"eu": "copy"},
    {"n": NodeRecord("epoch", 4, 9), "unknown": NodeRecord("epoch", None, 0)},
)


def values() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(saved_fleet.plain(FLEET)))
    return found


def test_fleet_survives_as_it_is() -> None:
    assert saved_fleet.read(values()) == FLEET


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("epoch",), 5),
        (("config",), None),
        (("reserved",), MAX_POSITION + 1),
        (("reserved",), True),
        (("floor",), -1),
        (("floor",), 1.5),
        (("time",), "soon"),
        (("time",), True),
        (("unclosed", 0), ["/w"]),
        (("unclosed", 0, 1), 5),
        (("copies", "eu"), 7),
        (("nodes", "n"), [1]),
        (("nodes", "n", 0), "1"),
        (("nodes", "n", 1), None),
    ],
)
def test_value_that_is_wrong_is_refused(place: tuple[Any, ...], value: object) -> None:
    found = values()
    inner: Any = found
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with pytest.raises((ValueError, TypeError)):
        saved_fleet.read(found)


@pytest.mark.parametrize("key", list(values()))
def test_value_that_is_missing_is_noticed(key: str) -> None:
    found = values()
    del found[key]
    with pytest.raises(KeyError):
        saved_fleet.read(found)
