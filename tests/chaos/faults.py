"""What a fault is: a kind, chosen at random, that is over at once or lasts until it is healed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from chaos.testbed import World

T = TypeVar("T")


class Impossible(Exception):
    """There is nothing at the moment that this could happen to."""


def free(world: World, resource: str) -> str:
    """Return the name of what a fault uses, if no other one does; else that is Impossible."""
    if resource in world.busy:
        raise Impossible(f"{resource} has a fault already")
    return resource


@dataclass(frozen=True)
class Draw:
    """The chances of one fault, all drawn at once: the next one does not depend on what became of it."""

    kind: float
    which: float
    """To whom it happens."""
    how: float
    """Between what is much the same."""
    seconds: float
    """How long it lasts, if it does."""
    pause: float
    """Seconds until the next one."""

    def among(self, candidates: list[T]) -> T:
        """Choose to whom it happens."""
        if not candidates:
            raise Impossible("nobody there")
        return candidates[int(self.which * len(candidates))]

    def one_of(self, ways: list[T]) -> T:
        """Choose how it happens."""
        return ways[int(self.how * len(ways))]


def draw(chances: random.Random, longest: float, pause: float) -> Draw:
    """The next fault, that lasts up to ``longest`` seconds; ``pause``: the mean of those between two."""
    numbers = [chances.random() for _ in range(5)]
    return Draw(
        numbers[0],
        numbers[1],
        numbers[2],
        longest * (0.1 + 0.9 * numbers[3] ** 2),
        # Some follow each other at once.
        0.0 if numbers[4] < 0.2 else pause * numbers[4] * 1.8,
    )


@dataclass(frozen=True)
class Lasting:
    """A fault that lasts."""

    resource: str
    """What it uses: of those with the same one only one is there at a time."""
    heal: Callable[[], None]
    nodes: frozenset[str] = field(default_factory=frozenset)
    """Whom it keeps from being level."""
    told: str = ""


@dataclass(frozen=True)
class Once:
    """A fault that is over."""

    nodes: frozenset[str]
    """Whom it may have held up."""
    told: str = ""


Happened = Lasting | Once


@dataclass(frozen=True)
class Kind:
    """One kind of fault, and how often it happens, compared with others."""

    name: str
    weight: int
    begin: Callable[[World, Draw], Happened]
    """Raises Impossible, or AssertionError when the daemon does not do what it should."""
    compares: bool = False
    """Whether whole trees are compared after it, which also mends what was lost before."""
