"""What a worker has to know, fixed for its life."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from inosync.config.hook import Hook, Place
from inosync.config.timetable import Timetable
from inosync.filters.rules import Excluded, Rules
from inosync.rsync.argv import TransferSettings


@dataclass(frozen=True, slots=True)
class Job:
    """The mappings are by the number of the tree."""

    name: str
    """The node's name, in titles, logs and commands."""
    node: str
    """As written in ``rnodes``."""
    trees: Mapping[int, TransferSettings]
    rules: Mapping[int, Rules]
    rspeed: Timetable
    excluded: Mapping[int, Excluded]
    """What no node is sent. A root with nothing else in it counts as empty."""
    timeout: float
    """Seconds without progress after which a transfer is ended."""
    retry: tuple[float, float]
    """First and longest pause after a failure, in seconds."""
    warm: int
    """The most rsyncs that are kept connected."""
    spool: str
    """The directory for what is too long for a message."""
    places: Mapping[int, Place] = field(default_factory=dict)
    """The trees as the operator knows them, for hooks."""
    on_sync: Hook | None = None
    on_state: Hook | None = None
    hooks_lost: bool = False
    """Whether an earlier worker may have ended before it ran a hook."""
    wall: Callable[[], float] = time.time
    """The time since the epoch, in seconds."""
