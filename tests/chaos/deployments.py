"""Deployments beside the faults: is what readers see at the nodes whole at every moment?"""

from __future__ import annotations

import random
from collections import Counter

from support.publishing import Reader, Site

from chaos.testbed import SITE, Testbed
from inosync.console.client import NotRunning

FILES = 30
"""How many files each release has."""
PAUSE_SECONDS = 2.0
"""The mean time between two deployments; some follow at once."""
LOOK_SECONDS = 0.002
"""Between two looks of a reader."""


class Deployments:
    """A site that is published again and again in a tree of its own, and a reader of each of its copies.

    It is published between ``start`` and ``stop`` only, in rounds without full mirrors: what is published
    while one is under way may show early (Limits). If a full mirror began during a deployment, the reader of
    that node ends, and the next one begins when the node is ok.
    """

    def __init__(self, testbed: Testbed, seed: str) -> None:
        self._testbed = testbed
        self._chances = random.Random(seed)
        self._site = Site(testbed.tree(SITE), FILES)
        self._readers: dict[str, Reader] = {}
        self._unread: set[str] = set()
        """The nodes whose reader has ended, because a full mirror began during a deployment."""
        self._next = 0.0
        self.seen: Counter[str] = Counter()
        """What all readers have seen."""

    @property
    def count(self) -> int:
        return self._site.version

    def begin(self) -> None:
        """Publish the first version, before the daemon starts."""
        self._site.deploy()

    def start(self) -> None:
        """Begin to publish and to look, when all is level."""
        for node in self._testbed.nodes.values():
            if SITE in node.trees and not node.excludes:
                self._read(node.name)
        self._next = self._testbed.now()

    def step(self) -> None:
        """Publish the next version, if it is due, and no node gets a full mirror."""
        if not (self._readers or self._unread) or (now := self._testbed.now()) < self._next:
            return
        states = self._states()
        if "full" in states.values():
            return
        for node in [node for node in self._unread if states.get(node) == "ok"]:
            self._unread.discard(node)
            self._read(node)
        self._site.deploy()
        for node, state in self._states().items():
            if state == "full" and node in self._readers:
                self._readers.pop(node).kill()
                self._unread.add(node)
        chance = self._chances.random()
        self._next = now + (0.0 if chance < 0.2 else PAUSE_SECONDS * 1.8 * chance)

    def stop(self) -> list[str]:
        """Publish and look no more; return what was not whole."""
        wrong = []
        for node, reader in self._readers.items():
            seen = reader.seen()
            self.seen["looks"] += seen.pop("looks")
            self.seen["versions"] += seen.pop("versions")
            wrong += [f"{node}: {what}, {count} times" for what, count in seen.items()]
            wrong += [f"{node}: {example}" for example in reader.examples]
        self._readers.clear()
        self._unread.clear()
        return wrong

    def kill(self) -> None:
        """End the readers that are left."""
        for reader in self._readers.values():
            reader.kill()

    def _read(self, node: str) -> None:
        self._readers[node] = Reader(self._testbed.nodes[node].place / SITE, FILES, LOOK_SECONDS)

    def _states(self) -> dict[str, str]:
        """Return the state of each node as the master knows it now; empty without a master.

        A title would be late: the worker writes it.
        """
        try:
            return {node["name"]: node["state"] for node in self._testbed.daemon.ask("status")["nodes"]}
        except NotRunning:
            return {}
