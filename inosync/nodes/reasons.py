"""Why a node does not have everything, in words for people. Pure."""

from __future__ import annotations

import os

from inosync.nodes.outstanding import Outstanding
from inosync.nodes.retries import RetrySet
from inosync.text import plural


def degraded(problem: str, retries: RetrySet) -> str:
    """Return why a node is degraded: names failed, or can never be sent. Empty if it is not."""
    why = problem or ("some names could not be transferred" if retries.has_failed else "")
    return why and why + _behind(retries)


def big_files(second: Outstanding | None, retries: RetrySet) -> str:
    """Return what is in the second lane, ``1 big file, 45%``; empty if nothing is."""
    if second is None:
        return ""
    count = plural(second.batch.count, "big file")
    return count + ("" if second.percent is None else f", {second.percent}%") + _behind(retries)


def _behind(retries: RetrySet) -> str:
    """Return what waits for names that are owed, as the end of a reason."""
    behind = sorted(retries.behind)
    if not behind:
        return ""
    verb, example = "wait" if len(behind) > 1 else "waits", os.fsdecode(behind[0])[:60]
    return f"; {plural(len(behind), 'name')} {verb} for that, such as {example}"
