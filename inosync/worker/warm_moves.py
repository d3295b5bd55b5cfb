"""What becomes of the warm rsyncs of a worker: which trees have one, and what follows from its state."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

YOUNG_SECONDS = 30.0
"""A connection that the node closes sooner, though nothing was wrong, was closed early."""
MAX_EARLY_CLOSES = 3
"""After so many connections in a row that are closed early, or refused, none is kept for a while."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The trees whose warm rsync is to be ended, and those that are to get one."""

    end: tuple[int, ...]
    start: tuple[int, ...]


def choose(trees: Iterable[int], started: Collection[int], most: int) -> Choice:
    """Keep an rsync for the first ``most`` of these trees; ``started`` are those that have one."""
    kept = tuple(itertools.islice(trees, most))
    return Choice(
        tuple(tree for tree in started if tree not in kept),
        tuple(tree for tree in kept if tree not in started),
    )


def by_use(trees: Iterable[int], used: Collection[int]) -> Iterator[int]:
    """Yield the trees in ``used``, in its order (the one used last comes first), then the others."""
    yield from (tree for tree in used if tree in trees)
    yield from (tree for tree in trees if tree not in used)


class Move(enum.Enum):
    """What is to be done about the warm rsync of one tree."""

    WAIT = "nothing"
    REACHED = "it has connected: report that the node answers"
    SLOW = "it takes long to connect: report that the node does not answer"
    RENEW = "it is too old: end it, and start another after a lull"
    REPLACE = "it has ended after a good life: start another at once"
    END = "it has ended, and that says nothing about the node"
    PAUSE = "the node has closed it early: start another after a pause"
    SUSPEND = "the node has closed too many early: keep none for a while"
    GIVE_UP = "the node is out of reach: report that, end all, and connect after a pause"


@dataclass(frozen=True, slots=True)
class Slot:
    """The warm rsync of one tree, just checked, and what the pool knows of the others."""

    is_idle: bool  # the worker has nothing else to do
    has_tree: bool = True  # if not, no failure is the fault of the node
    was_connected: bool = False  # before the check
    is_connected: bool = False  # after the check
    connected_for: float = 0.0  # seconds
    is_slow: bool = False
    is_old: bool = False
    lost: str = ""  # as in ``WarmRsync``, like ``is_broken``
    is_broken: bool = False
    others_connected: bool = False
    is_away: bool = False  # it was reported that the node does not answer
    is_counted: bool = False  # started before the last early close: one event ends the rsyncs of all trees
    early_closes: int = 0  # in a row, before this one


def decide(slot: Slot) -> Move:
    """What is to be done; ``tests/unit/worker/test_warm_pool.py`` has the cases as a table."""
    if not slot.lost:
        return _decide_alive(slot)
    if slot.was_connected:
        if slot.is_broken:
            return Move.GIVE_UP if slot.is_idle else Move.END
        if slot.connected_for >= YOUNG_SECONDS:
            return Move.REPLACE
    elif not slot.is_idle or not slot.has_tree:  # what the worker does tells more
        return Move.END
    elif not slot.others_connected and "max connections" not in slot.lost:
        return Move.GIVE_UP
    if slot.is_counted:
        return Move.END
    return Move.SUSPEND if slot.early_closes + 1 >= MAX_EARLY_CLOSES else Move.PAUSE


def _decide_alive(slot: Slot) -> Move:
    if slot.is_old:
        return Move.RENEW
    if slot.is_connected:
        return Move.WAIT if slot.was_connected else Move.REACHED
    return (
        Move.SLOW
        if slot.is_slow and slot.is_idle and not (slot.is_away or slot.others_connected)
        else Move.WAIT
    )
