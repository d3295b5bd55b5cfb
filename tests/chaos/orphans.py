"""Receivers that nobody sends to any more, and that still have something to read.

A receiver goes on with what it has read, or has before it, when its sender is gone: it does what was right at
that time, next to a transfer that does what is right now, and whoever writes last wins. On a busy node that
lasts a second; one that was stopped does so when it is continued. inosync looks again some time after each
batch of which a try was cut off. It cannot know of those of a master that was killed, and of a node that was
taken out and put in again: unless ``late_writers`` are asked for, those end before the next one begins.
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

from chaos.testbed import World

ESTABLISHED = "01"
NOBODY = "0"
"""The inode of a socket without a process."""


def settle(world: World, names: Iterable[str]) -> None:
    """Return when nobody writes to these nodes for a daemon that is gone, or was told to leave them."""
    for name in names:
        server = world.nodes[name].server
        if server is None or world.late_writers:
            continue
        if world.busy & {f"server of {name}", f"transfer of {name}"}:
            end_orphans(server)  # they do not end by themselves
        try:
            until(partial(_has_no_orphans, server), 60, f"what was received on {name} to be through")
        except AssertionError as error:
            left = [f"{process.pid} {procs.title(process.pid)}" for process in _orphans(server)]
            raise AssertionError(f"{error}; there is {', '.join(left)}") from None


def end_orphans(server: Server) -> int:
    """Kill the connections of a server whose other side is gone; how many processes that were."""
    found = _orphans(server)
    for process in found:
        procs.send(process, signal.SIGKILL)
    return len(found)


def _has_no_orphans(server: Server) -> bool:
    return not _orphans(server)


def _orphans(server: Server) -> list[Process]:
    served = _served()
    connections = server.connections()
    # What sshd has started outlives it: then it is nobody's child.
    below = {process.pid for process in connections}
    found = []
    for process in connections:
        if process.ppid not in below:
            members = procs.family([process.pid])
            if not any(_sockets(member.pid) & served for member in members):
                found += members
    return found


def _served() -> set[str]:
    """The sockets whose other side, on this machine as well, has a process: proc_pid_net(5).

    That a sender is gone is not to be seen on the receiver's side before it has read all that was sent.
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
