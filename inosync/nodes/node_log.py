"""The log lines about what the worker of a node has reported, and about its end."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection

from inosync.changes import Kind
from inosync.nodes import lifecycle
from inosync.nodes.lifecycle import Phase, WorkerState
from inosync.nodes.messages import (
    Batch,
    Done,
    Failed,
    HookFinished,
    Reachable,
    Relisting,
    TargetReplaced,
    Throttled,
    Unreachable,
    WarmSuspended,
)
from inosync.nodes.outstanding import Outstanding
from inosync.system import log as logs
from inosync.text import plural

log = logging.getLogger(__name__)

MAX_LISTED_PATHS = 100


def note_failure(name: str, report: Failed | Unreachable) -> None:
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


def note_done(name: str, batch: Batch, report: Done) -> None:
    what = "full mirror" if batch.full else plural(batch.count, "path")
    took = f"{report.seconds:.2f} s, {report.bytes} bytes"
    if report.renamed_bytes:
        took += f"; {report.renamed_bytes} more were there under another name"
    if report.rename_problem:
        log.debug("%s: something was renamed, and sent all the same: %s", name, report.rename_problem)
    is_clean = not (batch.full or report.held or report.reason or report.renamed_bytes)
    facts = logs.about(
        is_detail=is_clean,  # people are told of the nodes together
        event="batch",
        node=name,
        full=batch.full,
        paths=batch.count,
        bytes=report.bytes,
        renamed_bytes=report.renamed_bytes,
        seconds=round(report.seconds, 3),
        code=report.code,
        reason=report.reason,
        held=bool(report.held),
    )
    if report.held:
        log.info("%s: %s held back by the guard", name, what, extra=facts)
    elif report.reason:
        log.warning("%s: %s in %s, but: %s", name, what, took, report.reason, extra=facts)
    else:
        log.info("%s: %s in %s", name, what, took, extra=facts)


def list_paths(name: str, sent: Outstanding, trees: Collection[int]) -> None:
    """Log what was in a batch, at the level of debugging; of very many paths the first."""
    if not log.isEnabledFor(logging.DEBUG):
        return
    changes = sent.changes(trees)
    ordered = sorted(changes, key=lambda change: (change.tree, change.path))[:MAX_LISTED_PATHS]
    shown = [os.fsdecode(change.wire) if change.kind < Kind.TREE else "all" for change in ordered]
    more = f" and {len(changes) - MAX_LISTED_PATHS} more" if len(changes) > MAX_LISTED_PATHS else ""
    log.debug("%s: sent: %s%s", name, ", ".join(shown), more)


def note_hook_failure(name: str, report: HookFinished) -> None:
    same = ("hook", name, report.kind, report.reason)
    facts = logs.about(same, event="hook", node=name, hook=report.kind, reason=report.reason)
    log.warning("%s: %s %s", name, report.kind, report.reason, extra=facts)


def note_hang(name: str, reason: str, pid: int | None) -> None:
    log.warning("%s: %s (pid %s): it is killed, and replaced when it is gone", name, reason, pid)


def note_death(name: str, before: Phase, state: WorkerState, which: str, now: float) -> None:
    """Log the end of a worker, unless it was told to end. ``before``: its phase until then."""
    if before is Phase.KILLED:
        log.info("%s: its worker is gone%s", name, which)
    elif state.phase is Phase.DOWN and lifecycle.is_logged(state.deaths):
        often = f", {state.deaths} times in a row" if state.deaths > 1 else ""
        pause = state.wake_at - now
        log.warning("%s: %s%s%s; the next one starts in %.1f s", name, state.reason, which, often, pause)


def note_news(name: str, report: Reachable | TargetReplaced | WarmSuspended | Relisting | Throttled) -> None:
    """Log what the worker has noticed of its node, or that it works in another way from now on."""
    match report:
        case Reachable():
            log.info("%s: answers again", name)
        case TargetReplaced():
            log.warning("%s: %s: full mirror follows", name, report.reason)
        case WarmSuspended():
            log.warning("%s: %s: no connection is kept to it", name, report.reason)
        case Relisting():
            log.warning("%s: %s: for deletions, whole directories are listed", name, report.reason)
        case Throttled():
            limit = f"{report.rspeed} KB/s" if report.rspeed else "0: no limit"
            log.info("%s: rspeed is now %s", name, limit)
