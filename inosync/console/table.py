"""What ``status`` and ``top`` print: one line for each node, and a summary."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from inosync.text import one_line, plural

Told = Mapping[str, Any]
"""What the daemon tells of a node, or of itself (``status --json``)."""

_HEAD = ("NODE", "STATE", "LAG", "WAITING", "LAST OK", "NEXT TRY", "BATCHES", "BYTES", "REASON")
_RIGHT = ("LAG", "WAITING", "BATCHES", "BYTES")
_LONGEST_NAME = 48
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def lines(nodes: Sequence[Told], now: float, width: int = 0) -> list[str]:
    """The table. ``now`` is in seconds since the epoch; lines are cut to ``width`` columns, 0 is never."""
    rows = [_HEAD, *(_row(node, now) for node in nodes)]
    wide = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    found = []
    for row in rows:
        cells = [
            cell.rjust(size) if head in _RIGHT else cell.ljust(size)
            for cell, size, head in zip(row, wide, _HEAD, strict=True)
        ]
        line = "  ".join(cells).rstrip()
        found.append(line[: width - 1] + "…" if 0 < width < len(line) else line)
    return found


def summary(told: Told) -> str:
    """One line on the daemon as a whole."""
    text = f"{told['summary']}; {plural(told['directories'], 'directory')} watched"
    if told["unwatched"]:
        text += f", {told['unwatched']} not: {told['unwatched_reason']}"
    text += f"; up {seconds(told['uptime'])}"
    return one_line(text)


def worries(told: Told) -> list[str]:
    """What is wrong with the daemon as a whole: lines."""
    found = [f"halted: {why}" for why in told["halted"]]
    found += [f"not reloaded: {why}" for why in told["refused"]]
    return [one_line(line) for line in found]


def _row(node: Told, now: float) -> tuple[str, ...]:
    name = one_line(str(node["name"]))
    if len(name) > _LONGEST_NAME:
        name = name[: _LONGEST_NAME - 1] + "…"
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


def state(node: Told) -> str:
    """The state's word, with what belongs to it."""
    if node["percent"] is not None:
        return f"{node['state']} {node['percent']}%"
    return f"{node['state']} {node['attempts']}" if node["attempts"] else str(node["state"])


def clock_time(at: float | None, now: float) -> str:
    """HH:MM:SS, with the day if that is not today's; ``-`` for never."""
    if at is None:
        return "-"
    when, today = time.localtime(at), time.localtime(now)
    return time.strftime("%H:%M:%S" if when[:3] == today[:3] else "%Y-%m-%d %H:%M", when)


def size(count: int) -> str:
    """Bytes in the unit that fits, in steps of 1000."""
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if unit == 0 or value >= 99.5 else f"{value:.1f} {_UNITS[unit]}"


def seconds(value: float) -> str:
    """A duration in the two units that matter: ``3 d 4 h``, ``5 min``, ``12 s``."""
    parts: list[str] = []
    rest = int(value)
    units: Sequence[tuple[int, str]] = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
    for length, unit in units:
        count, rest = divmod(rest, length)
        if count or (length == 1 and not parts):
            parts.append(f"{count} {unit}")
        if len(parts) == 2 or (parts and not count):
            break
    return " ".join(parts)


def bar(percent: int, width: int, full: str = "█", empty: str = "░") -> str:
    """A progress bar of so many columns."""
    done = min(max(percent, 0), 100) * width // 100
    return full * done + empty * (width - done)


def sparkline(values: Sequence[float], width: int, marks: str = "▁▂▃▄▅▆▇█") -> str:
    """The last ``width`` values as marks of different height, in proportion to the greatest of them."""
    shown = values[-width:]
    most = max(shown, default=0.0)
    step: Callable[[float], int] = lambda value: int(value / most * (len(marks) - 1) + 0.5) if most else 0  # noqa: E731
    return "".join(marks[step(value)] for value in shown)
