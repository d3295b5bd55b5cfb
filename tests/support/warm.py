"""A daemon with warm rsyncs, and what can be seen of those from outside."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from inosync.worker.warm import SLOW_SECONDS
from support import procs, trees
from support.churn import Churn
from support.daemon import Daemon, FakeRsync, MakeDaemon
from support.procs import Process
from support.rsyncd import MakeRsyncd, Rsyncd
from support.sshd import Sshd
from support.wait import until

T = TypeVar("T")

FIRST, LONGEST = 0.1, 0.5
FAST: Mapping[str, object] = {"edelay": 0.2, "equiet": 0.02, "rretry": (FIRST, LONGEST)}
TIME = r"\d\d:\d\d:\d\d"
OK = rf"\[ok\] synced {TIME}"
RETRY = rf"\[retry [1-9]\d* at {TIME}\]"

Location = str | Mapping[str, object]
"""The location of a node in rsync's syntax, ``""`` for a local one, or its settings with a ``node``."""


@dataclass
class Warm:
    """A daemon, its trees below ``home/trees``, and its nodes, which are the directories ``home/nodes/NAME``.

    The name of a node is also a component of its targets; with an rsync daemon it is the name of the module.
    """

    home: Path
    daemon: Daemon
    rsync: FakeRsync
    names: tuple[str, ...]
    """The names of the trees."""
    settings: dict[str, object] = field(default_factory=dict)
    watched: bool = True
    """Whether the workers hold the sockets of warm rsyncs open to notice the end of the connections."""

    # The files ---------------------------------------------------------------------------------------

    def tree(self, name: str = "") -> Path:
        return self.home / "trees" / (name or self.names[0])

    def copy(self, node: str, tree: str = "") -> Path:
        return self.home / "nodes" / node / (tree or self.names[0])

    def change(self, name: str, content: str = "content", tree: str = "") -> None:
        trees.replace(self.tree(tree) / name, content, self.home / "fresh")

    def has(self, node: str, name: str, content: str = "content", tree: str = "") -> bool:
        try:
            return (self.copy(node, tree) / name).read_text() == content
        except (FileNotFoundError, NotADirectoryError):
            return False

    def until_arrived(self, node: str, name: str, content: str = "content", tree: str = "") -> None:
        self._until(lambda: self.has(node, name, content, tree), f"{name} on {node}")

    def until_level(self, *nodes: str, states: Sequence[str] = ("ok",), timeout: float = 60) -> None:
        """Wait until these nodes, by default all, have everything and are in one of these states."""
        pairs = [(self.tree(t), self.copy(n, t)) for n in nodes or self.nodes() for t in self.names]
        self.daemon.until_level(pairs, timeout, states)

    # The daemon --------------------------------------------------------------------------------------

    def nodes(self) -> list[str]:
        items = self.settings["rnodes"]
        assert isinstance(items, list)
        return [item["name"] for item in items]

    def item(self, name: str, location: Location = "") -> dict[str, object]:
        """Return an item for rnodes."""
        (self.home / "nodes" / name).mkdir(parents=True, exist_ok=True)
        given = {"node": location} if isinstance(location, str) else dict(location)
        return {**given, "node": given.get("node") or f"{self.home}/nodes/{name}/", "name": name}

    def configure(self, nodes: Mapping[str, Location], **settings: object) -> None:
        """Write the configuration with these settings beside those of every test."""
        self.settings = {
            "wpaths": [str(self.tree(name)) for name in self.names],
            "rpaths": list(self.names),
            "rnodes": [self.item(name, location) for name, location in nodes.items()],
            "rsync": str(self.rsync.path),
            **FAST,
            **settings,
        }
        self.daemon.configure(self.settings)

    def reload(self, **settings: object) -> None:
        """Send SIGHUP with these additional settings, and wait until the reload is done."""
        self.daemon.configure({**self.settings, **settings})
        since = len(self.daemon.log())
        self.daemon.hup()
        self.daemon.until_logged(r"default\.py reloaded.*\n", since=since)

    def workers(self) -> dict[str, Process]:
        """Return the workers by node."""
        looks = {node: procs.look(pid) for node, pid in self.daemon.workers().items()}
        return {node: process for node, process in looks.items() if process is not None}

    def title(self, node: str) -> str:
        """Return the node's title without its beginning, empty without a worker."""
        pid = self.daemon.workers().get(node)
        return procs.title(pid).removeprefix(f"inosync: {node} ") if pid else ""

    def until_title(self, node: str, pattern: str) -> re.Match[str]:
        """Wait until the whole title of a node matches the pattern."""
        title = ""

        def look() -> re.Match[str] | None:
            nonlocal title
            title = self.title(node)
            return re.fullmatch(pattern, title)

        try:
            return self._until(look, f"{pattern!r} in the title of {node}")
        except AssertionError as error:
            raise AssertionError(f"{error}\nit was {title!r}") from None

    def warnings(self) -> list[str]:
        """Return the warnings and errors in the log.

        Nodes that lag or are slow to answer are left out: on a busy machine that is no failure.
        """
        slow = rf"no answer for {SLOW_SECONDS:g} s|: is lagging after "
        lines = self.daemon.log().splitlines()
        return [line for line in lines if re.search("WARNING|ERROR", line) and not re.search(slow, line)]

    # The rsyncs --------------------------------------------------------------------------------------

    def batches(self, node: str, tree: str = "") -> int:
        """Return the number of rsyncs started for batches to a node, including warm ones."""
        return self._starts("batch ", node, f"/{tree}/" if tree else "")

    def fulls(self, node: str) -> int:
        """Return the number of full mirrors of a node begun so far."""
        return self._starts("full ", node, "")

    def sizes(self, node: str, since: int = 0) -> list[int]:
        """Return the number of names in each batch confirmed by a node, from that character of the log on."""
        found = re.findall(rf"{node}: (\d+) paths? in", self.daemon.log()[since:])
        return [int(count) for count in found]

    def _starts(self, kind: str, node: str, tree: str) -> int:
        lines = self.rsync.starts(kind)
        return sum(bool(re.search(f"[/:]{node}/", line)) and tree in line for line in lines)

    def warm_rsyncs(self, node: str) -> dict[str, Process]:
        """Return the warm rsyncs of a node by the names of their trees.

        They have entered the tree, which they do when they are connected, and the worker has noticed that.
        """
        worker = self.daemon.workers().get(node)
        if worker is None:
            return {}
        roots = {str(self.tree(name)): name for name in self.names}
        mine = _sockets(worker)
        found = {}
        for process in procs.family([worker])[1:]:
            tree = roots.get(_link(f"/proc/{process.pid}/cwd"))
            if process.ppid != worker or tree is None:
                continue
            if not self.watched or mine & _sockets(process.pid):
                found[tree] = process
        return found

    def warm_rsync(self, node: str, tree: str = "") -> Process:
        """Return the warm rsync of a node, which must exist."""
        return self.warm_rsyncs(node)[tree or self.names[0]]

    def until_warm(self, *nodes: str, but: Sequence[Process] = ()) -> dict[str, dict[str, Process]]:
        """Wait until these nodes, by default all, have a warm rsync for each tree, none of ``but``."""
        found: dict[str, dict[str, Process]] = {}

        def look() -> bool:
            found.update({node: self.warm_rsyncs(node) for node in nodes or self.nodes()})
            return all(set(f) == set(self.names) and not set(f.values()) & set(but) for f in found.values())

        try:
            self._until(look, "rsyncs that wait")
        except AssertionError as error:
            raise AssertionError(f"{error}\nthere were {found}") from None
        return found

    def until_gone(self, process: Process) -> None:
        """Wait until a process has ended."""
        self._until(lambda: not procs.alive(process), f"{process} to end")

    def _until(self, condition: Callable[[], T | None], what: str) -> T:
        try:
            return until(condition, 60, what)
        except AssertionError as error:
            titles = "\n".join(self.daemon.titles())
            raise AssertionError(f"{error}\n{titles}\n{self.daemon.log_tail()}") from None


