"""Big files, which go to a node in a transfer of their own, and what can be seen of that from outside."""

from __future__ import annotations

import os
from pathlib import Path

from support import procs
from support.wait import until
from support.warm import Warm

SPEED = 4_000
"""KB/s that a node takes in these tests, so that a big file is under way for seconds."""
SIZE = 24_000_000
BIG = os.urandom(1 << 20) * (SIZE >> 20)
HALF = BIG[: SIZE // 2]
"""A big file that is under way for half as long."""


def write_big(w: Warm, name: str = "d/big", content: bytes = BIG) -> None:
    fresh = w.home / "fresh-big"
    fresh.write_bytes(content)
    fresh.rename(w.tree() / name)


def big_rsync(w: Warm, node: str = "a") -> int:
    """Return the process number of the rsync of the second lane; 0 if there is none."""
    worker = w.daemon.workers().get(node, 0)
    for process in procs.family([worker])[1:] if worker else []:
        words = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
        if process.ppid == worker and b"--info=progress2" in words and b"-rlptgoD" not in words:
            return process.pid
    return 0


def until_big(w: Warm) -> int:
    """Wait until a big file is under way: the node has a part of it. Return its rsync."""
    found = until(lambda: big_rsync(w), 60, "an rsync in the second lane")
    until(lambda: partial(w), 60, "a part of the big file on the node")
    return found


def partial(w: Warm) -> list[Path]:
    return [path for path in w.copy("a").rglob(".*.??????") if path.stat().st_size]
