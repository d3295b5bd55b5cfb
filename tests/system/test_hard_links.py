"""Hard links: a change under one name reaches every node under all names."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from support.daemon import MakeDaemon

FAST = {"edelay": 0.2, "equiet": 0.02, "rretry": (0.1, 0.5)}


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def test_hard_links_change_under_all_names_on_all_nodes(tmp_path: Path, daemon: MakeDaemon) -> None:
    trees = [tmp_path / "tree", tmp_path / "second"]
    nodes = []
    for name in "ab":
        place = tmp_path / "nodes" / name
        place.mkdir(parents=True)
        nodes.append({"node": f"{place}/", "name": name})
    for tree in trees:
        for directory in ("a", "b/deep", "c"):
            (tree / directory).mkdir(parents=True)
    before = [trees[0] / "a/1", trees[0] / "b/deep/2", trees[0] / "c/3", trees[1] / "b/deep/4"]
    before[0].write_bytes(b"content of before")
    for path in before[1:]:
        path.hardlink_to(before[0])
    config = {"wpaths": [str(tree) for tree in trees], "rpaths": ["tree", "second"], "rnodes": nodes, **FAST}
    one = daemon(config, ("-v",))
    pairs = [(tree, tmp_path / "nodes" / node / tree.name) for tree in trees for node in "ab"]

    def until_level() -> None:
        one.until_level(pairs, nodes=2)

    one.start()
    until_level()
    while_it_runs = [trees[0] / "b/new 1", trees[1] / "a/new 2", trees[0] / "c/new 3"]
    while_it_runs[0].write_bytes(b"content while it runs")
    for path in while_it_runs[1:]:
        path.hardlink_to(while_it_runs[0])
    until_level()
    changes: list[Callable[[Path], object]] = [
        lambda path: path.write_bytes(b"another content"),
        append,
        lambda path: os.truncate(path, 3),
        lambda path: path.chmod(0o640),
        lambda path: os.utime(path, (1, 1)),
    ]
    for number, change in enumerate(changes):
        for names in (before, while_it_runs):
            change(names[number % len(names)])
        until_level()
    # Change files whose names have moved meanwhile.
    trees[0].joinpath("c").rename(trees[1] / "moved")
    before[0].rename(trees[0] / "renamed")
    append(trees[1] / "moved/3")
    append(trees[0] / "b/new 1")
    until_level()


def test_hard_link_changed_then_moved_or_removed_updates_all_names(
    tmp_path: Path, daemon: MakeDaemon
) -> None:
    tree, copy = tmp_path / "tree", tmp_path / "node" / "tree"
    for directory in ("one", "two", "three"):
        (tree / directory).mkdir(parents=True)
    copy.parent.mkdir()
    for number in range(20):
        (tree / f"one/{number}").write_bytes(b"before")
        (tree / f"two/{number}").hardlink_to(tree / f"one/{number}")
    one = daemon({"wpaths": [str(tree)], "rpaths": ["tree"], "rnodes": [f"{copy.parent}/"], **FAST})
    one.start()
    one.until_level([(tree, copy)], nodes=1)
    for number in range(10, 20):
        append(tree / f"one/{number}")
    one.until_level([(tree, copy)], nodes=1)
    # The daemon reads no event before all of this is done.
    one.signal(signal.SIGSTOP)
    changes = """
        for n in 0 1 2 3 4; do echo more >>one/$n; mv one/$n one/new$n; done
        for n in 5 6 7 8 9; do echo more >>one/$n; done
        for n in 10 11 12; do echo more >>one/$n; rm one/$n; done
        for n in 13 14 15; do echo more >>one/$n; echo other >three/$n; mv three/$n one/$n; done
        mv one uno
    """
    subprocess.run(["sh", "-ec", changes], cwd=tree, check=True)
    one.signal(signal.SIGCONT)
    one.until_level([(tree, copy)], nodes=1)
