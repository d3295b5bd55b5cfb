"""The faults: kinds, chosen at random, that are over at once or last until they are healed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from chaos.testbed import Testbed

T = TypeVar("T")


class Impossible(Exception):
    """The fault cannot happen to anything at the moment."""


def free(testbed: Testbed, resource: str) -> str:
    """Return the name of a resource, or raise Impossible if another fault uses it."""
    if resource in testbed.busy:
        raise Impossible(f"{resource} has a fault already")
    return resource


@dataclass(frozen=True)
class Draw:
    """The random numbers of one fault, drawn at once: the next fault does not depend on its outcome."""

    kind: float
    which: float
    """Chooses the node or process."""
    how: float
    """Chooses between similar ways."""
    seconds: float
    """How long a lasting fault lasts."""
    pause: float
    """Seconds until the next fault."""

    def among(self, candidates: list[T]) -> T:
        """Choose the node or process."""
        if not candidates:
            raise Impossible("nobody there")
        return candidates[int(self.which * len(candidates))]

    def one_of(self, ways: list[T]) -> T:
        """Choose the way."""
        return ways[int(self.how * len(ways))]


def draw(chances: random.Random, longest: float, pause: float) -> Draw:
    """Draw a fault of up to ``longest`` seconds; ``pause`` is the mean number of seconds between two."""
    numbers = [chances.random() for _ in range(5)]
    return Draw(
        numbers[0],
        numbers[1],
        numbers[2],
        longest * (0.1 + 0.9 * numbers[3] ** 2),
        # Some faults follow at once.
        0.0 if numbers[4] < 0.2 else pause * numbers[4] * 1.8,
    )


@dataclass(frozen=True)
class Lasting:
    """A fault that lasts until it is healed."""

    resource: str
    """The name of what it uses; two faults never use the same at a time."""
    heal: Callable[[], None]
    nodes: frozenset[str] = field(default_factory=frozenset)
    """The nodes that cannot become level meanwhile."""
    description: str = ""


@dataclass(frozen=True)
class Once:
    """A fault that is over at once."""

    nodes: frozenset[str]
    """The nodes that it may have delayed."""
    description: str = ""


Happened = Lasting | Once


@dataclass(frozen=True)
class Kind:
    """One kind of fault, and its frequency relative to others."""

    name: str
    weight: int
    begin: Callable[[Testbed, Draw], Happened]
    """Begins it; raises Impossible, or AssertionError if the daemon is wrong."""
    compares: bool = False
    """Whether a full mirror follows, which would also repair earlier losses."""
