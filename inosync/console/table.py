"""The table that ``status`` and ``top`` print: one line for each node, and a summary."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from inosync.text import one_line, plural

Description = Mapping[str, Any]
"""Of a node or of the daemon, as in ``status --json``."""

BAD_STATES = ("halted", "held", "retrying", "degraded")
"""States of nodes in which something is wrong."""
GOOD_STATES = ("ok", "syncing")

_HEAD = ("NODE", "STATE", "LAG", "WAITING", "LAST OK", "NEXT TRY", "BATCHES", "BYTES", "REASON")
_RIGHT = ("LAG", "WAITING", "BATCHES", "BYTES")
_MAX_NAME = 48
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def lines(nodes: Sequence[Description], now: float, width: int = 0) -> list[str]:
    """Return the table. ``now`` is in seconds since the epoch; ``width``, in columns, is no limit if 0."""
    head: tuple[str, ...] = _HEAD
    rows: list[tuple[str, ...]] = [_row(node, now) for node in nodes]
    if any("via" in node for node in nodes):  # a fleet
        head = (_HEAD[0], "VIA", *_HEAD[1:])
        vias = [one_line(str(node.get("via") or "-")) for node in nodes]
        rows = [(row[0], via, *row[1:]) for row, via in zip(rows, vias, strict=True)]
    rows = [head, *rows]
    wide = [max(len(row[column]) for row in rows) for column in range(len(head))]
    found = []
    for row in rows:
        cells = [
            cell.rjust(size) if name in _RIGHT else cell.ljust(size)
            for cell, size, name in zip(row, wide, head, strict=True)
        ]
        line = "  ".join(cells).rstrip()
        found.append(line[: width - 1] + "…" if 0 < width < len(line) else line)
    return found


def sender_lines(senders: Sequence[Description]) -> list[str]:
    """Return the table of the senders of a fleet."""
    rows = [("SENDER", "STATE", "NODES", "ARRIVED", "BEHIND", "HEARD", "REASON")]
    for one in senders:
        arrived = "-" if one["arrived"] is None else str(one["arrived"])
        behind = "-" if one["arrived"] is None else f"{one['lag']:.1f} s"
        state = ("late" if one["late"] else "ready") if one["ready"] else "waiting"
        count = str(len(one["nodes"]))
        heard = "-" if one["heard"] is None else f"{one['heard']:.1f} s ago"
        rows.append((one_line(one["name"]), state, count, arrived, behind, heard, one_line(one["reason"])))
    wide = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(map(str.ljust, row, wide)).rstrip() for row in rows]


def summary(master: Description) -> str:
    text = f"{master['summary']}; {plural(master['directories'], 'directory')} watched"
    if master["unwatched"]:
        text += f", {master['unwatched']} not: {master['unwatched_reason']}"
    return one_line(f"{text}; up {duration(master['uptime'])}")


def warnings(master: Description) -> list[str]:
    """Return lines about what is wrong with the daemon."""
    found = [f"halted: {why}" for why in master["halted"]]
    found += [f"not reloaded: {why}" for why in master["refused"]]
    found += held_lines(master)
    found += fleet_lines(master)
    return [one_line(line) for line in found]


def fleet_lines(master: Description) -> list[str]:
    """Return lines about what is wrong with a fleet; none if there is no fleet."""
    if (fleet := master.get("fleet")) is None:
        return []
    if fleet["redis"]:
        return [f"Redis: {fleet['redis']}"]
    found = [
        f"sender {one['name']}: {one['reason']}"
        for one in fleet["senders"]
        if one["late"] or not one["ready"]
    ]
    if fleet["unserved"]:
        found.append(f"served by no sender: {plural(fleet['unserved'], 'node')}")
    return found


def held_lines(master: Description) -> list[str]:
    """Return the line that says that nothing is sent to any node; none if that is not so."""
    if (until := master.get("held_until")) is None:
        return []
    return [
        f"held: nothing is sent to any node until release, or {time.strftime('%X', time.localtime(until))}"
    ]


def _row(node: Description, now: float) -> tuple[str, ...]:
    name = one_line(str(node["name"]))
    if len(name) > _MAX_NAME:
        name = name[: _MAX_NAME - 1] + "…"
    return (
        name,
        state(node),
        f"{node['lag']:.1f} s",
        str(node["pending"]),
        clock_time(node["last_ok"], now),
        clock_time(node["retry_at"], now),
        str(node["batches"]),
        size(node["bytes"]),
        one_line(str(node["reason"])),
    )


def state(node: Description) -> str:
    """Return the state with its percentage or its number of tries."""
    if node["percent"] is not None:
        return f"{node['state']} {node['percent']}%"
    return f"{node['state']} {node['attempts']}" if node["attempts"] else str(node["state"])


def clock_time(at: float | None, now: float) -> str:
    """Return HH:MM:SS, or the day and HH:MM if that is not today; ``-`` for never."""
    if at is None:
        return "-"
    when, today = time.localtime(at), time.localtime(now)
    return time.strftime("%H:%M:%S" if when[:3] == today[:3] else "%Y-%m-%d %H:%M", when)


def size(count: int) -> str:
    """Return a number of bytes in a unit that fits, in steps of 1000."""
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if unit == 0 or value >= 99.5 else f"{value:.1f} {_UNITS[unit]}"


def duration(seconds: float) -> str:
    """Return a duration in its two greatest units: ``3 d 4 h``, ``5 min``, ``12 s``."""
    parts: list[str] = []
    rest = int(seconds)
    units: Sequence[tuple[int, str]] = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
    for length, unit in units:
        count, rest = divmod(rest, length)
        if count or (length == 1 and not parts):
            parts.append(f"{count} {unit}")
        if len(parts) == 2 or (parts and not count):
            break
    return " ".join(parts)


def bar(percent: int, width: int, full: str = "█", empty: str = "░") -> str:
    done = min(max(percent, 0), 100) * width // 100
    return full * done + empty * (width - done)


def sparkline(values: Sequence[float], width: int, marks: str = "▁▂▃▄▅▆▇█") -> str:
    """Return the last ``width`` values as marks whose height is in proportion to the greatest."""
    shown = values[-width:]
    most = max(shown, default=0.0) or 1.0
    return "".join(marks[int(value / most * (len(marks) - 1) + 0.5)] for value in shown)
