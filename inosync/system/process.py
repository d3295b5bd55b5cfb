"""Processes: titles, starting and ending them, and what /proc says of them.

This is the only importer of setproctitle and psutil.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import resource
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Container, Iterable
from multiprocessing import get_context
from multiprocessing.context import ForkProcess
from multiprocessing.process import _children  # type: ignore[attr-defined]

import psutil
import setproctitle

from inosync.system import descriptors
from inosync.system.libc import prctl

_PR_SET_PDEATHSIG = 1  # prctl(2)
_PR_SET_CHILD_SUBREAPER = 36
_NICEST = 19
_REAP_INTERVAL_SECONDS = 0.002


def set_title(text: str) -> None:
    """Set what ``ps`` shows for this process; escape control characters, which would garble the terminal."""
    plain = text.encode("ascii", "backslashreplace").decode()
    if not plain.isprintable():
        plain = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in plain)
    setproctitle.setproctitle(plain)


def die_with_parent(number: signal.Signals, parent: int) -> None:
    """Have the kernel send us ``number`` when our parent dies (PR_SET_PDEATHSIG, prctl(2)).

    The kernel sends nothing if the parent died before the call: then we send the signal ourselves.
    """
    prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def adopt_orphans() -> None:
    """Become the parent of grandchildren whose own parent dies, instead of init (prctl(2))."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)


def fork(run: Callable[[], None], name: str) -> ForkProcess:
    """Start ``run`` in a forked child. The caller has one thread only.

    fork is asked for by name because the default differs between Python versions, and forkserver and spawn
    cost ten times as much. OSError if there are no processes or descriptors left.
    """
    setproctitle.getproctitle()  # finds the place of titles, once, before each child has to
    # The child's garbage collector does not touch frozen objects, so their pages stay shared.
    gc.freeze()
    # Daemonic: a master that ends by a fault of its own does not wait for its workers.
    process = get_context("fork").Process(target=run, name=name, daemon=True)
    pipes: list[int] = []
    try:
        for _ in range(2):
            pipes += os.pipe()
    finally:
        close(pipes)
    try:
        process.start()
    except OSError:
        # multiprocessing leaves its two pipes open. They have the lowest numbers that were free.
        close(pipes)
        raise
    return process


def abandon(process: ForkProcess | None) -> None:
    """Let our own exit not wait for a forked child, as multiprocessing does: it may hang in the kernel."""
    _children.discard(process)


def close(descriptors: Iterable[int]) -> None:
    """Close inherited descriptors, in a forked child."""
    for fd in descriptors:
        with contextlib.suppress(OSError):
            os.close(fd)


_PAGE = os.sysconf("SC_PAGE_SIZE")


def rss(pid: int) -> int | None:
    """Return a process's resident memory in bytes, shared pages included (proc(5)); None if it is gone."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError):
        return None


START_DIRECTORY = "/"
"""The working directory of the programs that we start."""


def spawn(
    argv: tuple[str, ...],
    idle: bool = False,
    death_signal: signal.Signals = signal.SIGKILL,
    silent: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a program, without a shell, with non-blocking pipes for its three streams, or none if ``silent``.

    The kernel sends it ``death_signal`` when we die; any other signal than SIGKILL would leave a stopped
    program behind. Its messages are in English because we parse them. With ``idle`` it gets processor and
    disk when no other process wants them. OSError if it cannot be started.
    """
    parent, streams = os.getpid(), subprocess.DEVNULL if silent else subprocess.PIPE

    def prepare() -> None:  # between fork and exec; we have one thread only
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        die_with_parent(death_signal, parent)
        descriptors.restore_soft_limit()
        if idle:
            _lower_priority()

    child = subprocess.Popen(
        argv,
        stdin=streams,
        stdout=streams,
        stderr=streams,
        env={**os.environ, "LC_ALL": "C"},
        cwd=START_DIRECTORY,
        bufsize=0,
        preexec_fn=prepare,
    )
    for stream in filter(None, (child.stdin, child.stdout, child.stderr)):
        os.set_blocking(stream.fileno(), False)
    return child


