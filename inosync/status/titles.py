"""What ``ps`` shows of the master, and of a worker that runs no transfer: node first.

A worker makes the title itself while it runs a transfer (``worker.title``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from inosync.text import plural

_BEHIND = re.compile(r", (\d+) behind$")


def master(
    config: str, states: Mapping[str, int], directories: int, unwatched: int = 0, troubles: str = ""
) -> str:
    """``inosync: master default.py [3 nodes: 2 ok, 1 retrying] 1204 dirs``; ``states`` counts nodes.

    ``directories`` are watched, ``unwatched`` should be. ``troubles`` says why a tree is halted, and why
    nodes have no worker.
    """
    title = f"inosync: master {config} [{summary(states)}] {directories} dirs"
    return title + (f", {unwatched} not watched" if unwatched else "") + (f", {troubles}" if troubles else "")


def summary(states: Mapping[str, int]) -> str:
    """``3 nodes: 2 ok, 1 retrying``; ``states`` counts nodes."""
    counts = ", ".join(f"{count} {state}" for state, count in states.items() if count)
    return f"{plural(sum(states.values()), 'node')}: {counts}"


def starting(node: str) -> str:
    """The node has not confirmed anything yet."""
    return f"inosync: {node} [starting]"


def ok(node: str, at: str, verified: str = "") -> str:
    """The node has confirmed everything, last at ``at`` (HH:MM:SS).

    ``verified`` is the result of its last verification, if there was one.
    """
    return f"inosync: {node} [ok] synced {at}" + (f", {verified}" if verified else "")


def verified(at: str, differences: int) -> str:
    """``verified 10:02:11 (0 differences)``: the verification ended at ``at``."""
    return f"verified {at} ({plural(differences, 'difference')})"


def degraded(node: str, reason: str) -> str:
    """The node has everything but what ``reason`` says."""
    return f"inosync: {node} [degraded] {reason}"


def retrying(node: str, attempt: int, at: str, reason: str, behind: int) -> str:
    """The worker waits until ``at`` (HH:MM:SS) to try again; the node lacks ``behind`` changes."""
    return f"inosync: {node} [retry {attempt} at {at}] {reason}, {behind} behind"


def queued(node: str, attempt: int, reason: str, behind: int) -> str:
    """The worker tries again as soon as it has a slot."""
    return f"inosync: {node} [retry {attempt} waits for a slot] {reason}, {behind} behind"


def waiting(node: str, state: str, reason: str, behind: int) -> str:
    """The node lacks ``behind`` changes, and its worker has nothing to run."""
    return f"inosync: {node} [{state}] {reason}, {behind} behind"


def is_stale(shown: str, wanted: str) -> bool:
    """Return whether a worker that shows one title is to be sent another.

    A count of changes that has not grown by half is no reason: it would be sent with every change.
    """
    old, new = _BEHIND.search(shown), _BEHIND.search(wanted)
    if old is None or new is None or shown[: old.start()] != wanted[: new.start()]:
        return shown != wanted
    return int(new[1]) > int(old[1]) * 3 // 2
