"""The testbed of the chaos: three trees, a daemon, and seven nodes on all transports with their servers."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import IO

from support import trees
from support.daemon import Daemon, FakeRsync
from support.procs import Server
from support.rsyncd import Rsyncd
from support.sshd import Sshd
from support.trees import Tree
from support.wait import until

STORMED = ("one", "two")
"""The trees that are changed in hostile ways."""
SITE = "site"
"""The tree that is published again and again."""
TREES = (*STORMED, SITE)
EVERYWHERE: Mapping[str, Sequence[str]] = {"one": ("*.txt", "/lib"), "two": (), SITE: ()}
"""The patterns excluded for all nodes, by tree."""
DISK_MEGABYTES = 192
"""The size of the file system of the node ``small``, and of the sources if they are coarse."""
NOBODY = "65534"
LEVEL = 240.0
"""Seconds after the last fault within which everything must be level."""
LEFT = 5.0
"""Seconds after the death of its master until which other processes of an inosync may exist."""

Difference = tuple[str, str, str]
"""The node, the tree, and the difference."""


@dataclass(frozen=True)
class Node:
    """A node, whose copies of the trees are ``place/TREE``."""

    name: str
    place: Path
    location: str
    """In rsync's syntax."""
    trees: tuple[str, ...] = TREES
    excludes: tuple[str, ...] = ()
    """Patterns excluded for this node only."""
    extra: tuple[str, ...] = ()
    server: Server | None = None
    is_coarse: bool = False
    """Whether its file system has time stamps of one second."""
    is_unprivileged: bool = False
    """Whether its user cannot change owners."""

    def item(self, home: Path) -> dict[str, object]:
        """Return its item for rnodes."""
        given: dict[str, object] = {"node": self.location, "name": self.name}
        if self.trees != TREES:
            given["wpaths"] = [str(home / tree) for tree in self.trees]
        if self.excludes:
            given["rexcludes"] = list(self.excludes)
        if self.extra:
            given["extra"] = list(self.extra)
        return given

    def comparable(self, tree: Tree) -> Tree:
        """Return a tree without what this node cannot have."""
        if self.is_coarse:
            tree = {
                path: replace(entry, mtime_ns=entry.mtime_ns // 10**9 * 10**9) for path, entry in tree.items()
            }
        if self.is_unprivileged:
            tree = {path: replace(entry, uid=0, gid=0) for path, entry in tree.items()}
        return tree

    def patterns(self, tree: str) -> tuple[str, ...]:
        """Return the patterns of a tree that are not mirrored to it."""
        return (*self.excludes, *EVERYWHERE[tree])

    def excluded(self, tree: str, path: bytes) -> bool:
        """Whether this path is excluded, by the few forms of patterns that are used here."""
        parts = path.split(b"/")
        for pattern in map(os.fsencode, self.patterns(tree)):
            if pattern.startswith(b"/"):
                found = parts[0] == pattern[1:]
            elif pattern.startswith(b"*"):
                found = any(part.endswith(pattern[1:]) for part in parts)
            else:
                found = pattern in parts
            if found:
                return True
        return False


class PipedDaemon(Daemon):
    """A daemon whose standard error is a pipe, which a thread reads into the log unless it is blocked."""

    def __init__(
        self,
        home: Path,
        config: Mapping[str, object],
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(home, config, args, env)
        self._reads = threading.Event()
        self._reads.set()
        self._reader = -1

    def block_stderr(self) -> None:
        """Read no more from the pipe, and fill it, so that the next line does not fit."""
        self._reads.clear()
        writer = os.open(f"/proc/self/fd/{self._reader}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            for _ in range(2):  # the thread may still have been reading the first time
                with contextlib.suppress(BlockingIOError):
                    while True:
                        os.write(writer, b"\n" * 256)
                time.sleep(0.1)
        finally:
            os.close(writer)

    def unblock_stderr(self) -> None:
        self._reads.set()

    @property
    def stderr_is_blocked(self) -> bool:
        return not self._reads.is_set()

    def open_stderr(self) -> IO[bytes]:
        reader, writer = os.pipe()
        self._reader = reader
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, mmap.PAGESIZE)
        threading.Thread(target=self._read, args=(reader,), name="stderr", daemon=True).start()
        return os.fdopen(writer, "wb")

    def _read(self, reader: int) -> None:
        with os.fdopen(reader, "rb", buffering=0) as pipe, self.stderr.open("ab", buffering=0) as log:
            while True:
                self._reads.wait()
                data = pipe.read(1 << 16)
                if not data:
                    return
                log.write(data)


class Testbed:
    """Trees, nodes, servers and the daemon below ``home``. ``args`` are added to the daemon's command line.

    ``coarse_sources``: whether the trees are on a file system with time stamps of one second, if one can be
    mounted. ``late_writers``: whether a stopped receiver may go on after its sender is gone.
    """

    def __init__(
        self,
        home: Path,
        args: Sequence[str] = (),
        late_writers: bool = False,
        coarse_sources: bool = False,
    ) -> None:
        self.home = home
        self.coarse_sources = coarse_sources
        self.late_writers = late_writers
        self.began = time.monotonic()
        self.sources = home / "trees"
        self.outside = self.sources / "outside"
        self.sources.mkdir(parents=True)
        self.mounts: list[Path] = []
        """Mount points to be unmounted at the end."""
        if coarse_sources:
            self._mount_coarse(self.sources)
        for path in (*map(self.tree, TREES), self.outside):
            path.mkdir(parents=True)
        places = home / "nodes"
        self.disk = places / "small"
        self.disk.mkdir(parents=True)
        self.busy: set[str] = set()
        """The resources of lasting faults; see ``faults.Lasting``."""
        self.longest_left = 0.0
        """The longest time until nothing was left of a killed master, in seconds."""
        self.sshds = [Sshd(home / f"sshd-{letter}") for letter in "ab"]
        self.rsyncds = {name: Rsyncd(home / name, {name: places / name}) for name in ("daemon-a", "daemon-b")}
        nobody = {"uid": NOBODY, "gid": NOBODY} if os.geteuid() == 0 else {}
        self.rsyncds["unprivileged"] = Rsyncd(
            home / "unprivileged", {"unprivileged": places / "unprivileged"}, options=nobody
        )
        ssh = shutil.which("ssh") or "ssh"
        rsh = f"--rsh={shlex.quote(ssh)} -F {shlex.quote(str(self.sshds[1].ssh_config))}"
        nodes = [
            Node("local", places / "local", f"{places}/local/"),
            Node(
                "daemon-a",
                places / "daemon-a",
                self.rsyncds["daemon-a"].url("daemon-a"),
                server=self.rsyncds["daemon-a"],
            ),
            Node(
                "daemon-b",
                places / "daemon-b",
                self.rsyncds["daemon-b"].url("daemon-b"),
                excludes=("/data", "c", "*.html"),
                server=self.rsyncds["daemon-b"],
            ),
            Node(
                "ssh-a",
                places / "ssh-a",
                self.sshds[0].node("a", f"{places}/ssh-a/"),
                server=self.sshds[0],
            ),
            Node(
                "ssh-b",
                places / "ssh-b",
                self.sshds[1].node("b", f"{places}/ssh-b/"),
                trees=("two",),
                extra=(rsh,),
                server=self.sshds[1],
            ),
            Node("small", self.disk / "node", f"{self.disk}/node/"),
            Node(
                "unprivileged",
                places / "unprivileged",
                self.rsyncds["unprivileged"].url("unprivileged"),
                trees=("two",),
                extra=("--no-owner", "--no-group", "--no-devices"),
                server=self.rsyncds["unprivileged"],
                is_unprivileged=True,
            ),
        ]
        self.nodes = {node.name: node for node in nodes}
        self.rsync = FakeRsync(home / "fake")
        self.settings: dict[str, object] = {
            "wpaths": [str(self.tree(tree)) for tree in TREES],
            "rpaths": list(TREES),
            "rnodes": [node.item(self.sources) for node in nodes],
            "rexcludes": {str(self.tree(tree)): list(patterns) for tree, patterns in EVERYWHERE.items()},
            "rsync": str(self.rsync.path),
            "edelay": 1.0,
            "rretry": (0.2, 2.0),
            "rtimeout": 4,
        }
        self.daemon = PipedDaemon(home / "inosync", self.settings, args, self.sshds[0].env())

    def tree(self, name: str) -> Path:
        return self.sources / name

    def now(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.began

    def reload(self, settings: Mapping[str, object] | None = None) -> None:
        """Send SIGHUP with these additional settings, and wait until the reload is done."""
        self.daemon.configure({**self.settings, **(settings or {})})
        self.reload_file()

    def reload_file(self) -> None:
        """Send SIGHUP and wait until the reload is done."""
        if self.daemon.stderr_is_blocked:  # then the line about it may be dropped
            self.daemon.ask("reload")
            return
        since = len(self.daemon.log())
        self.daemon.hup()
        self.daemon.until_logged(r"default\.py reloaded", since=since)

    # Beginning and end -------------------------------------------------------------------------------

    def set_up(self) -> None:
        """Make the disk and start the servers."""
        # Without permission to mount there is no fault of a full disk.
        if self._mount_coarse(self.disk):
            self.nodes["small"] = replace(self.nodes["small"], is_coarse=True)
        for node in self.nodes.values():
            node.place.mkdir(parents=True, exist_ok=True)
            if node.is_unprivileged and os.geteuid() == 0:
                os.chown(node.place, int(NOBODY), int(NOBODY))
        for server in self.servers():
            server.start()

    @property
    def mounted(self) -> bool:
        """Whether the small disk is mounted."""
        return self.disk in self.mounts

    def _mount_coarse(self, place: Path) -> bool:
        """Mount an ext4 with small inodes, and so with time stamps of one second, if that is possible."""
        image = self.home / f"{place.name}.img"
        with image.open("wb") as file:
            file.truncate(DISK_MEGABYTES << 20)
        for command in (
            ["mkfs.ext4", "-q", "-F", "-I", "128", "-m", "0", "-N", "60000", str(image)],
            ["mount", "-o", "loop", str(image), str(place)],
        ):
            if os.geteuid() != 0 or shutil.which(command[0]) is None or not _succeeds(command):
                return False
        self.mounts.append(place)
        with contextlib.suppress(OSError):
            (place / "lost+found").rmdir()
        return True

    def mount_bind(self, source: Path, place: Path) -> bool:
        """Mount a directory at another place too, if that is possible."""
        if os.geteuid() != 0 or not _succeeds(["mount", "--bind", str(source), str(place)]):
            return False
        self.mounts.append(place)
        return True

    def unmount(self, place: Path) -> None:
        """Unmount; a process may keep it busy for a moment."""
        until(lambda: _succeeds(["umount", str(place)]), 30, f"{place} to be unmounted")
        self.mounts.remove(place)

    def servers(self) -> list[Server]:
        return [*self.rsyncds.values(), *self.sshds]

    def tear_down(self) -> None:
        """End everything; raise AssertionError if the daemon leaves anything."""
        try:
            self.daemon.close()
        finally:
            self.daemon.unblock_stderr()
            for server in self.servers():
                server.kill()
            for place in reversed(self.mounts.copy()):
                self.unmount(place)

    # Comparing ---------------------------------------------------------------------------------------

    def differences(self, content: bool = True) -> list[Difference]:
        """Return the differences between the nodes and the trees."""

        @cache
        def source(tree: str) -> trees.Tree:
            return trees.snapshot(self.tree(tree), content)

        found: list[Difference] = []
        for node in self.nodes.values():
            for tree in node.trees:
                copy = node.place / tree
                if not copy.is_dir():
                    found.append((node.name, tree, "is not there"))
                    continue
                expected = {
                    path: entry for path, entry in source(tree).items() if not node.excluded(tree, path)
                }
                # Excluded names are never sent: one on a node would be a difference.
                there = trees.snapshot(copy, content)
                if node.patterns(tree):
                    # An excluded name sets the time of its directory, which is then not a change to send.
                    expected, there = _without_times(expected), _without_times(there)
                expected, there = node.comparable(expected), node.comparable(there)
                found += [(node.name, tree, line) for line in trees.diff(expected, there)]
        return found

    def rsync_would_do(self) -> list[Difference]:
        """Return what rsync would still do, with contents compared, except for times of the roots."""
        found = []
        for node in self.nodes.values():
            for tree in node.trees:
                done = subprocess.run(
                    [
                        shutil.which("rsync") or "rsync",
                        *("-n", "-a", "-c", "--delete", "--itemize-changes"),
                        f"--modify-window={0 if node.is_coarse else -1}",
                        *(("--no-owner", "--no-group", "--no-devices") if node.is_unprivileged else ()),
                        *(f"--exclude={pattern}" for pattern in node.patterns(tree)),
                        f"{self.tree(tree)}/",
                        f"{node.place / tree}/",
                    ],
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    check=False,
                )
                lines = [
                    line
                    for line in done.stdout.decode(errors="replace").splitlines()
                    if not line.startswith(".d..t...... ./" if not node.patterns(tree) else ".d..t...... ")
                ]
                if done.returncode:
                    lines.append(f"exit {done.returncode}: {done.stderr.decode(errors='replace')}")
                found += [(node.name, tree, line) for line in lines]
        return found

    def is_level(self) -> bool:
        """Whether all nodes are ok and have no difference."""
        if "Traceback" in self.daemon.log():
            raise AssertionError("a traceback in the log")
        if self.daemon.exit_code is not None:
            raise AssertionError(f"the daemon has ended with {self.daemon.exit_code}")
        states = self.daemon.states()
        return (
            set(states) == set(self.nodes)
            and all(state == "ok" for state in states.values())
            # What was written twice within a second of coarse times is sent once more two seconds later.
            and not self.differences(content=self.coarse_sources)
        )

    def until_level(self, timeout: float = LEVEL) -> list[Difference]:
        """Wait until everything is level; return the differences that are left after ``timeout`` seconds."""
        try:
            until(self.is_level, timeout, "everything to be level")
        except AssertionError as error:
            return [*self.differences(), ("all", "all", str(error))]
        found = self.differences()
        if found:
            # A second look that sends a file again changes the time of its directory for a moment.
            until(self.is_level, timeout, "everything to be level again")
            found = self.differences()
        return found


def _succeeds(command: list[str]) -> bool:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return done.returncode == 0


def _without_times(tree: trees.Tree) -> trees.Tree:
    """Return the tree with the time of all directories set to 0."""
    return {
        path: replace(entry, mtime_ns=0) if entry.type == "directory" else entry
        for path, entry in tree.items()
    }
