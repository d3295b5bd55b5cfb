"""The memory, descriptors, watches and processes of a daemon."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass

from bench.machine import memory, watches
from support import procs, trees

from chaos.testbed import TREES, Testbed

MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Figures:
    """The figures at one moment; memory in bytes."""

    master_pss: int
    master_rss: int
    workers_pss: int
    workers_rss: int
    waiting_pss: int
    """PSS of the rsyncs and remote shells below the workers."""
    master_fds: int
    workers_fds: int
    watches: int
    directories: int
    """Directories to be watched."""
    children: int
    """Children of the master, including zombies."""
    processes: int
    """All descendants of the master, and itself."""
    entries: int
    """Entries in the trees."""

    def __str__(self) -> str:
        def mb(pss: int, rss: int) -> str:
            return f"{pss / MEGABYTE:.1f}/{rss / MEGABYTE:.1f} MB"

        return (
            f"PSS/RSS master {mb(self.master_pss, self.master_rss)}, "
            f"workers {mb(self.workers_pss, self.workers_rss)}, "
            f"their rsyncs {self.waiting_pss / MEGABYTE:.1f} MB; "
            f"descriptors {self.master_fds} + {self.workers_fds}; "
            f"{self.watches} watches of {self.directories} directories; "
            f"{self.children} children, {self.processes} processes; {self.entries} entries"
        )


def figures(testbed: Testbed) -> Figures:
    """Measure everything, at a moment when all is level."""
    master = testbed.daemon.pid
    everybody = [process.pid for process in procs.family([master])]
    children = [process.pid for process in procs.family([master]) if process.ppid == master]
    below = [pid for pid in everybody if pid != master and pid not in children]
    own, workers = memory(master), memory(*children)
    sizes = Counter(
        entry.type
        for tree in TREES
        for path, entry in trees.snapshot(testbed.tree(tree), content=False).items()
        if not testbed.nodes["local"].excluded(tree, path)
    )
    return Figures(
        own.pss,
        own.rss,
        workers.pss,
        workers.rss,
        memory(*below).pss,
        _descriptors(master),
        sum(map(_descriptors, children)),
        watches(master),
        sizes["directory"] + len(TREES),
        len(children),
        len(everybody),
        sum(sizes.values()),
    )


def _descriptors(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except FileNotFoundError:
        return 0
