"""The line about what all nodes have got together."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, cast

from inosync.nodes.counters import Counters
from inosync.nodes.messages import Batch, Done
from inosync.nodes.node import Node
from inosync.status.traffic import LINE_SECONDS, Traffic


class Nodes:
    def __init__(self, *names: str) -> None:
        self.nodes = [SimpleNamespace(name=name, counters=Counters()) for name in names]
        self.traffic = Traffic()

    def done(self, name: str, paths: int, seconds: float, full: bool = False, **report: Any) -> None:
        [node] = [node for node in self.nodes if node.name == name]
        node.counters.count_done(Batch(1, paths, full), Done(1, seconds, **report), seconds)

    def line(self, now: float = 0.0) -> str:
        return self.traffic.line(cast(Iterable[Node], self.nodes), now)


def test_line_says_how_many_nodes_and_names_the_slowest() -> None:
    nodes = Nodes("a", "b", "c")
    nodes.done("a", 3, 0.05, bytes=100)
    nodes.done("b", 3, 0.4, bytes=100)
    assert nodes.line() == "3 paths to 2 nodes, 200 bytes, 0.40 s for b, the slowest"
    assert nodes.line() == ""


def test_line_names_a_single_node() -> None:
    nodes = Nodes("a", "b")
    nodes.done("a", 1, 0.05, bytes=10)
    assert nodes.line() == "1 path to a, 10 bytes, 0.05 s"


def test_line_counts_batches_since_the_last_line_only() -> None:
    nodes = Nodes("a")
    nodes.done("a", 5, 8.0, bytes=1_000)
    nodes.line()
    nodes.done("a", 1, 0.1, bytes=10)
    nodes.done("a", 1, 0.3, bytes=10)
    assert nodes.line() == "2 paths to a, 20 bytes, 0.20 s"


def test_full_mirror_has_a_line_of_its_own() -> None:
    nodes = Nodes("a")
    nodes.done("a", 0, 60.0, full=True, bytes=10**9)
    assert nodes.line() == ""
    nodes.done("a", 1, 0.1, bytes=10)
    assert nodes.line() == "1 path to a, 10 bytes, 0.10 s"


def test_next_line_waits_while_there_was_one() -> None:
    nodes = Nodes("a")
    assert nodes.line(5.0) == ""
    assert nodes.traffic.next_line_at < 5.0
    nodes.done("a", 1, 0.1)
    nodes.line(6.0)
    assert nodes.traffic.next_line_at == 6.0 + LINE_SECONDS


def test_removed_node_is_forgotten() -> None:
    nodes = Nodes("a", "b")
    nodes.done("a", 1, 0.1)
    nodes.done("b", 1, 0.1)
    nodes.line()
    del nodes.nodes[0]
    nodes.done("b", 1, 0.1)
    assert nodes.line() == "1 path to b, 0 bytes, 0.10 s"
