"""flush under faults: what it reports as arrived is there, whatever happens to workers and configuration.

One thread changes the trees, does something to the daemon, asks for a flush, and looks at the nodes at once.
"""

from __future__ import annotations

import os
import random
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support import procs
from support.daemon import Daemon, FakeRsync, MakeDaemon
from support.wait import until

from inosync.console.client import NotRunning

NODES = "abc"
ROUNDS = 25
"""Changes and flushes in one test."""


@dataclass
class Setup:
    """A daemon with three local nodes, a tree, and the content of the tree."""

    home: Path
    daemon: Daemon
    rsync: FakeRsync
    random: random.Random
    files: dict[str, bytes] = field(default_factory=dict)
    paused: set[str] = field(default_factory=set)
    configured: set[str] = field(default_factory=lambda: set(NODES))
    done: list[str] = field(default_factory=list)
    changed_through: set[str] = field(default_factory=set)
    """The names through which files were changed since the last flush: perhaps not looked at yet."""
    number: int = 0

    @property
    def tree(self) -> Path:
        return self.home / "tree"

    def configure(self) -> None:
        self.daemon.configure(
            {
                "wpaths": [str(self.tree)],
                "rpaths": ["tree"],
                "rnodes": [
                    {"node": f"{self.home}/nodes/{node}/", "name": node, "rwarm": node != "c"}
                    for node in sorted(self.configured)
                ],
                "rsync": str(self.rsync.path),
                "equiet": self.random.choice((0.0, 0.02, 0.3)),
                "edelay": self.random.choice((0.5, 5.0)),
                "rexcludes": ["*.never", *self.random.choice(([], ["*.not"]))],
                "rretry": (0.1, 0.5),
            }
        )

    def ask(self, command: str, **more: object) -> dict[str, Any]:
        return self.daemon.ask(command, **more)

    # What happens to the trees ---------------------------------------------------------------------------

    def change(self) -> None:
        self.number += 1
        kind = self.random.choice(
            ("new", "rewrite", "link", "through a link", "move", "remove", "deep", "excluded")
        )
        getattr(self, "_" + kind.replace(" ", "_"))(f"{kind.replace(' ', '-')}-{self.number}")
        self.done.append(kind)

    def _write(self, name: str, mode: str = "wb") -> None:
        content = os.urandom(self.random.choice((0, 10, 5_000)))
        with open(self.tree / name, mode) as file:
            file.write(content)
        inode = (self.tree / name).stat().st_ino
        for other in [*self.files, name]:
            if (self.tree / other).stat().st_ino == inode:
                self.files[other] = content
        self.changed_through.add(name)

    def _some(self) -> str | None:
        return self.random.choice(sorted(self.files)) if self.files else None

    def _new(self, name: str) -> None:
        self._write(name)

    def _rewrite(self, name: str) -> None:
        self._write(self._some() or name)

    def _link(self, name: str) -> None:
        if some := self._some():
            os.link(self.tree / some, self.tree / name)
            self.files[name] = self.files[some]

    def _through_a_link(self, name: str) -> None:
        self._link(name)
        self._rewrite(name)

    def _move(self, name: str) -> None:
        if some := self._some():
            (self.tree / some).rename(self.tree / name)
            self.files[name] = self.files.pop(some)
            if some in self.changed_through:
                self.changed_through.remove(some)
                self.changed_through.add(name)

    def _remove(self, _name: str) -> None:
        # An empty tree would be a loss that the guard halts.
        if len(self.files) > 2 and (some := self._some()) and not self._is_only_trace(some):
            (self.tree / some).unlink()
            del self.files[some]

    def _is_only_trace(self, name: str) -> bool:
        """Whether nothing but this name tells that its other names have changed (docs/limits.rst)."""
        return name in self.changed_through and (self.tree / name).stat().st_nlink > 1

    def _deep(self, name: str) -> None:
        (self.tree / name / "sub").mkdir(parents=True)
        self._write(f"{name}/sub/file")

    def _excluded(self, name: str) -> None:
        (self.tree / f"{name}.never").write_bytes(b"x")

    # What happens to the daemon --------------------------------------------------------------------------

    def disturb(self) -> None:
        ways = (
            "kill",
            "reload",
            "pause",
            "resume",
            "resync",
            "verify",
            "stop a worker",
            "node",
            "flood",
            "nothing",
        )
        way = self.random.choice(ways)
        self.done.append(way)
        node = self.random.choice(NODES)
        match way:
            case "kill":
                self._signal(node, signal.SIGKILL)
            case "stop a worker":
                self._signal(node, signal.SIGSTOP)
                self._signal(node, signal.SIGCONT)
            case "reload":
                self.configure()
                self.daemon.hup()
            case "node" if not self.paused:
                self.configured ^= {"b"}
                self.configure()
                assert self.ask("reload") == {}
            case "pause" if node in self.configured:
                self.ask("pause", node=node)
                self.paused.add(node)
            case "resume" if node in self.configured:
                self.ask("resume", node=node)
                self.paused.discard(node)
            case "resync" | "verify" if node in self.configured:
                self.ask(way, node=node)
            case "flood":
                for number in range(2_000):
                    (self.tree / f"flood-{number}").touch()
                for number in range(2_000):
                    (self.tree / f"flood-{number}").unlink()

    def _signal(self, node: str, number: signal.Signals) -> None:
        pid = self.daemon.workers().get(node)
        if pid is not None and procs.look(pid) is not None:
            os.kill(pid, number)

    # What flush says -------------------------------------------------------------------------------------

    def flush(self) -> None:
        wanted = self.random.choice((None, *sorted(self.configured)))
        reply = self.ask("flush", node=wanted, timeout=60)
        self.changed_through.clear()
        named = {node["name"] for node in reply["behind"]}
        asked = self.configured if wanted is None else {wanted}
        assert named <= self.paused, (reply, self.done[-8:])
        for node in asked - named:
            self.compare(node)

    def compare(self, node: str) -> None:
        copy = self.home / "nodes" / node / "tree"
        found = {
            str(path.relative_to(copy)): path.read_bytes()
            for path in copy.rglob("*")
            if path.is_file() and not path.name.startswith(".")
        }
        found = {name: content for name, content in found.items() if not name.endswith(".not")}
        missing = {name for name in self.files if found.get(name) != self.files[name]}
        extra = set(found) - set(self.files)
        assert not missing, f"{node} lacks {sorted(missing)} after {self.done[-8:]}\n{self.daemon.log_tail()}"
        assert not extra, f"{node} has {sorted(extra)} after {self.done[-8:]}\n{self.daemon.log_tail()}"


