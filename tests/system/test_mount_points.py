"""Mount points below a wpath, with and without ``-x``, and mounts made while the daemon runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import mount_namespace
from support.daemon import Daemon
from support.wait import until

FAST = {"edelay": 0.2, "equiet": 0.02, "rretry": (0.1, 0.5)}


class Setup:
    """A daemon in a mount namespace of its own; a test mounts at ``tree/mnt``."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.tree = home / "tree"
        (self.tree / "mnt/below").mkdir(parents=True)
        (self.tree / "mnt/below/file").write_text("below")
        (self.tree / "file").write_text("content")
        self.daemon = Daemon(home / "inosync", {}, ("-v",), launcher=mount_namespace.launcher(home))

    def start(self, **extra: str) -> None:
        """Start it with these nodes, each with its ``extra``."""
        nodes = []
        for name, words in extra.items():
            place = self.home / "nodes" / name
            place.mkdir(parents=True, exist_ok=True)
            nodes.append({"node": f"{place}/", "name": name, "extra": words})
        self.daemon.configure({"wpaths": [str(self.tree)], "rpaths": ["tree"], "rnodes": nodes, **FAST})
        self.daemon.start()
        pairs = [(self.tree, self.home / "nodes" / name / "tree") for name in extra]
        self.daemon.until_level(pairs, nodes=len(extra))

    def run(self, *command: str, check: bool = True) -> int:
        return mount_namespace.run(self.daemon.pid, *command, check=check)

    def shell(self, script: str) -> None:
        """Run a script in the tree, inside of the namespace."""
        self.run("sh", "-ec", f'cd "$0" && {script}', str(self.tree))

    def files(self, node: str) -> set[str]:
        """Return the files on a node."""
        top = self.home / "nodes" / node / "tree"
        return {
            os.path.relpath(os.path.join(above, name), top)
            for above, _, names in os.walk(top)
            for name in names
        }

    def until_has(self, node: str, *files: str) -> None:
        try:
            until(lambda: self.files(node) == {"file", *files}, 30, f"{files} on {node}")
        except AssertionError as error:
            log = self.daemon.log_tail()
            raise AssertionError(f"{error}\nit has {self.files(node)}; the log:\n{log}") from None

    def until_follows(self, node: str, content: str) -> None:
        """Change the file in the root, and wait until the node has the change."""
        (self.tree / "file").write_text(content)
        copy = self.home / "nodes" / node / "tree/file"
        until(lambda: copy.read_text() == content, 30, f"a change on {node}")

    def mount(self) -> None:
        self.run("mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "tmpfs", str(self.tree / "mnt"))
        self.shell("mkdir -p mnt/sub && echo 1 >mnt/sub/a && echo 2 >mnt/b")

    def unmount(self, *how: str) -> None:
        # A process may still be reading in it.
        until(lambda: self.run("umount", *how, str(self.tree / "mnt"), check=False) == 0, 30, "the unmount")


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Setup]:
    s = Setup(tmp_path)
    try:
        yield s
    finally:
        s.daemon.close()


def test_mounts_are_followed_only_by_nodes_that_cross_mount_points(
    setup: Setup,
) -> None:
    s = setup
    s.start(crosses="", stays="-x")
    for how in ((), ("-l",)):
        s.mount()
        s.until_has("crosses", "mnt/sub/a", "mnt/b")
        s.shell("echo 3 >mnt/sub/c && mkdir mnt/new && echo 4 >mnt/new/d && rm mnt/b")
        s.until_has("crosses", "mnt/sub/a", "mnt/sub/c", "mnt/new/d")
        s.until_follows("stays", f"after {how}")
        s.until_has("stays", "mnt/below/file")
        s.unmount(*how)
        s.until_has("crosses", "mnt/below/file")
        (s.tree / "mnt/below/file").write_text(f"watched again {how}")
        pairs = [(s.tree, s.home / "nodes" / node / "tree") for node in ("crosses", "stays")]
        s.daemon.until_level(pairs, nodes=2)


def test_mounts_are_not_watched_if_no_node_crosses_them(setup: Setup) -> None:
    s = setup
    s.start(a="-x", b="--one-file-system -v")
    until(lambda: " 3 dirs" in s.daemon.title(), 30, "three directories to be watched")
    s.mount()
    until(lambda: " 1 dirs" in s.daemon.title(), 30, "one directory to be watched")
    s.shell("echo 3 >mnt/sub/c && mkdir mnt/new && echo 4 >mnt/new/d")
    (s.tree / "late").write_text("content")
    s.until_has("a", "late", "mnt/below/file")
    s.until_has("b", "late", "mnt/below/file")
    s.unmount()
    until(lambda: " 3 dirs" in s.daemon.title(), 30, "three directories to be watched again")
    (s.tree / "mnt/below/file").write_text("watched again")
    s.daemon.until_level([(s.tree, s.home / "nodes" / node / "tree") for node in "ab"], nodes=2)


def test_directory_that_is_hidden_by_a_mount_for_a_moment_is_not_lost(setup: Setup) -> None:
    s = setup
    s.start(a="")
    s.shell("mkdir p ../empty && mv mnt p/mnt")  # a bind mount, because the kernel reports no end of it
    for old, new in ("pq", "qp", "pq"):
        s.shell(f"mount --bind ../empty {old}/mnt && mv {old} {new} && sleep 0.1 && umount -l {new}/mnt")
    s.until_has("a", "q/mnt/below/file")
    (s.tree / "q/mnt/below/file").write_text("still watched")
    s.daemon.until_level([(s.tree, s.home / "nodes/a/tree")], nodes=1)


def test_mount_point_that_is_removed_causes_no_full_mirror(setup: Setup) -> None:
    s = setup
    s.start(a="")
    fulls = s.daemon.log().count("full mirror started")
    for number in range(3):
        s.shell(f"mkdir t && mount --bind mnt t && echo {number} >late && umount -l t && rmdir t")
        s.until_has("a", "mnt/below/file", "late")
        s.shell("mkdir -p mnt/point && mount --bind mnt/below mnt/point && umount -l mnt/point")
        s.daemon.until_level([(s.tree, s.home / "nodes/a/tree")], nodes=1)
    assert s.daemon.log().count("full mirror started") == fulls
