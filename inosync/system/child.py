"""A child process in a session of its own, whose output goes to one pipe: hooks, and our ssh master."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping

from inosync.system import descriptors

_OUTPUT_BYTES = 4096
"""How much of the output is kept: its end."""
_SECRET = "RSYNC_PASSWORD"
"""A variable that only rsync needs: no child gets it."""


class Child:
    """A running child, the leader of a session. The caller has one thread only.

    ``output`` and ``exited`` are descriptors for the loop: call ``read_output`` when the first is readable
    and ``reap`` when the second is. OSError if the child cannot be started.
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
        self._output = b""
        self.code: int | None = None
        """The exit code, negative for a signal; None before ``reap``."""

    def read_output(self) -> bool:
        """Read what the child has written; False at the end of its output."""
        try:
            data = os.read(self.output, 65_536)
        except BlockingIOError:
            return True
        self._output = (self._output + data)[-_OUTPUT_BYTES:]
        return bool(data)

    def reap(self) -> None:
        """Collect the child after its end, once, and read what is left in the pipe."""
        _, status = os.waitpid(self.pid, 0)
        self.code = os.waitstatus_to_exitcode(status)
        os.set_blocking(self.output, False)
        size = -1
        while (
            size != len(self._output) and self.read_output()
        ):  # a grandchild may keep it open and go on writing
            size = len(self._output)
        os.close(self.output)
        os.close(self.exited)

    def signal(self, number: signal.Signals) -> None:
        """Signal the child's process group."""
        if self.code is None:
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                pass
            except PermissionError:  # the program has become another user, and we are not root
                pass

    @property
    def output_tail(self) -> str:
        """The last line of output; empty if there was none."""
        lines = [line for line in self._output.splitlines() if line.strip()]
        return os.fsdecode(lines[-1]).strip() if lines else ""


def program(argv: tuple[str, ...], env: Mapping[str, str], prepare: Callable[[], None]) -> Child:
    """Run a program without a shell. ``prepare`` is called in the child before exec."""

    def start(writer: int) -> int:
        def between_fork_and_exec() -> None:
            _reset_signals()
            descriptors.restore_soft_limit()
            prepare()

        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=writer,
            env={**_environment(), **env},
            cwd="/",
            start_new_session=True,
            preexec_fn=between_fork_and_exec,
        )
        child.returncode = (
            0  # reap() collects it; without a return code subprocess would warn, and collect it
        )
        return child.pid

    return Child(start)


def function(run: Callable[[], object], prepare: Callable[[], None]) -> Child:
    """Run a function in a forked child that closes all our descriptors. An exception is exit code 1."""

    def start(writer: int) -> int:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        if pid := os.fork():
            return pid
        code = 1
        try:
            os.setsid()
            prepare()
            null = os.open(os.devnull, os.O_RDWR)
            for fd, stream in ((null, 0), (writer, 1), (writer, 2)):
                os.dup2(fd, stream)
            os.closerange(3, 1 << 20)
            os.chdir("/")
            descriptors.restore_soft_limit()
            _reset_signals()
            os.environ.pop(_SECRET, None)
            run()
            code = 0
        except SystemExit as wanted:
            code = wanted.code if isinstance(wanted.code, int) else int(wanted.code is not None)
        except BaseException:  # noqa: BLE001 - the child ends here, whatever happened
            sys.excepthook(*sys.exc_info())
        finally:
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code & 0xFF)

    return Child(start)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != _SECRET}


def _reset_signals() -> None:
    """Give every signal its default action, and block none, as a shell does for what it starts."""
    for number in signal.valid_signals():
        if number not in (signal.SIGKILL, signal.SIGSTOP) and signal.getsignal(number) is not signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
