"""File descriptors: how many this process can have (RLIMIT_NOFILE, getrlimit(2)), and the first three."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_PER_NODE = 4
"""What the master needs for a node: two pipes to its worker, and what reports its end."""
_RESERVED = 128
"""For clients, watched directories, logs, and what happens to be open during a fork."""

_first_soft: int | None = None
"""The soft limit before it was raised."""


def occupy_standard_streams() -> None:
    """Open /dev/null for standard streams that are closed, so that no other file gets their number."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)


def lead_standard_streams_nowhere() -> None:
    """Lead the standard streams to /dev/null: what reads them to their end must not wait for this process."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.close(null)


def raise_soft_limit() -> None:
    """Raise the soft limit to the hard one, for this process and those that it forks."""
    global _first_soft
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    _first_soft = soft if _first_soft is None else _first_soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def restore_soft_limit() -> None:
    """Set the limit as it was, for a program to be started: some close every descriptor up to the limit."""
    if _first_soft is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(_first_soft, hard), hard))


@contextmanager
def first_soft_limit() -> Iterator[None]:
    """Have the limit as it was while a program is started: there is no code between its fork and exec."""
    if _first_soft is None:
        yield
        return
    restore_soft_limit()
    try:
        yield
    finally:
        raise_soft_limit()


def is_below_first_soft_limit(fd: int) -> bool:
    """Whether a descriptor would have been possible before the limit was raised."""
    return _first_soft is None or fd < _first_soft


def hard_limit() -> int:
    """Return how many descriptors this process can have at most."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard


def needed(nodes: int) -> int:
    """Return how many descriptors the master of so many nodes needs."""
    return _RESERVED + _PER_NODE * nodes


def shortage(nodes: int, limit: int) -> str:
    """Return what is wrong with a hard limit for so many nodes, and what to set; "" if it is enough."""
    if needed(nodes) <= limit:
        return ""
    fit = max(0, (limit - _RESERVED) // _PER_NODE)
    return (
        f"{nodes} nodes need {needed(nodes)} file descriptors, and the hard limit is {limit}: only {fit} of "
        f"them can be mirrored; set LimitNOFILE={needed(nodes)} in the unit, or ulimit -Hn {needed(nodes)}"
    )
