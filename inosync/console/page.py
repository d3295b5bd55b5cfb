"""``/``: the page for people. What is in trouble stands first; it is whole without a script."""

from __future__ import annotations

import base64
import hashlib
import math
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from inosync.console import groups, sparkline, table
from inosync.console.history import Event, History, Snapshot
from inosync.text import one_line

STYLE, SCRIPT = (files(__package__).joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
"""Constant, because the page's policy has their hashes."""
TYPE = "text/html; charset=utf-8"
REFRESH_SECONDS = 30
"""The time until a browser without scripts loads the page again, and folds everything."""

_MAX_OPEN_NODES = 12  # of more, groups are folded
_LONG_NAME = 40  # characters; a longer name is broken anywhere
_PASSING = ("starting", "syncing")  # states that are no event (status.transitions)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


POLICY = "; ".join(
    (
        "default-src 'none'",
        f"script-src {_hash(SCRIPT)}",
        f"style-src {_hash(STYLE)}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""The Content-Security-Policy: only our script and style are run."""


def render(snapshot: Snapshot, history: History) -> str:
    shown = snapshot if snapshot.up else snapshot.before
    config = str(shown.master.get("config", "")) if shown else ""
    kind, headline = _headline(snapshot)
    return _TEMPLATE.render(
        config=config,
        name=os.path.basename(config),
        host=os.uname().nodename,
        snapshot=snapshot,
        shown=shown,
        now=shown.at if shown else snapshot.at,
        kind=kind,
        headline=headline,
        before=_headline(snapshot.before)[1] if snapshot.before else "",
        warnings=list(_warnings(shown.master)) if shown else [],
        facts=list(_facts(shown.master)) if shown else [],
        groups=groups.grouped(shown.nodes) if shown else [],
        history=history,
    ).lstrip()  # of what stands between the macros


def _headline(snapshot: Snapshot) -> tuple[str, str]:
    """Return the headline: its class, and a sentence."""
    if not snapshot.up:
        return "bad", "inosync does not answer"
    count = len(snapshot.nodes)
    nodes = _count(count, "node")
    bad = sum(node["state"] in table.BAD_STATES for node in snapshot.nodes)
    behind = sum(node["state"] not in (*table.BAD_STATES, *table.GOOD_STATES) for node in snapshot.nodes)
    if snapshot.master.get("halted"):
        return "bad", f"mirroring is halted, {bad} of {nodes} in trouble"
    if bad:
        more = f", {behind} more behind" if behind else ""
        return "bad", f"{bad} of {nodes} in trouble{more}"
    if behind:
        return "soso", f"{behind} of {nodes} behind"
    return "good", "the node is level" if count == 1 else f"all {nodes} are level" if count else "no nodes"


def _count(count: int, noun: str) -> str:
    """``1 node``, ``1,200 nodes``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _warnings(master: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"Halted: {why}" for why in master.get("halted", ()))
    yield from (f"The configuration was not reloaded: {why}" for why in master.get("refused", ()))
    yield from (line.capitalize() for line in table.held_lines(master))
    yield from (f"{line[0].upper()}{line[1:]}" for line in table.fleet_lines(master))
    if unwatched := master.get("unwatched"):
        many = "directory is" if unwatched == 1 else "directories are"
        yield f"{unwatched} {many} not watched: {master.get('unwatched_reason', '')}"


def _facts(master: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "up", table.duration(master["uptime"])
    yield "directories", f"{master['directories']:,}"
    yield "events", f"{master['events']:,}"
    yield "overflows", f"{master['overflows']:,}"
    yield "journal", _count(master["journal"], "change")
    if master.get("rss"):
        yield "memory", table.size(master["rss"])
    yield "pid", str(master["pid"])
    yield "version", str(master["version"])


def since(node: groups.Description, events: Sequence[Event]) -> tuple[str, float | None]:
    """Return the state of a node, or the one before a passing one, and when that began; None: not known."""
    for at, kind, text, _times in reversed(events):
        if kind == "state":
            began = "full" if text.startswith("full ") else re.split("[ :]", text.removeprefix("is "))[0]
            if node["state"] in (began, *_PASSING):
                return began, at
            break
    return str(node["state"]), None


def _lanes(node: groups.Description) -> Iterator[tuple[str, str]]:
    """Yield what is under way to a node in each of its two lanes."""
    pending, big = int(node["pending"]), int(node.get("big_files") or 0)
    small = max(pending - big, 0)
    done = f", {node['percent']} % of the full mirror" if node.get("percent") is not None else ""
    yield "Small files", (f"{_count(small, 'change')} waiting" if small else "nothing waits") + done
    percent = node.get("big_files_percent")
    part = "" if percent is None else f", {percent} %"
    yield "Big files", f"{_count(big, 'file')} under way{part}" if big else "none under way"


def _throughput(history: History, name: str) -> str:
    minute, hour = history.transferred(name, 60.0), history.transferred(name, 3600.0)
    return (
        f"{table.size(round(minute / 60))}/s in the last minute, {table.size(round(hour))} in the last hour"
    )


def _counters(node: groups.Description) -> Iterator[tuple[str, str]]:
    yield "Batches", f"{node.get('batches', 0):,}, {table.size(node.get('bytes', 0))}"
    failures = node.get("failures", {})
    if failures:
        codes = ", ".join(f"exit code {code}: {times:,}" for code, times in failures.items())
        yield "Failures", codes
    if node.get("rss"):
        yield "Memory", table.size(node["rss"])


def _peak(points: Sequence[float]) -> float:
    return max((point for point in points if not math.isnan(point)), default=0.0)


def _when(at: float | None, now: float) -> Markup | str:
    """Return how long ago, or in how long; pointing at it shows the time."""
    if at is None:
        return ""
    away = at - now
    text = (
        f"in {table.duration(away)}" if away >= 1 else "now" if away > -1 else f"{table.duration(-away)} ago"
    )
    exact = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
    return Markup('<time datetime="{0}" title="{0}">{1}</time>').format(exact, text)


def _lag(seconds: float) -> str:
    """Return ``0 s``, ``0.4 s``, ``43 s``, ``12 min 3 s``."""
    return f"{seconds:.1f} s" if 0.05 <= seconds < 10 else table.duration(seconds)


def _clean(value: object) -> object:
    """Return what is printed for a value: one line, nothing that a screen would not show."""
    return value if isinstance(value, Markup) else one_line(str(value))


def _template() -> Environment:
    made = Environment(
        loader=FunctionLoader(lambda name: files(__package__).joinpath(name).read_text("utf-8")),
        autoescape=True,
        finalize=_clean,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(
        style=Markup(STYLE),
        script=Markup(SCRIPT),
        refresh=REFRESH_SECONDS,
        most_open=_MAX_OPEN_NODES,
        long_name=_LONG_NAME,
        line=sparkline,
        commands=groups.commands,
        since=since,
        lanes=_lanes,
        throughput=_throughput,
        counters=_counters,
        peak=_peak,
        clock=lambda at: time.strftime("%H:%M:%S %Z", time.localtime(at)),
        table=table,
    )
    made.filters.update(when=_when, lag=_lag)
    return made


_TEMPLATE = _template().get_template("page.html")
