"""Directories that cannot be watched or read are mirrored later, and the node is degraded until then."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import few_watches, procs
from support.daemon import LAUNCHER, Daemon
from support.wait import until

WATCHES = 3
FAST = {"edelay": 0.2, "equiet": 0.02, "rretry": (0.1, 0.5)}


class Setup:
    """A daemon with two nodes and a tree, not started."""

    def __init__(self, home: Path, launcher: Path) -> None:
        self.home = home
        self.tree = home / "tree"
        self.tree.mkdir()
        self.daemon = Daemon(home / "inosync", {}, ("-v",), launcher=launcher)
        self.configure("tree")

    def configure(self, *trees: str) -> None:
        nodes = []
        for name in "ab":
            place = self.home / "nodes" / name
            place.mkdir(parents=True, exist_ok=True)
            nodes.append({"node": f"{place}/", "name": name})
        wpaths = [str(self.home / tree) for tree in trees]
        self.daemon.configure({"wpaths": wpaths, "rpaths": list(trees), "rnodes": nodes, **FAST})

    def flush(self, timeout: float = 60) -> list[str]:
        """Flush, and return the names of the nodes that lack something."""
        return [node["name"] for node in self.daemon.ask("flush", timeout=timeout)["behind"]]

    def lag(self, name: str) -> float:
        """Return a node's lag, in seconds."""
        [lag] = [node["lag"] for node in self.daemon.ask("status")["nodes"] if node["name"] == name]
        return float(lag)

    def until_level(self, state: str, *trees: str) -> None:
        pairs = [(self.home / tree, self.home / "nodes" / node / tree) for tree in trees for node in "ab"]
        self.daemon.until_level(pairs, states=(state,), nodes=2)

    def until_titles(self, master: str, worker: str) -> None:
        """Wait until the titles of the master and of a's worker match."""
        until(lambda: re.search(master, self.daemon.title()), 30, f"a master's title with {master}")
        until(lambda: re.search(worker, self._title_of_a()), 30, f"a worker's title with {worker}")

    def _title_of_a(self) -> str:
        pid = self.daemon.workers().get("a")
        return procs.title(pid) if pid else ""


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Setup]:
    """A setup with at most ``WATCHES`` watches beside that of flush's marks."""
    yield from closed(Setup(tmp_path, few_watches.launcher(tmp_path, WATCHES + 1)))


def closed(s: Setup) -> Iterator[Setup]:
    try:
        yield s
    finally:
        s.daemon.close()


def test_unwatched_directories_are_mirrored_until_there_are_more_watches(
    setup: Setup,
) -> None:
    s = setup
    for number in range(4):
        (s.tree / f"{number}/deep/deeper").mkdir(parents=True)
        (s.tree / f"{number}/deep/file").write_text("content")
    s.daemon.start()
    s.until_level("degraded", "tree")
    sysctl = r"no watches left: sysctl user\.max_inotify_watches=\d+"
    s.daemon.until_logged(rf"{re.escape(str(s.tree))}: 10 directories are not watched, such as .*: {sysctl}$")
    s.until_titles(
        "2 degraded] 3 dirs, 10 not watched$", rf"\[degraded\] 10 directories not watched: {sysctl}$"
    )
    # Changes of all kinds, most of them in directories that are not watched.
    for number in range(4):
        place = s.tree / f"{number}/deep"
        place.joinpath("file").write_text("CONTENT")
        place.joinpath("new/below/it").mkdir(parents=True)
        place.joinpath("new/below/file").write_text(f"{number}")
        place.joinpath("deeper").rmdir()
    s.until_level("degraded", "tree")
    for number in range(4):
        place = s.tree / f"{number}/deep"
        place.joinpath("file").unlink()
        place.joinpath("new/below/file").chmod(0o640)
        place.joinpath("new/below").rename(place / "renamed")
        place.rename(s.tree / f"{number}/moved")
    s.until_level("degraded", "tree")
    # A round of comparisons is no older than the next one.
    until(lambda: s.lag("a") > 0, 30, "what is unseen to count")
    # Removed directories give their watches back.
    for number in range(3):
        shutil.rmtree(s.tree / f"{number}")
    (s.tree / "3/moved/new").rmdir()
    s.until_level("degraded", "tree")
    s.until_titles(r" 3 dirs, \d not watched", r"\[degraded\] \d director")
    few_watches.allow(s.daemon.pid, 1000)
    s.until_level("ok", "tree")
    s.daemon.until_logged("all directories are watched again: no watches left")
    s.until_titles(r"2 ok\] \d dirs$", r"\[ok\]")
    (s.tree / "3/moved/renamed/file").write_text("watched")
    s.until_level("ok", "tree")


