"""Receivers whose sender is gone and that still have data to read.

Such a receiver handles the data that it has, beside the next transfer, and the last writer wins. On a busy
node that takes a second; a stopped receiver does it when it is continued. inosync repeats each batch some
time after a try was cut off. It cannot know about receivers of a killed master, and of a node that was
removed and added again: unless ``late_writers`` is set, those end before the next transfer begins.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from support import procs
from support.procs import Process, Server
from support.wait import until

from chaos.testbed import Testbed

ESTABLISHED = "01"
NOBODY = "0"
"""The inode of a socket that no process has."""


def settle(testbed: Testbed, names: Iterable[str]) -> None:
    """Wait until no orphaned receiver writes to these nodes."""
    for name in names:
        server = testbed.nodes[name].server
        if server is None or testbed.late_writers:
            continue
        if testbed.busy & {f"server of {name}", f"transfer of {name}"}:
            end_orphans(server)  # they do not end by themselves
        try:
            until(partial(_has_no_orphans, server), 60, f"what was received on {name} to be through")
        except AssertionError as error:
            left = [f"{process.pid} {procs.title(process.pid)}" for process in _orphans(server)]
            raise AssertionError(f"{error}; there is {', '.join(left)}") from None


def end_orphans(server: Server) -> int:
    """Kill the connections of a server whose other side is gone; return the number of processes."""
    found = _orphans(server)
    for process in found:
        procs.send(process, signal.SIGKILL)
    return len(found)


def _has_no_orphans(server: Server) -> bool:
    return not _orphans(server)


def _orphans(server: Server) -> list[Process]:
    served = _served()
    connections = server.connections()
    # A process that sshd has started outlives it.
    below = {process.pid for process in connections}
    found = []
    for process in connections:
        if process.ppid not in below:
            members = procs.family([process.pid])
            if not any(_sockets(member.pid) & served for member in members):
                found += members
    return found


def _served() -> set[str]:
    """Return the sockets whose other side, on this machine, has a process: proc_pid_net(5).

    A receiver sees the end of its sender only when it has read all that was sent.
    """
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    alive = {(words[1], words[2]) for words in lines if words[3] == ESTABLISHED and words[9] != NOBODY}
    return {f"socket:[{words[9]}]" for words in lines if (words[2], words[1]) in alive}


def _sockets(pid: int) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found.add(os.readlink(f"/proc/{pid}/fd/{name}"))
    return found
