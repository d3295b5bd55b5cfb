"""Overflows of the kernel's event queue lose no change."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from support import procs
from support.daemon import MakeDaemon
from support.wait import until
from support.warm import MakeWarm, cont, stop

LIMIT = Path("/proc/sys/fs/inotify/max_queued_events")
MOST = 200_000


def test_changes_lost_in_an_overflow_reach_every_node(warm: MakeWarm) -> None:
    limit = int(LIMIT.read_text())
    if limit > MOST:
        pytest.skip(f"{LIMIT} is {limit}")
    w = warm({"a": "", "b": ""})
    for name in ("one", "two", "gone"):
        w.change(name)
    (w.tree() / "dir").mkdir()
    w.daemon.start()
    w.until_level()
    fulls = {node: w.fulls(node) for node in "ab"}
    master = procs.look(w.daemon.pid)
    assert master is not None
    stop(master)
    try:
        files = [os.open(w.tree() / name, os.O_WRONLY) for name in ("one", "two")]
        for _ in range(limit // 2 + 1):
            for file in files:  # alternately, because the kernel merges equal events in a row
                os.pwrite(file, b"x", 0)
        for file in files:
            os.close(file)
        (w.tree() / "gone").unlink()
        (w.tree() / "dir/sub").mkdir()
        (w.tree() / "dir/sub/file").write_text("content")
    finally:
        cont(master)
    w.daemon.until_logged("the kernel's event queue overflowed", 60)
    for node in "ab":
        until(lambda: w.fulls(node) > fulls[node], 60, f"a full mirror of {node}")  # noqa: B023
    w.until_level()
    # Later changes are seen, also in the new directory.
    (w.tree() / "dir/sub/file").write_text("more")
    w.until_level()


# Overflow after overflow ---------------------------------------------------------------------------------


FAST = {"edelay": 0.2, "equiet": 0.02, "rretry": (0.1, 0.5)}
QUEUE = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
OVERFLOW = "the kernel's event queue overflowed"


def test_changes_lost_in_repeated_overflows_reach_every_node(tmp_path: Path, daemon: MakeDaemon) -> None:
    tree = tmp_path / "tree"
    for number in range(300):
        (tree / f"{number}/deep").mkdir(parents=True)
        (tree / f"{number}/deep/file").write_text("before")
    one, two = tree / "0/deep/file", tree / "1/deep/file"
    nodes = []
    for name in "ab":
        place = tmp_path / "nodes" / name
        place.mkdir(parents=True)
        nodes.append({"node": f"{place}/", "name": name})
    d = daemon({"wpaths": [str(tree)], "rpaths": ["tree"], "rnodes": nodes, **FAST}, ("-v",))
    pairs = [(tree, tmp_path / "nodes" / name / "tree") for name in "ab"]
    d.start()
    d.until_level(pairs)
    pids = {"master": d.pid, **d.workers()}
    for times in range(1, 4):
        os.kill(d.pid, signal.SIGSTOP)
        try:
            until(lambda: (p := procs.look(d.pid)) is not None and p.state == "T", 30, "the master to stop")
            for _ in range(QUEUE // 2 + 500):  # alternately, because the kernel merges equal events in a row
                os.utime(one)
                os.utime(two)
            # The kernel drops the events of these.
            (tree / f"new-{times}/deep").mkdir(parents=True)
            (tree / f"new-{times}/deep/file").write_text("new")
            shutil.rmtree(tree / f"{10 + times}")
            (tree / f"{20 + times}").rename(tree / f"renamed-{times}")
            (tree / f"{30 + times}/deep/file").write_text(f"changed {times}")
        finally:
            os.kill(d.pid, signal.SIGCONT)
        if times != 2:  # the third overflow comes during the recovery from the second
            d.until_level(pairs)
            (tree / f"new-{times}/deep/watched").write_text("content")
            (tree / f"renamed-{times}/deep/file").write_text("content")
            d.until_level(pairs)
    log = d.log()
    assert 1 <= log.count(OVERFLOW) <= 3
    # One walk at the start, and at most one for each overflow.
    assert log.count("directories are watched") <= 1 + log.count(OVERFLOW)
    assert {"master": d.pid, **d.workers()} == pids
