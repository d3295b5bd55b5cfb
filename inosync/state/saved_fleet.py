"""What the origin of a fleet keeps over a restart, and how it stands in the document of the state. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from inosync.fleet.records import NodeRecord
from inosync.fleet.recovery import MAX_POSITION


@dataclass(frozen=True, slots=True)
class SavedFleet:
    """How far the fleet is, so that its epoch goes on. Times since the epoch."""

    config: str
    """The fingerprint of what all machines have in common."""
    epoch: str
    reserved: int
    """No position beyond this one was given."""
    floor: int
    """All that was changed before ``time`` was recorded at this position of the journal, or before it."""
    time: float
    unclosed: tuple[tuple[str, bytes], ...] = ()
    """Files, by wpath and path, that were changed before ``time``, and are recorded once they are closed."""
    copies: Mapping[str, str] = field(default_factory=dict)
    """By sender: the copy that a full mirror was ordered of."""
    nodes: Mapping[str, NodeRecord] = field(default_factory=dict)
    """How far the nodes of senders were, by name."""


def plain(fleet: SavedFleet) -> dict[str, Any]:
    """Return it in values that JSON has."""
    return {
        "config": fleet.config,
        "epoch": fleet.epoch,
        "reserved": fleet.reserved,
        "floor": fleet.floor,
        "time": fleet.time,
        "unclosed": [[wpath, path.decode("utf-8", "surrogateescape")] for wpath, path in fleet.unclosed],
        "copies": dict(fleet.copies),
        "nodes": {name: [record.cursor, record.upto] for name, record in fleet.nodes.items()},
    }


def read(found: Mapping[str, Any]) -> SavedFleet:
    """Return what ``plain`` has made these values of; ValueError, TypeError or KeyError if it has not."""
    epoch = _text(found["epoch"])
    if type(found["time"]) not in (int, float):
        raise TypeError
    return SavedFleet(
        _text(found["config"]),
        epoch,
        _position(found["reserved"]),
        _position(found["floor"]),
        float(found["time"]),
        tuple((_text(wpath), _path(path)) for wpath, path in found["unclosed"]),
        {_text(name): _text(copy) for name, copy in found["copies"].items()},
        {
            name: NodeRecord(epoch, None if cursor is None else _position(cursor), _position(upto))
            for name, (cursor, upto) in found["nodes"].items()
        },
    )


def _position(value: object) -> int:
    if type(value) is not int or not 0 <= value <= MAX_POSITION:
        raise ValueError
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _path(value: object) -> bytes:
    return _text(value).encode("utf-8", "surrogateescape")
