"""A process that writes the log file where the file system may stop answering: NFS, CIFS, FUSE and so on.

Lines go there through a socket that is never waited for. A process that hangs in the kernel costs lines,
which are counted, and nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import signal
import socket
from collections.abc import Callable

from inosync.system import descriptors, process, signals

OPEN_SECONDS = 3.0
"""The longest time until the file is open."""


def start(make: Callable[[], logging.Handler], name: str) -> socket.socket:
    """Start a process that writes with the handler that ``make`` makes there; return the socket for lines.

    OSError if the handler cannot be made in time. The process ends when the socket is closed everywhere. It
    is no child of ours, so nothing has to wait for one that hangs.
    """
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    child = os.fork()
    if child == 0:
        try:
            if os.fork() == 0:
                _be_writer(theirs, make, name)
        finally:
            os._exit(0)
    theirs.close()
    os.waitpid(child, 0)
    try:
        if not select.select([ours], [], [], OPEN_SECONDS)[0]:
            raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT), name)
        code = int(ours.recv(16) or b"5")  # EIO if it has ended before it could tell
        if code:
            raise OSError(code, os.strerror(code), name)
    except OSError:
        ours.close()
        raise
    return ours


def _be_writer(connection: socket.socket, make: Callable[[], logging.Handler], name: str) -> None:
    signals.reset(ignored=(signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2))
    os.setsid()
    descriptors.lead_standard_streams_nowhere()
    lines = os.dup2(connection.fileno(), 3)
    os.closerange(4, 1 << 20)
    process.set_title(f"inosync: log {name}")
    try:
        handler = make()
    except OSError as error:
        os.write(lines, str(error.errno or errno.EIO).encode())
        return
    os.write(lines, b"0")
    with open(lines, encoding="utf-8", errors="surrogateescape") as text:
        for line in text:
            handler.emit(logging.makeLogRecord({"msg": line.rstrip("\n")}))
    with contextlib.suppress(OSError):
        handler.close()
