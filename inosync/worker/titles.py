"""What ``ps`` shows: node first, changed on transitions only."""

from __future__ import annotations

from collections.abc import Mapping

from inosync.text import plural


def master(
    config: str, verdicts: Mapping[str, int], directories: int, unwatched: int = 0, worries: str = ""
) -> str:
    """``inosync: master default.py [3 nodes: 2 ok, 1 retrying] 1204 dirs``; ``verdicts`` counts nodes.

    ``directories`` are watched, ``unwatched`` should be. ``worries``: why a tree is halted, and what to do
    about it, and who has no worker; it stands at the end.
    """
    title = f"inosync: master {config} [{summary(verdicts)}] {directories} dirs"
    return title + (f", {unwatched} not watched" if unwatched else "") + (f", {worries}" if worries else "")


def summary(verdicts: Mapping[str, int]) -> str:
    """``3 nodes: 2 ok, 1 retrying``; ``verdicts`` counts nodes."""
    counts = ", ".join(f"{count} {word}" for word, count in verdicts.items() if count)
    return f"{plural(sum(verdicts.values()), 'node')}: {counts}"


def starting(node: str) -> str:
    """A worker that has no batch yet."""
    return f"inosync: {node} [starting]"


def ok(node: str, at: str, verified: str = "") -> str:
    """A worker whose node has confirmed everything it was sent, last at ``at`` (HH:MM:SS).

    ``verified``: what came of its last comparison in full, if there was one (see below).
    """
    return f"inosync: {node} [ok] synced {at}" + (f", {verified}" if verified else "")


def verified(at: str, differences: int) -> str:
    """``verified 10:02:11 (0 differences)``: a comparison in full has ended then."""
    return f"verified {at} ({plural(differences, 'difference')})"


def degraded(node: str, reason: str) -> str:
    """A worker whose node has everything but what ``reason`` says."""
    return f"inosync: {node} [degraded] {reason}"


def syncing(node: str, paths: int) -> str:
    """A worker that runs a batch."""
    return f"inosync: {node} [syncing] {plural(paths, 'path')}"


def full(node: str, percent: int | None) -> str:
    """A worker that compares whole trees; ``percent`` of the entries known so far, None before that."""
    return f"inosync: {node} [full]" + (f" {percent}%" if percent is not None else "")


def retrying(node: str, attempt: int, at: str, reason: str, behind: int) -> str:
    """A worker that waits until ``at`` (HH:MM:SS) to try again, its node ``behind`` changes behind."""
    return f"inosync: {node} [retry {attempt} at {at}] {reason}, {behind} behind"


def queued(node: str, attempt: int, reason: str, behind: int) -> str:
    """A worker that would try again if it had a slot."""
    return f"inosync: {node} [retry {attempt} waits for a slot] {reason}, {behind} behind"


def waiting(node: str, verdict: str, reason: str, behind: int) -> str:
    """A worker that has nothing to run although its node is not level, with the master's word for that."""
    return f"inosync: {node} [{verdict}] {reason}, {behind} behind"


def stopping(node: str) -> str:
    """A worker that finishes what is running and ends."""
    return f"inosync: {node} [stopping]"
