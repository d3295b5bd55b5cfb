"""What is run for somebody else, apart from everything: its own session, one pipe for what it says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping

_MOST = 4096
"""Bytes kept of what it says: the last ones."""


class Child:
    """A process that runs, the leader of a session. The caller must be single-threaded.

    ``output`` and ``exited`` are descriptors for a selector: when the first is readable, ``listen``; when the
    second is, ``finish`` collects the process. It ends with us. OSError if it cannot be started.
    """

    def __init__(self, start: Callable[[int], int]) -> None:
        self.output, writer = os.pipe()
        try:
            os.set_blocking(self.output, False)
            self.pid = start(writer)
            self.exited = os.pidfd_open(self.pid)
        except OSError:
            os.close(self.output)
            raise
        finally:
            os.close(writer)
        self._said = b""
        self.code: int | None = None
        """After ``finish``: its exit code, negative for a signal."""

    def listen(self) -> bool:
        """Read what it says; False at the end of that, after which ``output`` is never readable again."""
        try:
            data = os.read(self.output, 65_536)
        except BlockingIOError:
            return True
        self._said = (self._said + data)[-_MOST:]
        return bool(data)

    def finish(self) -> None:
        """Collect it; to be called once, after its end. What it has left in the pipe is read."""
        _, status = os.waitpid(self.pid, 0)
        self.code = os.waitstatus_to_exitcode(status)
        os.set_blocking(self.output, False)
        size = -1
        while size != len(self._said) and self.listen():  # a grandchild may hold it open, and go on talking
            size = len(self._said)
        os.close(self.output)
        os.close(self.exited)

    def signal(self, number: signal.Signals) -> None:
        """Signal all of its session's first group."""
        if self.code is None:
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                pass
            except PermissionError:  # a program that became another user, and we are not root
                pass

    @property
    def last_words(self) -> str:
        """The last line that it said; empty if it said nothing."""
        lines = [line for line in self._said.splitlines() if line.strip()]
        return os.fsdecode(lines[-1]).strip() if lines else ""


def program(argv: tuple[str, ...], env: Mapping[str, str], die_with: Callable[[], None]) -> Child:
    """Run a program, without a shell. ``die_with`` is called in the child, and binds it to us."""

    def start(writer: int) -> int:
        def prepare() -> None:  # between fork and exec
            _as_new()
            die_with()

        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=writer,
            env={**os.environ, **env},
            cwd="/",
            start_new_session=True,
            preexec_fn=prepare,
        )
        child.returncode = 0  # it is collected here; without one, subprocess would complain, and do it later
        return child.pid

    return Child(start)


def function(run: Callable[[], object], die_with: Callable[[], None]) -> Child:
    """Run a function in a forked child that has nothing open of ours. An exception of it is exit code 1."""

    def start(writer: int) -> int:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        if pid := os.fork():
            return pid
        code = 1
        try:
            os.setsid()
            die_with()
            null = os.open(os.devnull, os.O_RDWR)
            for fd, stream in ((null, 0), (writer, 1), (writer, 2)):
                os.dup2(fd, stream)
            os.closerange(3, 1 << 20)
            os.chdir("/")
            _as_new()
            run()
            code = 0
        except SystemExit as wanted:
            code = wanted.code if isinstance(wanted.code, int) else int(wanted.code is not None)
        except BaseException:  # noqa: BLE001 - whatever it is, the child ends here
            sys.excepthook(*sys.exc_info())
        finally:
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code & 0xFF)

    return Child(start)


def _as_new() -> None:
    """Signals as a program expects them that was started by a shell."""
    for number in signal.valid_signals():
        if number not in (signal.SIGKILL, signal.SIGSTOP) and signal.getsignal(number) is not signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
