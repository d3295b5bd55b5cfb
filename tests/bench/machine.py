"""What processes use, and when they rest, as /proc tells it (proc(5))."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from support import procs

TICK = 1 / os.sysconf("SC_CLK_TCK")
LOOK = 0.25
"""Seconds between two looks at whether anything goes on."""
BUSY = 0.08
"""The share of one processor from which on something does: idle daemons look at the time, too."""


def cpu_seconds(pid: int) -> float:
    """The processor time that a process has used itself (utime + stime); 0.0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK


@dataclass(frozen=True)
class Memory:
    """Of one process, in bytes."""

    pss: int
    """What it shares with others counted in parts."""
    rss: int
    """What it shares with others counted in full."""


def memory(pid: int) -> Memory:
    """What a process holds at the moment."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kib = {words[0]: int(words[1]) for words in map(str.split, lines)}
    return Memory(kib["Pss:"] * 1024, kib["Rss:"] * 1024)


def watches(pid: int) -> int:
    """How many inotify watches a process has."""
    count = 0
    for entry in os.scandir(f"/proc/{pid}/fdinfo"):
        # A descriptor may be closed between the listing and the look.
        with contextlib.suppress(FileNotFoundError), open(entry) as info:
            count += sum(line.startswith("inotify wd:") for line in info)
    return count


def until_idle(most: float = 3.0) -> None:
    """Return when nothing that this process has started does much any more, after ``most`` seconds anyway."""
    deadline = time.monotonic() + most
    before = _use()
    while time.monotonic() < deadline:
        time.sleep(LOOK)
        after = _use()
        if after.keys() == before.keys() and sum(after.values()) - sum(before.values()) < BUSY * LOOK:
            return
        before = after


def _use() -> dict[int, float]:
    family = procs.family([os.getpid()])[1:]
    return {process.pid: cpu_seconds(process.pid) for process in family}


def tidy_on_sigterm() -> None:
    """Let SIGTERM end this process the way an exception does: with everything tidied up."""

    def end(number: int, _frame: object) -> NoReturn:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, end)
