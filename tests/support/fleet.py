"""A fleet on one machine: Redis, an origin, senders, and nodes that are local directories."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from inosync.console.client import NotRunning
from support import trees
from support.daemon import CHECKOUT, Daemon, ask
from support.redis_server import RedisServer
from support.wait import until

TTL_SECONDS = 4.0
"""Leases of tests are short, so that nobody has to wait a quarter of a minute for a takeover."""
SIX = tuple(f"n{number}" for number in range(6))
"""The names of six nodes."""
LAUNCHER = f"""\
import os, sys
sys.path.insert(0, {str(CHECKOUT)!r})
from inosync.fleet import instance, leases
scale = float(os.environ["INOSYNC_TEST_TTL"]) / leases.TTL_SECONDS
for name in ("TTL", "RENEW", "STOP", "HOLD", "QUARANTINE"):
    setattr(leases, name + "_SECONDS", getattr(leases, name + "_SECONDS") * scale)
leases.LATE_SECONDS *= scale * 0.375
instance.REQUEST_SECONDS *= max(scale, 0.3)
from inosync.cli import main
sys.exit(main())
"""
TRUSTING = LAUNCHER.replace("from inosync.cli", "leases.QUARANTINE_SECONDS = 0.0\nfrom inosync.cli")
_INSIDE = """\
import os, sys
command = [*{inside!r}, sys.executable, {launcher!r}, *sys.argv[1:]]
os.execvp(command[0], command)
"""


class Fleet:
    """Everything below ``home``. ``senders`` and ``nodes`` are names; ``shared``: who sees the same tree.

    ``inside``: by machine, the words before its command that lead to where it runs, such as a namespace.
    """

    def __init__(
        self,
        home: Path,
        senders: Sequence[str] = ("sa", "sb", "sc"),
        nodes: Sequence[str] = SIX,
        settings: Mapping[str, object] | None = None,
        shared: Sequence[str] = (),
        inside: Mapping[str, Sequence[str]] | None = None,
        ttl: float = TTL_SECONDS,
    ) -> None:
        self.home = home
        self.tree, self.launcher = home / "tree", home / "launcher.py"
        self.names, self.nodes = tuple(senders), tuple(nodes)
        self._inside, self._ttl = inside or {}, ttl
        for directory in (self.tree, home / "redis", *map(self.place, (*senders, *nodes))):
            directory.mkdir(parents=True)
        self.launcher.write_text(LAUNCHER)
        self.redis = RedisServer(home / "redis")
        self.config: dict[str, object] = {
            "wpaths": [str(self.tree)],
            "rpaths": ["www"],
            "rsenders": [
                {"name": name, "shared": True}
                if name in shared
                else {"node": f"{self.place(name)}/", "name": name}
                for name in senders
            ],
            "rnodes": [{"node": f"{self.place(name)}/", "name": name} for name in nodes],
            "fleet": self.redis.url,
            "rretry": (0.2, 1),
            **(settings or {}),
        }
        self.origin = self._daemon("origin")
        self.senders = {name: self._daemon(name, "--sender", name) for name in senders}

    def trust_redis(self) -> Fleet:
        """Have leases taken at once from a Redis that is new, because it has had none that it could lose."""
        self.launcher.write_text(TRUSTING)
        return self

    def _daemon(self, name: str, *args: str) -> Daemon:
        launcher, inside = self.launcher, self._inside.get(name)
        if inside:
            launcher = self.home / f"{name}.py"
            launcher.write_text(_INSIDE.format(inside=list(inside), launcher=str(self.launcher)))
        env = {"INOSYNC_TEST_TTL": str(self._ttl)}
        made = Daemon(self.home / "machines" / name, self.config, args, env, launcher)
        assert made.command[0] == sys.executable
        return made

    def place(self, name: str) -> Path:
        """Return the directory of a sender or node."""
        return self.home / "places" / name

    def copy(self, name: str) -> Path:
        """Return the copy of the tree there."""
        return self.place(name) / "www"

    @contextlib.contextmanager
    def running(self) -> Iterator[Fleet]:
        """Start all of it, and end it."""
        self.redis.start()
        try:
            for daemon in self.daemons():
                daemon.start()
            yield self
        finally:
            try:
                self.close()
            finally:
                self.redis.stop()

    def daemons(self) -> list[Daemon]:
        """Return the origin and all senders."""
        return [self.origin, *self.senders.values()]

    def close(self) -> None:
        """End all daemons; AssertionError as in ``Daemon.close``, after all of them have ended."""
        problems = []
        for daemon in self.daemons():
            try:
                daemon.close()
            except AssertionError as problem:
                problems.append(str(problem))
        assert not problems, "\n".join(problems)

    # What it does --------------------------------------------------------------------------------------

    def ask(self, command: str, **more: object) -> dict[str, Any]:
        """Ask the origin."""
        return self.origin.ask(command, **more)

    def ask_sender(self, name: str, command: str, **more: object) -> dict[str, Any]:
        """Ask a sender."""
        path = self.senders[name].rundir / f"default@{name}.sock"
        return ask(path, {"command": command, **more}, 60)

    def status(self) -> dict[str, dict[str, Any]]:
        """Return what the origin says of senders and nodes, by name."""
        try:
            return {node["name"]: node for node in self.ask("status")["nodes"]}
        except NotRunning:
            return {}

    def vias(self) -> dict[str, str]:
        """Return which sender serves which node."""
        return {name: node["via"] for name, node in self.status().items() if node.get("via")}

    def until_served(self, timeout: float = 60) -> dict[str, str]:
        """Wait until each node is served, and return by which sender."""

        def served() -> dict[str, str] | None:
            found = self.vias()
            return found if found.keys() == set(self.nodes) else None

        return until(served, timeout, f"all nodes to be served; {self.report()}")

    def until_level(self, timeout: float = 60) -> None:
        """Wait until each node has what the tree has."""
        source = trees.snapshot(self.tree)

        def level() -> bool:
            return all(
                os.path.isdir(self.copy(name)) and trees.is_copy(source, self.copy(name))
                for name in self.nodes
            )

        try:
            until(level, timeout, "all nodes to be level")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.report()}") from None

    def report(self) -> str:
        """Return the ends of all logs."""
        return "\n".join(f"--- {daemon.home.name}\n{daemon.log_tail(15)}" for daemon in self.daemons())
