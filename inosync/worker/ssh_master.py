"""The connection to a node that the runs of rsync over ssh share, and the options that they connect with.

It saves a run the connecting: on one machine 178 ms instead of 383 ms for a run with nothing to do, and a
login on the node. Nothing depends on it. Without it, or when it has just ended, or when the node's sshd
grants no more sessions on it (MaxSessions), ssh connects directly (``tests/system/test_ssh_master.py``).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import IO

from inosync.nodes import backoff
from inosync.rsync import ssh
from inosync.system import process
from inosync.system.loop import Loop

_ASK_LIMIT = 5.0
"""Seconds for ssh to tell its configuration, which may run programs (Match exec) and look up names."""
_YOUNG = 60.0
"""Seconds that a connection must have lasted to be begun again at once when it ends."""
_PAUSE = (5.0, 600.0)
"""First and longest pause after one that did not, in seconds."""
_END_WITHIN = 2.0
"""Seconds between SIGTERM and SIGKILL."""
_CHUNK = 1 << 16


class SshMaster:
    """The shared connection of one worker, begun when a run has shown that the node can be reached.

    ``node``: as in ``rnodes``; ``extra``: the user's own words for rsync; ``directory``: where the socket is
    to be, which nobody else may write to. For other transports than ssh, or with a remote shell of the
    user's own choice, it does nothing at all. Making one asks ssh for its configuration, 5 s at most.
    """

    def __init__(
        self,
        node: str,
        extra: Iterable[str],
        directory: str,
        loop: Loop,
        clock: Callable[[], float],
        rand: Callable[[], float],
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._loop, self._clock, self._chance = loop, clock, rand
        self.rsh = ""
        """For rsync's --rsh: through the connection, directly if there is none. Empty: pass nothing."""
        self.rsh_direct = ""
        """The same, but always directly."""
        self.deadline: float | None = None
        """When ``tend`` has something to do, by the clock."""
        self._argv: tuple[str, ...] = ()
        self._path = ""
        """The socket; empty if nothing is shared."""
        self._child: subprocess.Popen[bytes] | None = None
        self._exited = -1
        self._streams: list[IO[bytes]] = []
        self._started = 0.0
        self._not_before = float("-inf")
        self._attempt = 0
        words = tuple(extra)
        destination = ssh.destination(node, words)
        if destination and not ssh.chosen(words, environ):
            self._choose(destination, directory)

    def _choose(self, destination: tuple[str, ...], directory: str) -> None:
        output = _ask(ssh.query_argv(destination))
        found = ssh.parse(output or b"")
        if not found and output is not None:
            return  # no ssh, or none that has these options, or one that will tell what is wrong
        options = ssh.options(found)
        self._path = ssh.control_path(found, directory, os.getpid()) if found else ""
        self.rsh = ssh.rsh(options, self._path)
        self.rsh_direct = ssh.rsh(options)
        self._argv = ssh.line_argv(options, self._path, destination)
        self._remove_socket()  # of an earlier process with our pid

    @property
    def pids(self) -> tuple[int, ...]:
        """Our child that is no transfer, and nothing that a transfer has left behind."""
        return (self._child.pid,) if self._child is not None else ()

    def reached(self) -> None:
        """A run has got through to the node: have the connection for the next."""
        now = self._clock()
        if self._child is not None:
            if now - self._started >= _YOUNG and not os.path.exists(self._path):
                self._end()  # it hangs in its login, or somebody has removed the socket
        elif self._path and now >= self._not_before:
            self._start(now)

    def distrust(self) -> None:
        """A run has failed that may have gone through the connection: the next one connects directly."""
        if self._child is not None:
            self._remove_socket()
            self._end()

    def tend(self) -> None:
        """Kill it if it was told to end and has not."""
        now = self._clock()
        if self._child is not None and self.deadline is not None and now >= self.deadline:
            process.send(process.family(self._child.pid), signal.SIGKILL)
            self.deadline = now + _END_WITHIN

    def close(self) -> None:
        """End it, for good; this may take ``_END_WITHIN``."""
        self._path, path = "", self._path
        child = self._child
        if child is not None:
            self._end()
            try:
                child.wait(_END_WITHIN)
            except subprocess.TimeoutExpired:
                process.send(process.family(child.pid), signal.SIGKILL)
            self._on_exit()
        _remove(path)

    def _start(self, now: float) -> None:
        self._started = now
        self._remove_socket()  # where one is, ssh connects without sharing
        try:
            child = process.spawn(self._argv, farewell=signal.SIGTERM)  # on which it removes its socket
            self._exited = os.pidfd_open(child.pid)
        except OSError:  # we are short of processes or descriptors
            self._rest(now)
            return
        self._child = child
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdin.close()
        self._streams = [child.stdout, child.stderr]
        self._loop.on_readable(self._exited, self._on_exit)
        for stream in self._streams:
            self._loop.on_readable(stream, partial(self._drain, stream))

    def _drain(self, stream: IO[bytes]) -> None:
        """What it says is of no use: whatever is wrong, the runs themselves will say."""
        with contextlib.suppress(BlockingIOError):
            if not os.read(stream.fileno(), _CHUNK):
                self._loop.drop(stream)
                stream.close()

    def _end(self) -> None:
        if self._child is not None and self.deadline is None:
            self.deadline = self._clock() + _END_WITHIN
            # A stopped process gets SIGTERM only when it goes on.
            process.send((self._child.pid,), signal.SIGTERM)
            process.send((self._child.pid,), signal.SIGCONT)

    def _on_exit(self) -> None:
        child = self._child
        assert child is not None
        for stream in self._streams:
            if not stream.closed:
                self._loop.drop(stream)
                stream.close()
        self._loop.drop(self._exited)
        os.close(self._exited)
        child.wait()
        self._child, self.deadline = None, None
        self._remove_socket()  # which it does not do itself when it is killed
        self._rest(self._clock())

    def _rest(self, now: float) -> None:
        """Settle when it may be begun again."""
        self._attempt = 0 if now - self._started >= _YOUNG else self._attempt + 1
        pause = backoff.delay(self._attempt, *_PAUSE, self._chance()) if self._attempt else 0.0
        self._not_before = now + pause

    def _remove_socket(self) -> None:
        _remove(self._path)


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def _ask(argv: tuple[str, ...]) -> bytes | None:
    """What a program prints; nothing if it fails or is not there, None if it takes too long."""
    try:
        child = process.spawn(argv)
    except OSError:
        return b""
    with child:
        try:
            output, _ = child.communicate(timeout=_ASK_LIMIT)
        except subprocess.TimeoutExpired:
            process.send(process.family(child.pid), signal.SIGKILL)
            return None
    return output if child.returncode == 0 else b""
