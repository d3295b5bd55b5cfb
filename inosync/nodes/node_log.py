"""The lines of the log about what the worker of a node has reported."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection

from inosync.messages import Batch, Change, Done, Failed, HookFinished, Kind, Unreachable
from inosync.system import log as logs
from inosync.text import plural

log = logging.getLogger(__name__)

MOST = 100
"""Names of one batch that are told to who wants to know it all."""


def tried(name: str, report: Failed | Unreachable) -> None:
    """A try has failed."""
    why = f"{report.reason} (rsync's exit code {report.code})" if report.code else report.reason
    facts = logs.about(
        ("try", name, report.reason),
        event="failed",
        node=name,
        reason=report.reason,
        code=report.code,
        attempt=report.attempt,
        retry_in=round(report.retry_in, 3),
    )
    log.warning("%s: %s; try %d in %.1f s", name, why, report.attempt + 1, report.retry_in, extra=facts)


def done(name: str, batch: Batch, report: Done) -> None:
    """A batch is through."""
    what = "full mirror" if batch.full else plural(batch.count, "path")
    took = f"{report.seconds:.2f} s, {report.bytes} bytes"
    facts = logs.about(
        event="batch",
        node=name,
        full=batch.full,
        paths=batch.count,
        bytes=report.bytes,
        seconds=round(report.seconds, 3),
        code=report.code,
        reason=report.reason,
        held=bool(report.held),
    )
    if report.held:
        log.info("%s: %s held back: a directory was not what it had to be", name, what, extra=facts)
    elif report.pretended:
        log.info("%s: %s pretended", name, what, extra=facts)
    elif report.reason:
        log.warning("%s: %s in %s, but: %s", name, what, took, report.reason, extra=facts)
    else:
        log.info("%s: %s in %s", name, what, took, extra=facts)


def paths(name: str, changes: Collection[Change]) -> None:
    """What was in it, for who wants to know it all. Of much the first: the line would have no end."""
    ordered = sorted(changes, key=lambda change: (change.tree, change.path))[:MOST]
    shown = [os.fsdecode(change.wire) if change.kind < Kind.TREE else "all" for change in ordered]
    more = f" and {len(changes) - MOST} more" if len(changes) > MOST else ""
    log.debug("%s: sent: %s%s", name, ", ".join(shown), more)


def hook_failed(name: str, report: HookFinished) -> None:
    """A hook was no success."""
    same = ("hook", name, report.kind, report.reason)
    facts = logs.about(same, event="hook", node=name, hook=report.kind, reason=report.reason)
    log.warning("%s: %s %s", name, report.kind, report.reason, extra=facts)
