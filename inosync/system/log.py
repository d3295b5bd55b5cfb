"""Where log lines go and how they look: syslog, standard error, the journal, or a file that can be reopened.

Log lines contain file names and messages of rsync. Control characters in them are escaped, so that a file
name can neither forge a line nor control the terminal of a reader.
"""

from __future__ import annotations

import contextlib
import json
import logging
import logging.handlers
import os
import re
import select
import socket
import stat
import sys
import time
from collections.abc import Callable, Hashable
from datetime import datetime
from functools import partial
from io import TextIOWrapper
from typing import Any

from inosync.system import log_writer, mounts

REPEAT_SECONDS = 60.0
"""For so long, a line that repeats another is counted instead of written."""
_MAX_REMEMBERED = 1_000
"""Lines that repetitions are compared with."""
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
"""The priorities of syslog(3), which sd-daemon(3) expects before a line."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def printable(text: str) -> str:
    """Return a text with control characters, line ends and undecodable bytes as ``\\xNN``."""
    return _CONTROL.sub(lambda found: _escape(ord(found[0])), text)


def _escape(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was no UTF-8, kept by surrogateescape
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def about(same: Hashable = None, is_detail: bool = False, **facts: object) -> dict[str, Any]:
    """Return the ``extra`` of a logging call: the facts become fields of a line of JSON.

    Of lines with an equal ``same``, one is written in ``REPEAT_SECONDS``, with the number of the others. A
    detail is for programs: it is written as JSON, and else only at level DEBUG.
    """
    return {"facts": facts, "same": same, "is_detail": is_detail}


def _is_for_people(record: logging.LogRecord) -> bool:
    return not getattr(record, "is_detail", False) or logging.getLogger().isEnabledFor(logging.DEBUG)


class Repeats(logging.Filter):
    """Passes a repeated line once in ``REPEAT_SECONDS``; at level DEBUG it passes all lines."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._passed: dict[Hashable, tuple[float, int]] = {}
        """When a line last passed, and how many repetitions were held back after it."""

    def filter(self, record: logging.LogRecord) -> bool:
        same = getattr(record, "same", None)
        if same is None or logging.getLogger().isEnabledFor(logging.DEBUG):
            return True
        now = self._clock()
        at, held = self._passed.get(same, (float("-inf"), 0))
        if now - at < REPEAT_SECONDS:
            self._passed[same] = at, held + 1
            return False
        self._passed.pop(same, None)  # so that the line that passed longest ago comes first
        if len(self._passed) >= _MAX_REMEMBERED:
            del self._passed[next(iter(self._passed))]
        self._passed[same] = now, 0
        record.__dict__["repeated"] = held
        return True


_repeats = Repeats()
"""One for the process, so that repetitions are counted on when the log is reopened."""


class _OneLine(logging.Formatter):
    """Writes a record as one line; a traceback, which only our own faults cause, keeps its lines."""

    def format(self, record: logging.LogRecord) -> str:
        plain = _copy_without_exception(record) if record.exc_info or record.exc_text else record
        line = printable(super().format(plain) + _how_often(record))
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class _Json(logging.Formatter):
    """Writes a record as one line, a JSON object (RFC 8259) with a time as in RFC 3339."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created).astimezone()
        fields = {
            "time": at.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "pid": record.process,
            "message": printable(record.getMessage()),
            **{name: _plain(fact) for name, fact in getattr(record, "facts", {}).items()},
        }
        if count := getattr(record, "repeated", 0):
            fields["repeated"] = count
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        # ASCII, because a name that is not UTF-8 would make a line that no JSON parser accepts.
        return json.dumps(fields, default=str)


class _Prioritised(logging.Formatter):
    """Writes lines for the journal, each with its priority in front (sd-daemon(3))."""

    def __init__(self, form: logging.Formatter) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        priority = _PRIORITIES.get(record.levelno, 6)
        return "\n".join(f"<{priority}>{line}" for line in self._form.format(record).splitlines())


def _plain(fact: object) -> object:
    return printable(fact) if isinstance(fact, str) else fact


def _how_often(record: logging.LogRecord) -> str:
    count = getattr(record, "repeated", 0)
    return f" ({count} more like this since the last one)" if count else ""


def _form(text: str, as_json: bool) -> logging.Formatter:
    return _Json() if as_json else _OneLine(text)


def _copy_without_exception(record: logging.LogRecord) -> logging.LogRecord:
    copied = logging.makeLogRecord(record.__dict__)
    copied.exc_info = None
    copied.exc_text = None
    return copied


class _Counting(logging.Handler):
    """Counts the lines that cannot be written, and says how many there were before the next one that can."""

    _lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        lost, self._lost = self._lost, 0
        if lost:
            text = f"log lines lost because their reader was stuck: {lost}"
            notice = {"msg": text, "levelno": logging.WARNING, "levelname": "WARNING"}
            super().emit(logging.makeLogRecord(notice))
        if self._lost:
            self._lost = lost + 1
        else:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002
        self._lost += 1


class _Descriptor(logging.Handler):
    """Writes to a descriptor without waiting, whether it is a pipe, a socket or a terminal nothing reads."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._resources = contextlib.ExitStack()
        self._write = _write_without_waiting(fd, self._resources)
        self._rest = b""
        """The end of a line that was written in part."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line; ``handleError`` is called if that would have to wait."""
        try:
            line = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
            data = self._rest + line
            self._rest = data[self._write(data) :]
        except Exception:  # noqa: BLE001 - as every logging handler does
            self.handleError(record)

    def close(self) -> None:
        self._resources.close()
        super().close()


