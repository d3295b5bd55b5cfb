"""Programs that a process starts again and again, at little cost, and that end with it.

Code between fork and exec (``preexec_fn``, which PR_SET_PDEATHSIG needs) makes ``subprocess`` fork: it copies
the page tables of a Python process, and both processes copy each page that they write to afterwards.
posix_spawn(3) shares the memory until exec. Measured for /bin/true in a process of a worker's size: 3.2 ms of
processor time with ``preexec_fn``, 0.6 ms with posix_spawn, 1.3 ms if that starts ``setpriv --pdeathsig``.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from inosync.system import descriptors, process

_RESET_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ)
"""Python ignores these, and an exec would keep that."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program that was started, and our ends of its three streams, which do not block."""

    pid: int
    stdin: io.FileIO
    stdout: io.FileIO
    stderr: io.FileIO
    wait: Callable[[], int]
    """Collects it, once, and returns its exit code, negative for a signal."""


class _Family:
    """What makes ``start`` cheap in this process."""

    def __init__(self) -> None:
        self.environment: Mapping[bytes, bytes] = {**os.environb, b"LC_ALL": b"C"}
        self._lifeline = _lifeline()
        """Both ends of the pipe; it is never closed."""


_family: _Family | None = None


def bind_group() -> None:
    """Prepare this process, which leads its process group, and its children for ``start``.

    From now on the kernel kills the group when this process ends, however it ends, as long as a program that
    ``start`` has started is left in it. The current directory becomes that of the programs. Descriptors that
    were inherited are not inherited further. The environment is that of now.
    """
    global _family
    os.chdir(process.START_DIRECTORY)
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the listing itself
            os.set_inheritable(int(name), int(name) < 3)
    with contextlib.suppress(OSError):  # not every sandbox has it; ``start`` works, and costs more
        _family = _Family()


def _lifeline() -> tuple[int, int]:
    """Make a pipe that no process ever writes to. Its reading end is inherited, its writing end is not.

    So our end closes it, and the kernel signals the owner of the reading end: our group (F_SETOWN and
    F_SETSIG, fcntl(2)). That needs a process that still has the reading end open, and rsync has. Unlike
    PR_SET_PDEATHSIG it reaches the children of the programs, too.
    """
    reader, writer = os.pipe()
    try:
        fcntl.fcntl(reader, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(reader, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(reader, fcntl.F_SETFL, fcntl.fcntl(reader, fcntl.F_GETFL) | os.O_ASYNC)
    except OSError:
        os.close(reader)
        os.close(writer)
        raise
    os.set_inheritable(reader, True)
    return reader, writer


def start(argv: tuple[str, ...], idle: bool = False) -> Program:
    """Start a program as ``process.spawn`` does, at less cost after ``bind_group`` and without ``idle``.

    OSError if it cannot be started.
    """
    if _family is not None and not idle:
        pipes: list[int] = []
        try:
            for _ in range(3):
                pipes += os.pipe()
            # posix_spawn(3) refuses descriptors above the limit that the program is to have.
            if descriptors.is_below_first_soft_limit(max(pipes)):
                return _start(argv, pipes, _family.environment)
        except OSError:
            process.close(pipes)
            raise
        process.close(pipes)
    child = process.spawn(argv, idle)
    stdin, stdout, stderr = map(_raw, (child.stdin, child.stdout, child.stderr))
    return Program(child.pid, stdin, stdout, stderr, child.wait)


def _start(argv: tuple[str, ...], pipes: list[int], environment: Mapping[bytes, bytes]) -> Program:
    theirs, ours = (pipes[0], pipes[3], pipes[5]), (pipes[1], pipes[2], pipes[4])
    with descriptors.first_soft_limit():
        pid = os.posix_spawnp(
            argv[0],
            argv,
            environment,
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, stream) for stream, fd in enumerate(theirs)],
            setsigmask=(),
            setsigdef=_RESET_SIGNALS,
        )
    process.close(theirs)
    for fd in ours:
        os.set_blocking(fd, False)
    stdin, stdout, stderr = (io.FileIO(fd, mode) for fd, mode in zip(ours, ("wb", "rb", "rb"), strict=True))
    return Program(pid, stdin, stdout, stderr, partial(_wait, pid))


def _raw(stream: object) -> io.FileIO:
    assert isinstance(stream, io.FileIO)
    return stream


def _wait(pid: int) -> int:
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)
