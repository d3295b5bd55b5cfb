"""Processes: titles, forks that leave nothing open, the death of parents, whole families of them.

The only importer of setproctitle and psutil.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Container, Iterable
from multiprocessing import get_context
from multiprocessing.context import ForkProcess
from multiprocessing.process import _children  # type: ignore[attr-defined]
from typing import IO

import psutil
import setproctitle

from inosync.system.libc import prctl

_PR_SET_PDEATHSIG = 1  # prctl(2)
_PR_SET_CHILD_SUBREAPER = 36
_NICEST = 19
_BRIEFLY = 0.002


def set_title(text: str) -> None:
    """What ``ps`` shows for this process. Control characters would garble the terminal: escaped."""
    plain = text.encode("ascii", "backslashreplace").decode()
    setproctitle.setproctitle("".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in plain))


def die_with_parent(number: signal.Signals, parent: int) -> None:
    """Have the kernel send us ``number`` when our parent dies (PR_SET_PDEATHSIG, prctl(2)).

    A parent that died before the call would send nothing: then the signal is sent here.
    """
    prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def adopt_orphans() -> None:
    """Become the parent of grandchildren whose own parent dies, instead of init (prctl(2))."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)


def fork(run: Callable[[], None], name: str) -> ForkProcess:
    """Start ``run`` in a forked child. The caller must be single-threaded.

    fork, by name: the default differs between versions of Python, and the others cost ten times as much.
    """
    # Objects frozen into the permanent generation are not touched by the child's collector, so their
    # pages stay shared.
    gc.freeze()
    # Daemonic, so that a master which ends by a fault of its own does not wait for its workers for ever.
    process = get_context("fork").Process(target=run, name=name, daemon=True)
    process.start()
    return process


def abandon(process: ForkProcess | None) -> None:
    """Do not wait for a forked child at our own end, as multiprocessing does: it may never come."""
    _children.discard(process)


def close(descriptors: Iterable[int]) -> None:
    """In a forked child: close what it inherited and has no business with."""
    for fd in descriptors:
        with contextlib.suppress(OSError):
            os.close(fd)


_PAGE = os.sysconf("SC_PAGE_SIZE")


def rss(pid: int) -> int | None:
    """Bytes of memory that a process has, those included that it shares; None if it is gone. proc(5)."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError):
        return None


START = "/"
"""The directory that programs are started in."""


def spawn(
    argv: tuple[str, ...], idle: bool = False, farewell: signal.Signals = signal.SIGKILL
) -> subprocess.Popen[bytes]:
    """Start a program with pipes for its three streams, to be sent ``farewell`` if we die.

    Another signal than SIGKILL would leave one that is stopped for ever; we end it politely while we can.
    No shell; English messages, since they are parsed; the descriptors of ours are non-blocking. With ``idle``
    it, and what it starts, gets the processor and the disk when nobody else wants them.
    OSError if it cannot be started.
    """
    parent = os.getpid()

    def prepare() -> None:  # between fork and exec; the callers are single-threaded
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        die_with_parent(farewell, parent)
        if idle:
            _come_last()

    child = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C"},
        cwd=START,
        bufsize=0,
        preexec_fn=prepare,
    )
    streams: tuple[IO[bytes] | None, ...] = (child.stdin, child.stdout, child.stderr)
    for stream in streams:
        assert stream is not None
        os.set_blocking(stream.fileno(), False)
    return child


def _come_last() -> None:
    os.nice(_NICEST)
    with contextlib.suppress(psutil.Error, OSError):  # a kernel or a sandbox without it
        psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)


def unread(pipe: int) -> int:
    """Bytes in a pipe that nobody has read yet (FIONREAD, ioctl_tty(2)); either end will do."""
    found = fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))
    return int.from_bytes(found, sys.byteorder)


def is_cut_off(pid: int) -> bool:
    """Whether a client has lost whom it talked to, a child of its own or the other end of a TCP connection.

    This looks at all connections of the system: ``peers.Peers`` is cheaper, where it is allowed.
    """
    try:
        process = psutil.Process(pid)
        look = getattr(process, "net_connections", None) or process.connections  # psutil < 6
        states = {connection.status for connection in look("tcp")}
    except (psutil.Error, OSError):
        return True
    return psutil.CONN_CLOSE_WAIT in states or not (children(pid) or psutil.CONN_ESTABLISHED in states)


def children(pid: int) -> list[int]:
    """The children of a process, from /proc: psutil's own way scans the whole system, 10 to 60 ms."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/children") as listed:
                found += map(int, listed.read().split())
    return found


def family(pid: int) -> list[int]:
    """A process and all its descendants, itself first."""
    members = [pid]
    for member in members:
        members += [child for child in children(member) if child not in members]
    return members


def io_total(pids: Iterable[int], but: Container[str] = ()) -> int:
    """Bytes that the processes have read and written so far, by psutil's I/O counters (proc(5), io).

    Those that have ended, or are not ours to look at, count as 0, and so do those whose names are in ``but``.
    """
    total = 0
    for pid in pids:
        with contextlib.suppress(psutil.Error, OSError):
            process = psutil.Process(pid)
            if but and process.name() in but:
                continue
            counters = process.io_counters()
            total += counters.read_chars + counters.write_chars
    return total


def waits_for_fifo(pids: Iterable[int]) -> bool:
    """Whether one of the processes is opening a FIFO that has nobody at its other end (fifo(7)).

    Told by where it sleeps in the kernel (proc(5), wchan); False where the kernel does not say that.
    """
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/wchan") as sleeping:
            if sleeping.read() in ("wait_for_partner", "fifo_open"):
                return True
    return False


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Signal each process that is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def send_group(group: int, number: signal.Signals) -> None:
    """Signal a process group, if there is anybody in it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def orphans(known: Iterable[int] = ()) -> list[int]:
    """The living children of ours, with their families, that are not ``known``; dead ones are collected.

    After ``adopt_orphans`` that is what a dead child of ours has left behind.
    """
    found: list[int] = []
    for pid in set(children(os.getpid())) - set(known):
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                found += family(pid)
    return found


def end_family(within: float) -> None:
    """Kill all descendants and wait until they are gone, for so many seconds; after ``adopt_orphans``."""
    until = time.monotonic() + within
    while (left := orphans()) and time.monotonic() < until:
        send(left, signal.SIGKILL)
        time.sleep(_BRIEFLY)


def leave(code: int) -> None:
    """End a forked child at once, without the exit handlers that belong to its parent."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # it may have been closed before we were started
            stream.flush()
    os._exit(code)
