"""Receivers that nobody sends to any more, and that still have something to read.

A receiver that was stopped goes on with what it has read, or has before it, when it is continued: that may be
a transfer that was given up long ago, and then it does at once what was right at that time, next to a
transfer that does what is right now. Whoever writes last wins. No sender can know of such a receiver, and
nothing of inosync's runs on a node that could. A node that comes back after it has hung is full of them only
if its processes were stopped; where the network was away, they have long read all that there was.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from pathlib import Path

from support import procs
from support.procs import Process, Server

ESTABLISHED = "01"


def end_orphans(server: Server) -> int:
    """Kill the stopped connections of a server whose other side is gone; how many processes that were."""
    served = _established()
    connections = server.connections()
    # What sshd has started outlives it: then it is nobody's child.
    below = {process.pid for process in connections}
    killed = 0
    for process in connections:
        if process.ppid not in below:
            members = procs.family([process.pid])
            if not any(_sockets(member.pid) & served for member in members):
                killed += _kill(members)
    return killed


def _kill(processes: Iterable[Process]) -> int:
    count = 0
    for process in processes:
        procs.send(process, signal.SIGKILL)
        count += 1
    return count


def _established() -> set[str]:
    """The inodes of all sockets with another side: proc_pid_net(5)."""
    inodes = set()
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError):
            for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == ESTABLISHED:
                    inodes.add(f"socket:[{words[9]}]")
    return inodes


def _sockets(pid: int) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found.add(os.readlink(f"/proc/{pid}/fd/{name}"))
    return found
