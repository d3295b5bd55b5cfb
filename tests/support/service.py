"""A daemon for local nodes, and what a test does with it as a service: configure, reload, start detached."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from support import procs, trees
from support.daemon import Daemon, FakeRsync, MakeDaemon
from support.procs import Process
from support.wait import until

FAST = {"edelay": 0.2, "equiet": 0.02, "rretry": (0.2, 1)}
IN_TIME = 30.0
"""Seconds that a stop may take: 5 s are for the transfers that run, the rest for a machine that is busy."""


@dataclass
class Service:
    """A daemon for local nodes, its trees, and its settings as they stand in the file."""

    home: Path
    rsync: FakeRsync
    daemon: Daemon
    settings: dict[str, object] = field(default_factory=dict)

    def tree(self, name: str = "tree") -> Path:
        path = self.home / "trees" / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def node(self, name: str, place: str = "", **settings: object) -> dict[str, object]:
        """An item for rnodes: the node ``NAME`` at ``nodes/PLACE``, by default ``nodes/NAME``."""
        path = self.home / "nodes" / (place or name)
        path.mkdir(parents=True, exist_ok=True)
        return {"node": f"{path}/", "name": name, **settings}

    def copy(self, node: str, tree: str = "tree") -> Path:
        return self.home / "nodes" / node / tree

    def base(self) -> dict[str, object]:
        """The settings that every test begins with."""
        return {
            "wpaths": [str(self.tree())],
            "rpaths": ["tree"],
            "rnodes": [self.node("a"), self.node("b")],
            "rsync": str(self.rsync.path),
            # A test holds or fails the rsync of the next change, which therefore must not run already.
            "rwarm": False,
            **FAST,
        }

    def configure(self, **settings: object) -> None:
        self.settings = {**self.base(), **settings}
        self.daemon.configure(self.settings)

    def hup(self, expect: str = "default.py reloaded") -> str:
        """Send SIGHUP; return what was logged up to the line with ``expect``, which ends a reload."""
        since = len(self.daemon.log())
        self.daemon.hup()
        self.daemon.until_logged(f"{re.escape(expect)}.*\n", since=since)
        return self.daemon.log()[since:]

    def reload(self, **settings: object) -> str:
        """Write these settings and send SIGHUP; return what was logged until the reload was done."""
        self.configure(**settings)
        return self.hup()

    def change(self, name: str, content: str = "content", tree: str = "tree") -> None:
        trees.replace(self.tree(tree) / name, content, self.home / "fresh")

    def until_arrived(self, node: str, name: str, content: str = "content", tree: str = "tree") -> None:
        path = self.copy(node, tree) / name
        until(
            lambda: path.exists() and path.read_text() == content,
            60,
            f"{name} on {node}; the log:\n{self.daemon.log_tail()}",
        )

    def until_ok(self, nodes: Sequence[str] = ("a", "b"), *, names: Sequence[str] = ("tree",)) -> None:
        """Wait until these nodes, and no others, are level with these trees, and say so."""
        pairs = [(self.tree(name), self.copy(node, name)) for node in nodes for name in names]
        self.daemon.until_level(pairs, nodes=len(nodes))
        # A worker that a reload replaces may still have been counted as level.
        until(lambda: set(self.daemon.workers()) == set(nodes), 60, f"workers of {nodes}")

    def fulls(self) -> list[str]:
        """The full mirrors so far, as NODE/TREE."""
        return [
            str(Path(line.split(" ", 1)[1]).relative_to(self.home / "nodes"))
            for line in self.rsync.starts("full ")
        ]

    def hold_a_transfer(self, node: str) -> None:
        """Start a transfer to the node that lasts until ``self.rsync.mend(node)``."""
        self.rsync.hold(node)
        self.change("held")
        self.rsync.until_held(node)
        self.daemon.until_state(node, ("syncing",))

    @contextlib.contextmanager
    def big_batch(self, prefix: str, count: int) -> Iterator[list[str]]:
        """Make changes that node a is sent as one batch when this ends; each name has 200 characters."""
        self.hold_a_transfer("a")
        names = [f"{prefix}-{number}-".ljust(200, "x") for number in range(count)]
        try:
            for name in names:
                self.change(name, prefix)
            self.change("last", prefix)
            # If events were read later, there would be two batches. What b has, the daemon has read.
            self.until_arrived("b", "last", prefix)
            yield names
        finally:
            self.rsync.mend("a")

    def kill_worker(self, node: str) -> None:
        """Kill a worker with SIGKILL and wait for its successor."""
        # After a reload the node may have no worker for a moment.
        victim = until(lambda: self.daemon.workers().get(node), 60, f"a worker of {node}")
        os.kill(victim, signal.SIGKILL)
        until(lambda: self.daemon.workers().get(node, victim) != victim, 60, f"another worker of {node}")


def make_service(home: Path, make: MakeDaemon, args: Sequence[str] = ("-v",)) -> Service:
    home.mkdir(exist_ok=True)
    service = Service(home, FakeRsync(home / "fake"), make({}, args))
    service.configure()
    return service


def run_inosync(
    daemon: Daemon, *args: str, command: Sequence[str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run inosync to its end; by default a second one for the same configuration."""
    words = [*(command or daemon.command), *args]
    return subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )


def stop_process(pid: int) -> None:
    """Send SIGSTOP and wait until the process is stopped."""
    os.kill(pid, signal.SIGSTOP)
    until(lambda: (p := procs.look(pid)) is not None and p.state == "T", 30, f"{pid} to be stopped")


@dataclass
class Detached:
    """A service that is started with -d."""

    service: Service
    seen: list[Process] = field(default_factory=list)

    @property
    def pidfile(self) -> Path:
        return self.service.daemon.rundir / "default.pid"

    def start(self, *args: str) -> subprocess.CompletedProcess[str]:
        done = run_inosync(self.service.daemon, "-d", *args)
        if self.pidfile.exists():
            self.family()
        return done

    def start_in_shell(self, script: str, *args: str, config: str = "") -> subprocess.CompletedProcess[str]:
        """Have a shell script start it; its parameters are ``args`` and then inosync's command line."""
        words = [*self.service.daemon.command, "-d"]
        command = [config or word if word == str(self.service.daemon.file) else word for word in words]
        return subprocess.run(
            ["sh", "-c", script, "sh", *args, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def pid(self) -> int:
        return int(self.pidfile.read_text().split("\n")[0])

    def family(self) -> list[Process]:
        found = procs.family([self.pid()])
        self.seen += [process for process in found if process not in self.seen]
        return found

    def until_gone(self) -> None:
        until(lambda: not any(map(procs.alive, self.seen)), IN_TIME, "everything to be gone")

    def stop(self) -> None:
        """Stop it with SIGTERM and check that nothing is left."""
        self.family()
        os.kill(self.pid(), signal.SIGTERM)
        self.until_gone()
        assert list(self.service.daemon.rundir.iterdir()) == []
        assert "Traceback" not in (self.service.home / "log").read_text()

    def close(self) -> None:
        with contextlib.suppress(FileNotFoundError, ValueError):
            self.family()
        for process in self.seen:
            procs.send(process, signal.SIGKILL)
        self.until_gone()