def set_up(
    home: Path,
    make: MakeDaemon,
    nodes: Mapping[str, Location],
    trees: Sequence[str] = ("tree",),
    env: Mapping[str, str] | None = None,
    **settings: object,
) -> Warm:
    """Make a daemon with these nodes and settings, not started."""
    for name in trees:
        (home / "trees" / name).mkdir(parents=True)
    warm = Warm(home, make({}, ("-v",), env), FakeRsync(home / "fake"), tuple(trees))
    warm.configure(nodes, **settings)
    return warm


class MakeWarm(Protocol):
    """The fixture ``warm``: ``set_up`` in the directory of the test."""

    def __call__(
        self,
        nodes: Mapping[str, Location],
        trees: Sequence[str] = ("tree",),
        env: Mapping[str, str] | None = None,
        **settings: object,
    ) -> Warm:
        """See ``set_up``."""


@dataclass(frozen=True)
class AllTransports:
    """A daemon, not started, with a node on each transport, and servers of the test's own."""

    warm: Warm
    rsyncd: Rsyncd
    sshd: Sshd

    def cut(self, what: str, warm: Mapping[str, Process]) -> set[str]:
        """Cut connections of these warm rsyncs in one way; return the nodes that it concerns."""
        if what == "the far end":
            end([*self.rsyncd.connections(), *self.sshd.connections()])
            return {"daemon", "ssh"}
        if what == "the child":
            end([below(warm["local"]), below(warm["ssh"])])
            return {"local", "ssh"}
        end(warm.values(), signal.SIGTERM if "politely" in what else signal.SIGKILL)
        return set(warm)


