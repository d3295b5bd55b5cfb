"""What processes use, and when they rest, as /proc tells it (proc(5)); and what machine this is."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from support import procs

TICK = 1 / os.sysconf("SC_CLK_TCK")
LOOK = 0.25
"""Seconds between two looks at whether anything goes on."""
BUSY = 0.08
"""The share of one processor from which on something does: idle daemons look at the time, too."""


def scratch() -> str:
    """Where benchmarks have their trees: TMPDIR if it is set, else tmpfs.

    On a disk, what is being written back makes the same transfer take several times as long, or not.
    """
    return os.environ.get("TMPDIR") or ("/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir())


@contextlib.contextmanager
def workspace() -> Iterator[Path]:
    """A new directory there, gone afterwards."""
    with tempfile.TemporaryDirectory(
        prefix="inosync-bench-", dir=scratch(), ignore_cleanup_errors=True
    ) as home:
        yield Path(home)


def cpu_seconds(pid: int) -> float:
    """The processor time that a process of one thread has used itself; 0.0 when it is gone.

    The scheduler counts nanoseconds; utime and stime are those, split by guess and cut to ticks of 10 ms.
    """
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    except (FileNotFoundError, ProcessLookupError):
        # Gone, or a kernel that does not count.
        return sum(_ticks(pid)[:2]) * TICK


def cpu_of_all(root: int) -> float:
    """The processor time of a process and of all that came from it, those included that ended meanwhile.

    In seconds. Those whose parent has not waited for them are lost; both tools do wait.
    """
    pids = [process.pid for process in procs.family([root])]
    return sum(cpu_seconds(pid) + sum(_ticks(pid)[2:]) * TICK for pid in pids)


def _ticks(pid: int) -> list[int]:
    """utime, stime, and the same of the children that it has waited for; zeros when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return [0] * 4
    return list(map(int, text.rpartition(")")[2].split()[11:15]))


class SystemCalls:
    """The system calls of a process while this is entered, counted by strace; it makes the process slow."""

    def __init__(self, pid: int, file: Path) -> None:
        self._pid, self._file = pid, file
        self.count: int | None = None
        """None without strace."""

    def __enter__(self) -> SystemCalls:
        self._strace = None
        if shutil.which("strace"):
            argv = ["strace", "-q", "-c", "-U", "calls,name", "-p", str(self._pid), "-o", str(self._file)]
            self._strace = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(LOOK)  # until it is attached
        return self

    def __exit__(self, *_error: object) -> None:
        if self._strace is not None:
            self._strace.send_signal(signal.SIGINT)
            self._strace.wait()
            total = [line.split()[0] for line in self._file.read_text().splitlines() if "total" in line]
            self.count = int(total[0]) if total else None


@dataclass(frozen=True)
class Memory:
    """Of one process or several, in bytes."""

    pss: int
    """What it shares with others counted in parts."""
    rss: int
    """What it shares with others counted in full."""


def memory(*pids: int) -> Memory:
    """What these processes hold at the moment; those that are gone hold nothing."""
    pss = rss = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
            kib = {words[0]: int(words[1]) for words in map(str.split, lines)}
            pss, rss = pss + kib["Pss:"] * 1024, rss + kib["Rss:"] * 1024
    return Memory(pss, rss)


def watches(pid: int) -> int:
    """How many inotify watches a process has."""
    count = 0
    for entry in os.scandir(f"/proc/{pid}/fdinfo"):
        # A descriptor may be closed between the listing and the look.
        with contextlib.suppress(FileNotFoundError), open(entry) as info:
            count += sum(line.startswith("inotify wd:") for line in info)
    return count


def watches_allowed() -> int:
    """How many inotify watches a user may have, all processes together."""
    return int(Path("/proc/sys/fs/inotify/max_user_watches").read_text())


def until_idle(most: float = 30.0) -> None:
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


def statement() -> str:
    """One sentence: the processors, the kernel, and the versions of what is measured."""
    names = {
        "rsync": _version("rsync", "--version", word=2),
        "lsyncd": _version("lsyncd", "--version", word=1),
        "OpenSSH": _version("ssh", "-V", word=0).removeprefix("OpenSSH_").rstrip(","),
    }
    tools = [f"{name} {version}" for name, version in names.items() if version]
    kernel = f"Linux {platform.release().partition('-')[0]}"
    system = ", ".join([kernel, f"Python {platform.python_version()}", *tools])
    where = f"the nodes on the same ones, all trees in {scratch()}"
    return f"{os.cpu_count()} processors ({platform.machine()}), {where}; {system}."


def _version(program: str, option: str, word: int) -> str:
    """A word of what a program says of itself; empty if it is not installed."""
    if not shutil.which(program):
        return ""
    done = subprocess.run([program, option], capture_output=True, text=True, check=False)
    words = (done.stdout or done.stderr).split()
    return words[word] if len(words) > word else ""


def tidy_on_sigterm() -> None:
    """Let SIGTERM and SIGHUP end this process the way an exception does: with everything tidied up."""

    def end(number: int, _frame: object) -> NoReturn:
        # A second one would only leave things behind.
        for other in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(other, signal.SIG_IGN)
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