class _Stderr(_Counting, _Descriptor):
    pass


class _FarFile(_Counting, _Descriptor):
    """Has another process append to a file whose file system may stop answering."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._started_at = time.monotonic()
        with self._start_writer() as lines:
            super().__init__(lines.fileno())

    def _start_writer(self) -> socket.socket:
        make = partial(_File, self.path, encoding="utf-8", errors="surrogateescape")
        return log_writer.start(make, self.path)

    def handleError(self, record: logging.LogRecord) -> None:
        """Count the line, and start another process from time to time if that one is gone."""
        super().handleError(record)
        now = time.monotonic()
        if isinstance(sys.exception(), ConnectionError) and now - self._started_at >= REPEAT_SECONDS:
            self._started_at = now
            with contextlib.suppress(OSError), self._start_writer() as lines:
                self._resources.close()
                self._write, self._rest = _write_without_waiting(lines.fileno(), self._resources), b""


def _write_without_waiting(fd: int, resources: contextlib.ExitStack) -> Callable[[bytes], int]:
    """Return a function that writes what fits or raises BlockingIOError; ``resources`` closes its files."""
    mode = os.fstat(fd).st_mode
    if stat.S_ISSOCK(mode):
        connected = resources.enter_context(socket.socket(fileno=os.dup(fd)))
        return lambda data: connected.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    if not (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
        return partial(os.write, fd)
    with contextlib.suppress(OSError):
        # Opened again, because O_NONBLOCK of the given descriptor would be set for the shell, too.
        own = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        resources.callback(os.close, own)
        return partial(os.write, own)
    poll = select.poll()
    poll.register(fd, select.POLLOUT)

    def write(data: bytes) -> int:
        if not poll.poll(0):
            raise BlockingIOError
        return os.write(fd, data[: select.PIPE_BUF])  # a pipe that is ready has room for so much

    return write


class _Syslog(_Counting, logging.handlers.SysLogHandler):
    """Sends to syslog, and drops a line instead of waiting for a syslogd that does not read."""

    def _connect_unixsocket(self, address: str) -> None:
        # Called for every new socket, also for the one that emit() makes when sending has failed.
        connect: Callable[[str], None] = getattr(super(), "_connect_unixsocket")  # noqa: B009 - untyped
        connect(address)
        made: socket.socket | None = getattr(self, "socket", None)
        if made is not None:
            made.setblocking(False)


class _File(logging.handlers.WatchedFileHandler):
    """Appends to a file that may be rotated away; while its directory is missing the old file is used."""

    def _open(self) -> TextIOWrapper:
        return open(self.baseFilename, "a", encoding=self.encoding, errors=self.errors, opener=_private)

    def reopenIfNeeded(self) -> None:
        """Open the path again if there is another file by now, or none."""
        with contextlib.suppress(OSError):
            found = os.stat(self.baseFilename)
            if (found.st_dev, found.st_ino) == (self.dev, self.ino):
                return
        try:
            fresh = self._open()
        except OSError:  # no directory or no room: the old file is better than no file
            return
        old, self.stream = self.stream, fresh
        self._statstream()
        if old is not None:
            with contextlib.suppress(OSError):  # it has lines left, and its disk is full
                old.close()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o640)


def to_syslog(address: str = "/dev/log", as_json: bool = False) -> logging.Handler:
    """Return a handler for the local syslog daemon, facility daemon; OSError if nothing listens there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        probe.connect(address)
    handler = _Syslog(address, facility=logging.handlers.SysLogHandler.LOG_DAEMON)
    handler.ident = f"inosync[{os.getpid()}]: "
    handler.setFormatter(_form("%(message)s", as_json))
    return handler


def to_stderr(as_json: bool = False) -> logging.Handler:
    """Return a handler for standard error; lines have priorities if it leads to the journal."""
    handler = _Stderr(2)
    if _is_journal():
        handler.setFormatter(_Prioritised(_form("%(message)s", as_json)))
    else:
        handler.setFormatter(_form("%(asctime)s inosync: %(levelname)s: %(message)s", as_json))
    return handler


def _is_journal() -> bool:
    """Whether stderr leads to the journal: JOURNAL_STREAM names its device and inode (systemd.exec(5))."""
    try:
        found = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def to_file(path: str, as_json: bool = False) -> logging.Handler:
    """Return a handler that appends to ``path``, created with mode 0640; OSError if that fails."""
    in_use = (one for one in logging.getLogger().handlers if isinstance(one, _FarFile) and one.path == path)
    handler: logging.Handler | None = next(in_use, None)  # to open the file anew might hang
    if handler is None:
        is_far = mounts.is_remote(os.path.abspath(path))
        handler = _FarFile(path) if is_far else _File(path, encoding="utf-8", errors="surrogateescape")
    handler.setFormatter(_form("%(asctime)s inosync[%(process)d]: %(levelname)s: %(message)s", as_json))
    return handler


def use(handler: logging.Handler, verbose: bool, quiet: bool = False) -> None:
    """Make ``handler`` the only one, at level DEBUG (``verbose``), WARNING (``quiet``) or INFO."""
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        if old is not handler:
            with contextlib.suppress(OSError):  # it has lines left, and its disk is full
                old.close()
    # A full disk under the log, or a closed stderr, must not end the daemon: logging drops the line.
    logging.raiseExceptions = False
    handler.addFilter(_repeats)
    if not isinstance(handler.formatter, _Json):
        handler.addFilter(_is_for_people)
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO)


def reopen() -> None:
    """Open the log file again, after it was rotated away."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _File):
            handler.reopenIfNeeded()
