"""Where log lines go: syslog, stderr, or a file that can be reopened.

Names of files and words of rsync stand in log lines. Control characters in them are escaped, so that a
file name can neither forge a line nor drive the terminal of whoever reads the log.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import re
import socket
from collections.abc import Callable

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def printable(text: str) -> str:
    """``text`` with control characters, line ends and undecodable bytes as ``\\xNN``. Pure."""
    return _CONTROL.sub(lambda found: _escape(ord(found[0])), text)


def _escape(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was no UTF-8, kept by surrogateescape
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


class _OneLine(logging.Formatter):
    """A record is one line. Tracebacks, which only a fault of our own makes, keep theirs."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(_copy_without_exception(record))
        line = printable(line)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def _copy_without_exception(record: logging.LogRecord) -> logging.LogRecord:
    copied = logging.makeLogRecord(record.__dict__)
    copied.exc_info = None
    copied.exc_text = None
    return copied


class _Syslog(logging.handlers.SysLogHandler):
    """syslog that drops a line rather than wait for a stuck syslogd."""

    def _connect_unixsocket(self, address: str) -> None:
        # Called for every new socket, also for the one that emit() makes when sending has failed.
        connect: Callable[[str], None] = getattr(super(), "_connect_unixsocket")  # noqa: B009 - untyped
        connect(address)
        made: socket.socket | None = getattr(self, "socket", None)
        if made is not None:
            made.setblocking(False)


class _File(logging.handlers.WatchedFileHandler):
    """A file that may be rotated away, its directory with it: then lines are dropped until it is back."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:  # from opening it anew, which the handler does not guard
            self.handleError(record)

    def reopen(self) -> None:
        with contextlib.suppress(OSError):
            self.reopenIfNeeded()


def to_syslog(address: str = "/dev/log") -> logging.Handler:
    """A handler for the local syslog daemon, facility daemon; OSError if nobody listens there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        probe.connect(address)
    handler = _Syslog(address, facility=logging.handlers.SysLogHandler.LOG_DAEMON)
    handler.setFormatter(_OneLine(f"inosync[{os.getpid()}]: %(message)s"))
    return handler


def to_stderr() -> logging.Handler:
    """A handler for a terminal or a service manager."""
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(asctime)s inosync: %(levelname)s: %(message)s"))
    return handler


def to_file(path: str) -> logging.Handler:
    """A handler that appends to ``path``, created with mode 0640; OSError if that cannot be done."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640))
    handler = _File(path, encoding="utf-8", errors="surrogateescape")
    handler.setFormatter(_OneLine("%(asctime)s inosync[%(process)d]: %(levelname)s: %(message)s"))
    return handler


def use(handler: logging.Handler, verbose: bool) -> None:
    """Make ``handler`` the only one; ``verbose`` lets debugging lines through."""
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        with contextlib.suppress(OSError):  # it has lines left, and its disk is full
            old.close()
    # A full disk under the log, or a closed stderr, is no reason to end: logging drops the line.
    logging.raiseExceptions = False
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if verbose else logging.INFO)


def reopen() -> None:
    """After a log file was rotated away: close it and open its path anew."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _File):
            handler.reopen()
