"""What a change passes in the master, from the journal to the nodes. Most parts of the master use it."""

from __future__ import annotations

from dataclasses import dataclass

from inosync.guard.guard import Guard
from inosync.journal.journal import Journal
from inosync.master.trees import TreeTable
from inosync.nodes.dispatch import Dispatcher
from inosync.nodes.node import Node
from inosync.system.loop import Loop


@dataclass(frozen=True, slots=True)
class Mirror:
    """Made once. What it leads to changes all the time."""

    nodes: dict[str, Node]
    """All nodes of the configuration, by name. Only the worker pool changes this dictionary."""
    table: TreeTable
    journal: Journal
    guard: Guard
    dispatch: Dispatcher
    loop: Loop