@pytest.fixture
def setup(tmp_path: Path, daemon: MakeDaemon, seed: int) -> Setup:
    (tmp_path / "tree").mkdir()
    for node in NODES:
        (tmp_path / "nodes" / node).mkdir(parents=True)
    s = Setup(tmp_path, daemon("", ("-v",)), FakeRsync(tmp_path), random.Random(seed))
    s.configure()
    return s


@pytest.mark.timeout(600)
def test_flush_under_faults_says_the_truth(setup: Setup) -> None:
    s = setup
    s._write("always")
    s.daemon.start()
    for _ in range(ROUNDS):
        for _ in range(s.random.randrange(1, 4)):
            s.change()
        s.disturb()
        if s.random.random() < 0.5:
            s.change()
        s.flush()
    for node in sorted(s.paused & s.configured):
        s.ask("resume", node=node)
    s.paused.clear()
    s.flush()
    assert s.daemon.stop() == 0


def test_socket_exists_until_the_daemon_ends(setup: Setup) -> None:
    setup._write("file")
    setup.daemon.start()
    assert setup.ask("stop")["pid"] == setup.daemon.pid
    assert setup.daemon.wait() == 0
    with pytest.raises(NotRunning):
        setup.ask("status")
    until(lambda: not os.path.exists(setup.daemon.socket), 30, "the socket to be gone")