def _lower_priority() -> None:
    os.nice(_NICEST)
    with contextlib.suppress(psutil.Error, OSError):  # a kernel or a sandbox may not have it
        psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)


def cpu_seconds() -> float:
    return time.process_time()


def reaped_cpu_seconds() -> float:
    """Return the processor time of the children that were waited for, and of those that they waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def unread(pipe: int) -> int:
    """Return how many bytes wait in a pipe, given either end (FIONREAD, ioctl_tty(2))."""
    found = fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))
    return int.from_bytes(found, sys.byteorder)


def is_cut_off(pid: int) -> bool:
    """Whether a client has lost its counterpart: its child, or the far end of its TCP connection.

    This reads all connections of the system; ``peers.Peers`` is cheaper, where it is allowed.
    """
    try:
        process = psutil.Process(pid)
        look = getattr(process, "net_connections", None) or process.connections  # psutil < 6
        states = {connection.status for connection in look("tcp")}
    except (psutil.Error, OSError):
        return True
    return psutil.CONN_CLOSE_WAIT in states or not (children(pid) or psutil.CONN_ESTABLISHED in states)


def children(pid: int) -> list[int]:
    """Return a process's children, from /proc. psutil scans the whole system for that, in 10 to 60 ms."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/children") as listed:
                found += map(int, listed.read().split())
    return found


def family(pid: int) -> list[int]:
    """Return a process and all its descendants, itself first, without what ``is_left_for_sharing``."""
    members = [pid]
    for member in members:
        members += [
            child for child in children(member) if child not in members and not is_left_for_sharing(child)
        ]
    return members


def is_left_for_sharing(pid: int) -> bool:
    """Whether ssh has left a process behind that later connections share (ControlPersist, ssh_config(5)).

    It belongs to the user who has asked for it: other programs use it, too. ssh gives it a title of its own.
    """
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            title = file.read().rstrip(b"\0")
    except OSError:
        return False
    return title.startswith(b"ssh: ") and title.endswith(b" [mux]")


def io_total(pids: Iterable[int], but: Container[str] = ()) -> int:
    """Return how many bytes processes have read and written so far (proc(5), io).

    A process counts as 0 if it has ended, may not be looked at, or has a name in ``but``.
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
    """Whether one of the processes hangs in open(2) of a FIFO that has no process at its other end (fifo(7)).

    The place where it sleeps in the kernel shows that (proc(5), wchan); False where the kernel hides it.
    """
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/wchan") as sleeping:
            if sleeping.read() in ("wait_for_partner", "fifo_open"):
                return True
    return False


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Signal processes; those that are gone are skipped."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def send_group(group: int, number: signal.Signals) -> None:
    """Signal a process group; harmless when it is empty."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def orphans(known: Iterable[int] = ()) -> list[int]:
    """Return our living children that are not ``known``, with their descendants; reap the dead ones.

    After ``adopt_orphans``, these are what our dead children have left behind, but for what
    ``is_left_for_sharing``.
    """
    found: list[int] = []
    ours: set[int] = set()
    with contextlib.suppress(OSError), open("/proc/thread-self/children", "rb", buffering=0) as listed:
        ours = set(map(int, listed.readall().split()))  # we have one thread only
    for pid in ours - set(known):
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG) == (0, 0) and not is_left_for_sharing(pid):
                found += family(pid)
    return found


def end_family(within: float) -> None:
    """Kill all descendants that ``orphans`` finds, and wait up to ``within`` seconds for their end.

    Call ``adopt_orphans`` before.
    """
    until = time.monotonic() + within
    while (left := orphans()) and time.monotonic() < until:
        send(left, signal.SIGKILL)
        time.sleep(_REAP_INTERVAL_SECONDS)


def leave(code: int) -> None:
    """End a forked child at once, without its parent's exit handlers."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # it may have been closed before we started
            stream.flush()
    os._exit(code)
