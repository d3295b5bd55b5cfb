"""The ssh connection that the rsyncs of one worker share, and the ssh that they connect with.

It saves an rsync the connecting (on one machine 178 ms instead of 383 ms for a run with nothing to do) and a
login on the node. Nothing depends on it: without it, when it has just ended, or when the node's sshd grants
no more sessions on it (MaxSessions), ssh connects directly (``tests/system/test_ssh_master.py``).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping

from inosync.nodes import backoff
from inosync.system import process
from inosync.system.loop import Loop, Timer
from inosync.worker import ssh_query

_YOUNG_SECONDS = 60.0
"""A connection that ends at this age or later is started again without a pause."""
_PAUSE_SECONDS = (5.0, 600.0)
"""First and longest pause after a younger one."""
_KILL_AFTER_SECONDS = 2.0
"""The time between SIGTERM and SIGKILL."""


class SshMaster:
    """The shared connection of one worker. It starts when a transfer has shown that the node can be reached.

    ``node``: as in ``rnodes``; ``extra``: the user's own words for rsync; ``directory``: for the socket; only
    we may write to it. For other transports than ssh, or with a remote shell that is not OpenSSH, it does
    nothing. The constructor asks ssh for its configuration, for 5 s at most.
    """

    def __init__(
        self,
        node: str,
        extra: Iterable[str],
        directory: str,
        loop: Loop,
        rand: Callable[[], float],
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._loop, self._rand = loop, rand
        found = ssh_query.ways(node, tuple(extra), directory, environ)
        self.rsh_direct = found.direct
        """For rsync's --rsh, without the connection. Empty: no --rsh."""
        self._path = found.path  # of the socket; empty if nothing is shared
        self._ways, self._way = found.ways, 0  # and which of them is in use
        self._is_tried = False  # an rsync was called in that way
        self._child: subprocess.Popen[bytes] | None = None  # the ssh that holds the connection
        self._exited = -1  # its pidfd
        self._kill: Timer | None = None  # set once it was told to end
        self._started_at = 0.0
        self._not_before = float("-inf")  # when the next may start
        self._failures = 0  # connections in a row that ended young
        _remove(self._path)  # of an earlier process with our pid

    @property
    def rsh(self) -> str:
        """For rsync's --rsh: through the connection, directly if there is none. Empty: no --rsh."""
        return self._ways[self._way].rsh

    def note_try(self) -> None:
        """Note that an rsync was started with ``rsh``."""
        self._is_tried = True

    @property
    def pids(self) -> tuple[int, ...]:
        """Our child, which is neither a transfer nor left behind by one."""
        return (self._child.pid,) if self._child is not None else ()

    def node_reached(self) -> None:
        """Have the connection ready for the next transfer: one has just got through to the node."""
        now = self._loop.clock()
        if self._child is not None:
            if now - self._started_at >= _YOUNG_SECONDS and not os.path.exists(self._path):
                self._end()  # it hangs in its login, or its socket was removed
        elif self._path and self._ways[self._way].master and now >= self._not_before:
            self._start(now)

    def distrust(self) -> None:
        """Have the next transfer connect directly: one has failed that may have used the connection.

        If the user shares connections, too, ours takes the place of the user's, or the user's that of ours:
        that which was in use may hang, or may not be able to log in.
        """
        if self._child is not None:
            _remove(self._path)
            self._end()
        if self._is_tried:  # several rsyncs may report the failure of one way
            self._way, self._is_tried = (self._way + 1) % len(self._ways), False

    def close(self) -> None:
        """End it for good; this may take 2 s."""
        self._path, path = "", self._path
        child = self._child
        if child is not None:
            self._end()
            try:
                child.wait(_KILL_AFTER_SECONDS)
            except subprocess.TimeoutExpired:
                process.send(process.family(child.pid), signal.SIGKILL)
            self._on_exit()
        _remove(path)

    def _start(self, now: float) -> None:
        self._started_at = now
        _remove(self._path)  # ssh does not share a connection where a socket is already
        try:
            # On SIGTERM it removes its socket. If something is wrong, the transfers say so.
            child = process.spawn(self._ways[self._way].master, death_signal=signal.SIGTERM, silent=True)
            self._exited = os.pidfd_open(child.pid)
        except OSError:  # we are short of processes or descriptors
            self._set_pause(now)
            return
        self._child = child
        self._loop.on_exit(self._exited, self._on_exit)

    def _end(self) -> None:
        if self._child is not None and self._kill is None:
            self._kill = self._loop.call_at(self._loop.clock() + _KILL_AFTER_SECONDS, self._kill_family)
            # A stopped process gets SIGTERM only when it goes on.
            process.send((self._child.pid,), signal.SIGTERM)
            process.send((self._child.pid,), signal.SIGCONT)

    def _kill_family(self) -> None:
        if self._child is not None:
            process.send(process.family(self._child.pid), signal.SIGKILL)

    def _on_exit(self) -> None:
        child = self._child
        assert child is not None
        self._loop.drop(self._exited)
        os.close(self._exited)
        child.wait()
        if self._kill is not None:
            self._kill.cancel()
        self._child = self._kill = None
        _remove(self._path)  # which ssh does not do when it is killed
        self._set_pause(self._loop.clock())

    def _set_pause(self, now: float) -> None:
        self._failures = 0 if now - self._started_at >= _YOUNG_SECONDS else self._failures + 1
        pause = backoff.delay(self._failures, *_PAUSE_SECONDS, self._rand()) if self._failures else 0.0
        self._not_before = now + pause


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