def test_wpath_without_a_watch_at_a_reload_is_mirrored_degraded(setup: Setup) -> None:
    s = setup
    (s.tree / "takes/watches").mkdir(parents=True)
    (s.home / "second/sub").mkdir(parents=True)
    (s.home / "second/file").write_text("content")
    s.daemon.start()
    s.until_level("ok", "tree")
    s.configure("tree", "second")
    s.daemon.hup()
    s.until_level("degraded", "tree", "second")
    (s.home / "second/sub/another").write_text("content")
    (s.home / "second/file").unlink()
    s.until_level("degraded", "tree", "second")
    shutil.rmtree(s.tree / "takes")
    s.until_level("ok", "tree", "second")
    (s.home / "second/sub/watched").write_text("content")
    s.until_level("ok", "tree", "second")


def test_flush_waits_for_a_poll_of_unwatched_directories(setup: Setup) -> None:
    s = setup
    for number in range(4):
        (s.tree / f"{number}/deep").mkdir(parents=True)
    s.daemon.start()
    s.until_level("degraded", "tree")
    for number in range(12):
        place = s.tree / f"{number % 4}/deep"
        place.joinpath(f"file{number}").write_text(f"{number}")
        place.joinpath(f"new{number}/below").mkdir(parents=True)
        place.joinpath(f"new{number}/below/file").write_text(f"{number}")
        behind = s.flush()
        assert behind == []
        for node in "ab":
            there = s.home / "nodes" / node / "tree" / f"{number % 4}/deep"
            assert (there / f"file{number}").read_text() == f"{number}"
            assert (there / f"new{number}/below/file").read_text() == f"{number}"


# Directories that cannot be read -------------------------------------------------------------------------

# Takes from root the capabilities to read everything.
POWERLESS = """\
import os, sys
caps = "--bounding-set=-dac_override,-dac_read_search"
os.execvp("setpriv", ["setpriv", caps, sys.executable, {launcher!r}, *sys.argv[1:]])
"""


@pytest.fixture
def powerless(tmp_path: Path) -> Iterator[Setup]:
    """A setup whose daemon cannot read everything."""
    launcher = LAUNCHER
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("no setpriv")
        launcher = tmp_path / "launcher.py"
        launcher.write_text(POWERLESS.format(launcher=str(LAUNCHER)))
    yield from closed(Setup(tmp_path, launcher))


def test_unreadable_directories_are_reported_and_mirrored_later(powerless: Setup) -> None:
    s = powerless
    for name in ("closed", "open", "later"):
        (s.tree / name / "deep").mkdir(parents=True)
        (s.tree / name / "deep/file").write_text(name)
    (s.tree / "closed").chmod(0)
    s.daemon.start()
    s.daemon.until_logged("1 directory is not watched, such as closed: Permission denied$")
    for node in "ab":
        s.daemon.until_state(node, ("degraded",))
    (s.tree / "open/deep/file").write_text("changed")
    arrived = s.home / "nodes/a/tree/open/deep/file"
    until(lambda: arrived.exists() and arrived.read_text() == "changed", 30, "the change of another file")
    assert sorted(s.flush(0.5)) == ["a", "b"], "what is in it cannot be known"
    until(lambda: s.lag("a") > 1, 30, "the lag to grow although nothing waits")
    (s.tree / "closed").chmod(0o755)
    s.until_level("ok", "tree")
    until(lambda: s.lag("a") == 0, 30, "the lag to be over")
    assert s.flush() == []
    (s.tree / "closed/deep/file").write_text("watched")
    s.until_level("ok", "tree")
    # Moved before it is closed, because a user cannot delete a directory that he cannot open.
    (s.tree / "later").rename(s.tree / "moved")
    s.until_level("ok", "tree")
    with (s.tree / "moved/deep/file").open("w") as file:
        (s.tree / "moved/deep").chmod(0)
        file.write("changed")
    for node in "ab":
        s.daemon.until_state(node, ("degraded",))
    (s.tree / "moved/deep").chmod(0o755)
    s.until_level("ok", "tree")
    s.daemon.until_logged("all directories are watched again: Permission denied")
