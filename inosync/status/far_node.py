"""A node of a fleet that another machine serves. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

UNKNOWN = -1
"""The cursor of a node that nothing is known of."""


@dataclass(frozen=True, slots=True)
class FarNode:
    """What the origin knows of it, at one moment."""

    name: str
    cursor: int
    """The position up to which it has everything; UNKNOWN if that is not known."""
    description: Mapping[str, Any]
    """As in ``status --json``."""
    paused: bool = False
    is_owed: bool = False
    """Whether it is still to be compared in full, as an operator has ordered."""
