"""A client that waits for the comparison of nodes is told once, and everything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import pytest

from inosync.master.comparing import Comparing
from inosync.master.verification import Comparison, Verification, Waiter
from inosync.nodes.node import Node
from inosync.system.loop import Loop


class World:
    def __init__(self) -> None:
        self.now = 0.0
        self.loop = Loop(lambda: self.now)
        self.waiters: list[Waiter] = []
        self.answers: list[Sequence[Comparison]] = []
        verification = SimpleNamespace(wait=self.waiters.append, cancel=self.waiters.remove)
        self.comparing = Comparing(cast(Verification, verification), self.loop, self.answers.append)

    def begin(self, *names: str, paused: str = "", deadline: float = math.inf) -> None:
        nodes = [SimpleNamespace(name=name, paused=name == paused) for name in names]
        self.comparing.begin(cast(Sequence[Node], nodes), False, deadline)
        self.loop.turn(0)

    def names(self) -> list[list[tuple[str, str]]]:
        return [[(one.node, one.reason) for one in found] for found in self.answers]


@pytest.fixture
def world() -> World:
    return World()


def test_client_is_told_when_all_nodes_are_compared(world: World) -> None:
    world.begin("a", "b")
    first, second = world.waiters
    first.done(Comparison("a"))
    assert world.answers == []
    second.done(Comparison("b", "refused"))
    assert world.names() == [[("a", ""), ("b", "refused")]]


def test_paused_node_is_named_and_not_waited_for(world: World) -> None:
    world.begin("a", paused="a")
    assert (world.waiters, world.names()) == ([], [[("a", "is paused")]])


def test_client_without_nodes_is_told_at_once(world: World) -> None:
    world.begin()
    assert world.answers == [[]]


def test_deadline_names_the_nodes_that_were_not_compared(world: World) -> None:
    world.begin("a", "b", deadline=5)
    world.waiters[0].done(Comparison("a"))
    world.waiters.pop(0)
    world.now = 5
    world.loop.turn(0)
    assert world.names() == [[("a", ""), ("b", "was not compared in time")]]
    assert world.waiters == []


def test_client_that_has_left_is_told_nothing(world: World) -> None:
    world.begin("a", deadline=5)
    world.comparing.cancel()
    world.now = 5
    world.loop.turn(0)
    assert (world.waiters, world.answers) == ([], [])