def set_up_all_transports(home: Path, make: MakeDaemon, rsyncd: MakeRsyncd, sshd: Sshd) -> AllTransports:
    server = rsyncd({"daemon": home / "nodes/daemon"})
    nodes = {"local": "", "daemon": server.url("daemon"), "ssh": sshd.node("a", f"{home}/nodes/ssh/")}
    return AllTransports(set_up(home, make, nodes, env=sshd.env()), server, sshd)


def locations(w: Warm) -> dict[str, Location]:
    """Return the locations in the form of ``set_up``."""
    items = w.settings["rnodes"]
    assert isinstance(items, list)
    return {item["name"]: item for item in items}


def below(process: Process) -> Process:
    """Return the child of a warm rsync: ssh or the receiver."""
    [child] = procs.family([process.pid])[1:]
    return child


def end(processes: Iterable[Process], number: signal.Signals = signal.SIGKILL) -> None:
    for process in processes:
        procs.send(process, number)


def stop(process: Process) -> None:
    """Send SIGSTOP and wait until the process is stopped."""
    procs.send(process, signal.SIGSTOP)
    until(lambda: (p := procs.look(process.pid)) is None or p.state == "T", 30, f"{process} to be stopped")


def cont(process: Process) -> None:
    """Send SIGCONT after ``stop``."""
    procs.send(process, signal.SIGCONT)


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _sockets(pid: int) -> set[str]:
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return set()
    return {link for name in names if (link := _link(f"/proc/{pid}/fd/{name}")).startswith("socket:")}


def start_with_churn(w: Warm, seed: int) -> Churn:
    """Start a daemon over a tree in which much has happened, and wait until its nodes are level."""
    outside = w.home / "outside"
    outside.mkdir()
    churn = Churn(os.fsencode(w.tree()), seed, os.fsencode(outside))
    churn.run(60)
    w.daemon.start()
    w.until_level()
    return churn
