"""``/``: the page for people. One table, the worst node first; it is whole without a script."""

from __future__ import annotations

import base64
import hashlib
import html
import math
import os
import time
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any

from inosync.console import sparkline, table
from inosync.console.history import History, Snapshot
from inosync.text import one_line

STYLE, SCRIPT = (files(__package__).joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
"""Constant, because the page's policy has their hashes."""
TYPE = "text/html; charset=utf-8"
REFRESH_SECONDS = 10
"""The time until a browser without scripts loads the page again."""

_LONG_NAME = 40  # characters; a longer name is broken anywhere
_HEAD = (
    # the heading of a column, and its classes
    ("State", ""),
    ("Node", ""),
    ("Lag", "n"),
    ("Lag, last hour", ""),
    ("Waiting", "n"),
    ("Why", ""),
    ("Next try", ""),
    ("Last success", ""),
    ("Batches", "n wide"),
    ("Data", "n wide"),
    ("Failures", "n wide"),
    ("Memory", "n wider"),
)


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
    """Return the page."""
    name = os.path.basename(str(snapshot.master.get("config", ""))) if snapshot.up else ""
    kind, headline = _headline(snapshot)
    live = "".join(_live(snapshot, kind, headline, name))
    rows = "".join(_row(number, node, history, snapshot.at) for number, node in enumerate(snapshot.nodes))
    head = "".join(f'<th scope="col"{_class(classes)}>{_text(text)}</th>' for text, classes in _HEAD)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{_text(headline)} - inosync {_text(name)}</title>"
        '<link rel="icon" href="data:,">'
        f'<noscript><meta http-equiv="refresh" content="{REFRESH_SECONDS}"></noscript>'
        f"<style>{STYLE}</style></head>\n<body>"
        f'<header id="live" data-up="{int(snapshot.up)}">{live}</header>\n<main><div id="tools"></div>'
        f'<table><caption class="off">The nodes, worst first</caption><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{rows}</tbody></table></main>\n<footer>{_foot(snapshot)}</footer>"
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def _text(value: object) -> str:
    return html.escape(one_line(str(value)), quote=True)


def _class(names: str) -> str:
    return f' class="{names}"' if names else ""


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


def _live(snapshot: Snapshot, kind: str, headline: str, name: str) -> Iterator[str]:
    at = time.localtime(snapshot.at)
    when = f"as of {time.strftime('%H:%M:%S %Z', at)}"
    host = os.uname().nodename
    yield f"<h1>inosync {_text(name)}<small>on {_text(host)}, {_text(when)}</small></h1>"
    yield f'<p class="verdict {kind}">{_text(headline[:1].upper() + headline[1:])}</p>'
    if not snapshot.up:
        yield f'<ul class="worries" role="alert"><li>{_text(snapshot.why)}</li></ul>'
        return
    master = snapshot.master
    if warnings := "".join(f"<li>{_text(warning)}</li>" for warning in _warnings(master)):
        yield f'<ul class="worries">{warnings}</ul>'
    chips = (
        f'<li class="badge {_text(state)}">{int(count)} {_text(state)}</li>'
        for state, count in master.get("states", {}).items()
    )
    yield f'<ul class="chips" aria-label="Nodes by state">{"".join(chips)}</ul>'
    facts = (f"<div><dt>{_text(key)}</dt><dd>{_text(value)}</dd></div>" for key, value in _facts(master))
    yield f'<dl class="facts">{"".join(facts)}</dl>'


def _warnings(master: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"Halted: {why}" for why in master.get("halted", ()))
    yield from (f"The configuration was not reloaded: {why}" for why in master.get("refused", ()))
    yield from (line.capitalize() for line in table.held_lines(master))
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


def _row(number: int, node: Mapping[str, Any], history: History, now: float) -> str:
    state = _text(node["state"])
    failures = sum(node.get("failures", {}).values())
    codes = ", ".join(f"exit code {code}: {times}" for code, times in node.get("failures", {}).items())
    title = f' title="{_text(node["node"])}"' if node.get("node") not in (None, node["name"]) else ""
    long = _class("long" if len(node["name"]) > _LONG_NAME else "")
    cells = [
        f'<td data-v="{number}"><span class="badge">{_text(table.state(node))}</span></td>',
        f'<th scope="row"{long}{title}>{_text(node["name"])}</th>',
        f'<td class="n lag" data-v="{float(node["lag"])}">{_lag(node["lag"])}</td>',
        _hour(history.points(node["name"])),
        _number("wait", node["pending"]),
        f'<td class="why">{_text(node["reason"])}</td>',
        f'<td class="w next" data-v="{node["retry_at"] or ""}">{_when(node["retry_at"], now)}</td>',
        f'<td class="w last" data-v="{node["last_ok"] or ""}">{_when(node["last_ok"], now)}</td>',
        _number("wide", node.get("batches", 0)),
        _number("wide", node.get("bytes", 0), table.size),
        _number("wide", failures, title=codes),
        _number("wider", node.get("rss") or 0, table.size),
    ]
    return f'<tr class="{state}" data-n="{number}">{"".join(cells)}</tr>\n'


def _number(classes: str, value: float, shown: Any = "{:,}".format, title: str = "") -> str:
    zero = "" if value else " zero"
    more = f' title="{_text(title)}"' if title else ""
    return f'<td class="n {classes}{zero}" data-v="{value}"{more}>{_text(shown(value))}</td>'


def _hour(points: Any) -> str:
    peak = max((point for point in points if not math.isnan(point)), default=0.0)
    most = f"at most {_lag(peak)}" if peak else "none"
    label = f"Lag in the last hour: {most}" if len(points) else "Lag in the last hour: not known yet"
    coarse = " ".join(_lag(peak).split()[:2])
    shown = f'<span class="peak" aria-hidden="true">{coarse}</span>' if peak >= 0.1 else ""
    size = f"0 0 {sparkline.WIDTH} {sparkline.HEIGHT}"
    line = f'<path d="{sparkline.path(points)}"/>'
    picture = f'<svg viewBox="{size}" preserveAspectRatio="none" role="img" aria-label="{label}">{line}</svg>'
    return f'<td class="w hour" data-v="{peak:.1f}">{picture}{shown}</td>'


def _when(at: float | None, now: float) -> str:
    """Return how long ago, or in how long; pointing at it shows the time."""
    if at is None:
        return ""
    away = at - now
    text = (
        f"in {table.duration(away)}" if away >= 1 else "now" if away > -1 else f"{table.duration(-away)} ago"
    )
    exact = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
    return f'<time datetime="{exact}" title="{exact}">{text}</time>'


def _lag(seconds: float) -> str:
    """Return ``0 s``, ``0.4 s``, ``43 s``, ``12 min 3 s``."""
    return f"{seconds:.1f} s" if 0.05 <= seconds < 10 else table.duration(seconds)


def _foot(snapshot: Snapshot) -> str:
    if not snapshot.up:
        return ""
    links = '<a href="/metrics">metrics</a>, <a href="/status.json">status.json</a>'
    scale = "The line is logarithmic, the same for all: its top is an hour."
    return f"Lag: the age of the oldest change that a node has not confirmed. {scale} For machines: {links}"
