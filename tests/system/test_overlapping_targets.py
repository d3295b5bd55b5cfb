"""A local target that is, contains or lies inside a wpath by a bind mount: nothing is ever deleted."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import mount_namespace
from support.daemon import Daemon
from support.wait import until

FAST = {"edelay": 0.2, "equiet": 0.02, "rretry": (0.1, 0.5)}


class Setup:
    """A daemon in a mount namespace of its own, with the tree ``src/www`` and the node ``nodes``."""

    def __init__(self, home: Path) -> None:
        self.tree, self.nodes = home / "src/www", home / "nodes"
        self.tree.mkdir(parents=True)
        self.nodes.mkdir()
        (self.tree / "file").write_text("precious")
        (self.tree.parent / "other").write_text("precious, too")
        self.daemon = Daemon(home / "inosync", {}, ("-v",), launcher=mount_namespace.launcher(home))
        self.daemon.configure(
            {"wpaths": [str(self.tree)], "rpaths": ["/"], "rnodes": [str(self.nodes)], **FAST}
        )

    def is_unharmed(self) -> bool:
        return (self.tree / "file").read_text() == "precious" and (self.tree.parent / "other").exists()

    def until_stopped_and(self, repair: Callable[[], object]) -> None:
        """Change the tree, see that nothing is sent, and that it is once the target is repaired."""
        (self.tree / "new").write_text("new")
        until(lambda: "contains the wpath" in self.daemon.log_tail(), 30, "the refusal")
        assert self.is_unharmed()
        repair()
        until(lambda: (self.nodes / "new").exists(), 30, "the change")
        assert (self.nodes / "file").read_text() == "precious"
        assert self.is_unharmed()


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Setup]:
    s = Setup(tmp_path)
    try:
        yield s
    finally:
        s.daemon.close()


@pytest.mark.parametrize("words", [("-t",), ("--once",), ()], ids=["check", "once", "start"])
def test_target_that_reaches_the_wpath_by_a_bind_mount_is_refused(
    setup: Setup, words: tuple[str, ...]
) -> None:
    script = 'mount --bind "$0" "$1" && shift && exec "$@"'
    inosync = [sys.executable, str(Path(__file__).parents[2] / "bin/inosync"), "-c", str(setup.daemon.file)]
    shell = ["unshare", "-m", "--propagation", "private", "sh", "-ec", script]
    command = [*shell, str(setup.tree.parent), str(setup.nodes), *inosync, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 78, done.stderr
    assert f"contains the wpath '{setup.tree}'" in done.stdout + done.stderr
    assert setup.is_unharmed()


def test_bind_mount_made_while_it_runs_stops_the_node(setup: Setup) -> None:
    daemon = setup.daemon
    daemon.start()
    daemon.until_level([(setup.tree, setup.nodes)], nodes=1)
    mount_namespace.run(daemon.pid, "mount", "--bind", str(setup.tree.parent), str(setup.nodes))
    setup.until_stopped_and(lambda: mount_namespace.run(daemon.pid, "umount", str(setup.nodes)))


def test_symlink_switched_while_it_runs_stops_the_node(setup: Setup) -> None:
    daemon, link = setup.daemon, setup.nodes.with_name("link")
    link.symlink_to(setup.nodes)
    daemon.configure({"wpaths": [str(setup.tree)], "rpaths": ["/"], "rnodes": [str(link)], **FAST})
    daemon.start()
    daemon.until_level([(setup.tree, setup.nodes)], nodes=1)
    link.unlink()
    link.symlink_to(setup.tree.parent)

    def switch_back() -> None:
        link.unlink()
        link.symlink_to(setup.nodes)

    setup.until_stopped_and(switch_back)
