"""A fleet of which each machine is in a network of its own, and what must not happen to it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from inosync.console.client import NotRunning, Refused
from support.fleet import Fleet
from support.network import Islands
from support.redis_server import RedisServer
from support.rsyncd import Rsyncd
from support.sshd import Sshd

MACHINES = ("origin", "sa", "sb", "nodes", "redis")
PAIRS = (
    ("origin", "redis"),
    ("sa", "redis"),
    ("origin", "sa"),
    ("origin", "sb"),
    ("sa", "nodes"),
    ("sb", "redis"),
)
"""The machines that talk to each other."""


class Scattered:
    """Two senders and two nodes. The origin reaches a sender by ssh, and all else is reached by rsyncd.

    ``ttl``: of leases; ``trusts_redis``: no Redis that loses leases is meant to be tried. ``problems`` has
    what must not happen, and did: a counter that went back on a node or was removed, and two senders that
    serve a node.
    """

    def __init__(self, home: Path, ttl: float, trusts_redis: bool = True) -> None:
        self.islands = Islands(MACHINES)
        machines = self.islands.machines
        places = home / "fleet" / "places"
        self.redis = RedisServer(home / "redis", {"appendonly": "yes"}, machines["redis"])
        modules = {name: places / name for name in ("n0", "n1")}
        self.nodes = Rsyncd(home / "nodes", modules, place=machines["nodes"])
        self.relay = Rsyncd(home / "relay", {"relay": places / "sb"}, place=machines["sb"])
        self.sshd = Sshd(home / "sshd", machines["sa"])
        ssh = {"node": self.sshd.node("sa", f"{places / 'sa'}/"), "extra": [f"--rsh={self.sshd.rsh}"]}
        settings = {
            "fleet": self.redis.url,
            "rsenders": [
                {**ssh, "name": "sa"},
                {"node": self.relay.url("relay"), "name": "sb", "path": str(places / "sb")},
            ],
            "rnodes": [{"node": self.nodes.url(name), "name": name} for name in modules],
            "rtimeout": 3,
        }
        inside = {name: machines[name].inside for name in ("origin", "sa", "sb")}
        for name in (*modules, "sb"):  # made by the fleet
            (places / name).rmdir()
        self.fleet = Fleet(home / "fleet", ("sa", "sb"), tuple(modules), settings, inside=inside, ttl=ttl)
        if trusts_redis:
            self.fleet.trust_redis()
        self.counter = 0
        self.problems: list[str] = []
        self._seen = dict.fromkeys(self.fleet.nodes, 0)
        """By node: the greatest number that it has shown."""
        self._ends = threading.Event()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Start all of it, watch it, and end it; AssertionError for what must not happen."""
        servers = (self.redis, self.nodes, self.relay, self.sshd)
        watch = threading.Thread(target=self._watch)
        try:
            for server in servers:
                server.start()
            self.count()
            for daemon in self.fleet.daemons():
                daemon.start(ready=False)
            watch.start()
            yield
        finally:
            self._ends.set()
            if watch.is_alive():
                watch.join(60)
            try:
                self.fleet.close()
            finally:
                for server in servers:
                    server.stop()
                self.islands.remove()
        assert not self.problems, self.problems

    def count(self) -> None:
        """Change what the nodes have, as publishing does."""
        self.counter += 1
        fresh = self.fleet.home / "fresh"
        fresh.write_text(str(self.counter))
        fresh.rename(self.fleet.tree / "counter")

    def has(self, name: str) -> bool:
        """Whether a sender or node has the last change."""
        return self._number(name) == self.counter

    def until_level(self) -> None:
        """Wait until each node has what the tree has."""
        self.fleet.until_level()

    def _number(self, name: str) -> int:
        try:
            return int((self.fleet.copy(name) / "counter").read_text() or 0)
        except FileNotFoundError:
            return 0

    def _watch(self) -> None:
        while not self._ends.wait(0.02):
            for name in self.fleet.nodes:
                number = self._number(name)
                if number < self._seen[name]:
                    self.problems.append(f"{name}: {number or 'nothing'} after {self._seen[name]}")
                self._seen[name] = max(number, self._seen[name])
            # What is handed over between two questions is served by one before and by another one after.
            served = [self._served(name) for name in ("sa", "sb", "sa")]
            if both := set.intersection(*served):
                self.problems.append(f"two senders serve {', '.join(both)}")

    def _served(self, sender: str) -> set[str]:
        try:
            return {node["name"] for node in self.fleet.ask_sender(sender, "status", node="all")["nodes"]}
        except (NotRunning, Refused, OSError):
            return set()
