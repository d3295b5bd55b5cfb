"""A ``Mirror`` of made up parts."""

from __future__ import annotations

from typing import Any

from inosync.master.mirror import Mirror


def mirror(**parts: Any) -> Mirror:
    """Those that are not given are None: they are not to be used."""
    names: Any = dict.fromkeys(Mirror.__slots__)
    return Mirror(**names | parts)
