"""``top``: the table of nodes, live, in a terminal."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import sys
import termios
import time
import tty
from collections import deque
from collections.abc import Iterator
from typing import Any

from inosync.console import table
from inosync.console.client import Client

INTERVAL_SECONDS = 1.0
_MAX_SAMPLES = 600
_BAR_WIDTH = 20
_SPARKLINE_WIDTH = 30
_ASCII = {"…": ".", "█": "#", "░": ".", **dict(zip("▁▂▃▄▅▆▇", "_.-=+*%", strict=True))}

_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _REST_OF_LINE, _REST = "\x1b[H", "\x1b[K", "\x1b[J"


class Top:
    """Draws the screen, with the lag of each node since the first frame."""

    def __init__(self) -> None:
        self._lags: dict[str, deque[float]] = {}

    def frame(self, snapshot: dict[str, Any], width: int, height: int, now: float) -> list[str]:
        """Return the lines of a screen of that size. ``now`` is in seconds since the epoch."""
        master, nodes = snapshot["master"], snapshot["nodes"]
        names = {node["name"] for node in nodes}
        self._lags = {name: lags for name, lags in self._lags.items() if name in names}
        for node in nodes:
            self._lags.setdefault(node["name"], deque(maxlen=_MAX_SAMPLES)).append(node["lag"])
        head = [table.summary(master), *table.warnings(master), ""]
        body = []
        for number, line in enumerate(table.lines(nodes, now)):
            extra = self._progress(nodes[number - 1]) if number else "LAG SINCE START OF TOP"
            body.append(f"{extra.ljust(_SPARKLINE_WIDTH)}  {line}")
        room = max(height - len(head) - 1, 1)
        if len(body) > room:
            body[room - 1 :] = [f"{len(body) - room + 1} more nodes, better than these"]
        return [_cut(line, width) for line in [*head, *body, "q: leave"]]

    def _progress(self, node: dict[str, Any]) -> str:
        if node["percent"] is not None:
            return f"{table.bar(node['percent'], _BAR_WIDTH)} {node['percent']:3d}%"
        return table.sparkline(list(self._lags[node["name"]]), _SPARKLINE_WIDTH)


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else line[: max(width - 1, 0)] + "…"


def run(client: Client, request: dict[str, Any]) -> int:
    """Show the screen until q or Ctrl-C, or until the daemon ends (NotRunning)."""
    top = Top()
    with _screen():
        while True:
            snapshot = client.ask(request)
            width, height = shutil.get_terminal_size()
            lines = top.frame(snapshot, width, height, time.time())
            _write(_HOME + "\r\n".join(line + _REST_OF_LINE for line in lines) + _REST)
            if _quit_is_typed(INTERVAL_SECONDS):
                return 0


def _write(text: str) -> None:
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        text = "".join(_ASCII.get(letter, letter) for letter in text)
    sys.stdout.buffer.write(text.encode(sys.stdout.encoding, "replace"))
    sys.stdout.flush()


def _quit_is_typed(timeout: float) -> bool:
    ready, _, _ = select.select([sys.stdin], [], [], timeout)
    if not ready:
        return False
    typed = os.read(sys.stdin.fileno(), 64)
    if not typed:
        return True  # the terminal is gone
    return typed.strip(b"qQ\x03\x1b") != typed


@contextlib.contextmanager
def _screen() -> Iterator[None]:
    """Take the whole terminal, and keys as they are typed; restore it at the end."""
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        _write(_ENTER)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
        _write(_LEAVE)
