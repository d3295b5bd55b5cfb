"""More events than the kernel keeps, black-box: what changes after the last of them is not lost either."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support import procs
from support.wait import until
from support.warm import MakeWarm, cont, stop

LIMIT = Path("/proc/sys/fs/inotify/max_queued_events")
MOST = 200_000


def test_what_an_overflow_has_swallowed_reaches_every_node(warm: MakeWarm) -> None:
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
            for file in files:  # alternately: the kernel makes one of equal events that follow each other
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
    # And what follows is seen, in the new directory, too.
    (w.tree() / "dir/sub/file").write_text("more")
    w.until_level()
