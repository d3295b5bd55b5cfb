"""Reads single lines of rsync's standard error: a complaint about a path, noise, or unknown.

The texts are those of rsync 3.5.0 under LC_ALL=C, provoked one by one, with and without the ``[role]`` that
versions before 3.2 lack. They hold names chosen by strangers: a line that can be read in two ways (a quote in
a name) counts as unknown, which keeps more due than need be, never less.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass

from inosync.rsync import compat, exit_codes
from inosync.text import one_line


class Failure(enum.Enum):
    """What a complaint leaves undone."""

    ATTRIBUTES = enum.auto()
    """Only times, mode, owner, ACL or extended attributes of the path itself."""
    VANISHED = enum.auto()
    """The path was there when the source was listed, and gone when it was to be read."""
    UNREADABLE = enum.auto()
    """The content of one file of the source."""
    BLOCKED = enum.auto()
    """One entry that is no directory: the node's rsync may not remove what is in its place."""
    UNDELETED = enum.auto()
    """One entry: a named directory is not made writable before it is removed, as one in a listing is."""
    UNCONVERTIBLE = enum.auto()
    """The path has no name in the node's character set (``--iconv``), so the node cannot have it."""
    OTHER = enum.auto()


class Side(enum.Enum):
    """Where the path of a complaint is."""

    SOURCE = enum.auto()
    """Absolute, on this machine."""
    NODE = enum.auto()
    """On the node: absolute, or from the root of ``module``."""
    EITHER = enum.auto()
    """Absolute; from a version of rsync that does not print its role."""
    RELATIVE = enum.auto()
    """From the root of the transfer."""


@dataclass(frozen=True, slots=True)
class Complaint:
    """One line about one path."""

    failure: Failure
    side: Side
    path: bytes
    module: bytes | None = None
    io_error: bool = False
    """The sender could not read: it may have kept the node from deleting anything at all."""
    temporary: bool = False
    """The path is the name of a temporary file for sure; otherwise it may be one."""


_ROLE = rb"rsync: (?:\[(?P<role>\w+)\] )?"
_WHERE = rb'"(?P<path>[^"]*)"(?: \(in (?P<module>[^"()]*)\))?'
_WHY = rb': [^"]* \(\d+\)'
_RELATIVE = rb"(?P<relative>.*)"

# Some failures are I/O errors of the sender whatever the line says of its role.
_IO_ERRORS = (
    (
        Failure.UNREADABLE,
        _ROLE + rb"(?P<sender>send_files failed to open|read errors mapping) " + _WHERE + _WHY,
    ),
    (Failure.OTHER, _ROLE + rb"(?P<sender>link_stat) " + _WHERE + rb" failed" + _WHY),
    (Failure.OTHER, _ROLE + rb"(?P<sender>readlink_stat)\(" + _WHERE + rb"\) failed" + _WHY),
    (Failure.OTHER, rb"(?P<sender>symlink has no referent): " + _WHERE),
    (Failure.OTHER, rb"filename overflows max-path len by \d+: " + _RELATIVE),
    (Failure.UNCONVERTIBLE, rb"\[\w+\] cannot convert filename: " + _RELATIVE + rb" \([^()]*\)"),
    (Failure.OTHER, rb"\[\w+\] cannot convert symlink data for: " + _RELATIVE + rb" \([^()]*\)"),
)
_OTHERS = (
    (Failure.ATTRIBUTES, _ROLE + rb"failed to (?:set|modify) [a-z ]+ on " + _WHERE + _WHY),
    (Failure.ATTRIBUTES, _ROLE + rb"l?ch(?:own|grp|mod) " + _WHERE + rb" failed" + _WHY),
    (
        Failure.ATTRIBUTES,
        _ROLE + rb"rsync_xal_\w+: [fl]?(?:set|remove)xattr\(" + _WHERE + rb',"[^"]*"\) failed' + _WHY,
    ),
    (Failure.ATTRIBUTES, _ROLE + rb"set_acl: \w+\((?P<relative>.*), ACL_TYPE_\w+\)" + _WHY),
    (Failure.VANISHED, rb"(?P<sender>file|directory) has vanished: " + _WHERE),
    (Failure.OTHER, _ROLE + rb"(?:opendir|(?P<temporary>mkstemp)) " + _WHERE + rb" failed" + _WHY),
    (Failure.OTHER, _ROLE + rb"write failed on " + _WHERE + _WHY),
    (Failure.OTHER, _ROLE + rb"readdir\(" + _WHERE + rb"\)" + _WHY),
    (
        Failure.OTHER,
        _ROLE + rb"(?:recv_generator: )?(?:mkdir|mknod|mkfifo) " + _WHERE + rb" failed" + _WHY,
    ),
    (
        Failure.OTHER,
        _ROLE + rb"(?:recv_generator: )?(?:failed to )?stat " + _WHERE + rb"(?: failed)?" + _WHY,
    ),
    (Failure.OTHER, _ROLE + rb"symlink " + _WHERE + rb' -> "[^"]*" failed' + _WHY),
    (Failure.OTHER, _ROLE + rb'rename "[^"]*"(?: \(in [^"()]*\))? -> "(?P<relative>[^"]*)"' + _WHY),
    (Failure.UNDELETED, _ROLE + rb"delete_file: (?:unlink|rmdir)\((?P<relative>.*)\) failed" + _WHY),
    (Failure.OTHER, rb"could not make way for [a-z ]*directory: " + _RELATIVE),
    (Failure.BLOCKED, rb"could not make way for [a-z ]+: " + _RELATIVE),
    (Failure.OTHER, rb"Unable to create partial-dir for (?P<relative>.*) -- discarding completed file\."),
    (Failure.OTHER, rb"WARNING: parent dir is absent in the file list: " + _RELATIVE),
    (Failure.OTHER, rb'ERROR: daemon refused to receive [a-z ]+ "(?P<relative>[^"]*)"'),
    (Failure.OTHER, rb"ERROR: (?P<relative>.*) failed verification -- update [a-z ]+\."),
)
_COMPLAINTS = tuple(
    (re.compile(pattern), failure, io_error)
    for rules, io_error in ((_OTHERS, False), (_IO_ERRORS, True))
    for failure, pattern in rules
)

# Lines that repeat what other lines say, or the exit code.
_NOISE = re.compile(
    rb"""\s*
    | rsync\ (?:error|warning):\ .*
    | \*\*\*\ Skipping\ any\ contents\ from\ this\ failed\ directory\ \*\*\*
    | IO\ error\ encountered\ --\ skipping\ file\ deletion
    | cannot\ delete\ non-empty\ directory:\ .*
    | skipping\ non-regular\ file\ .*
    | WARNING:\ .*\ failed\ verification\ --\ .*\ \(will\ try\ again\)\.
    | Warning:\ Permanently\ added\ .*
    | \*\*\ .*                          # warnings of ssh
    # ssh that did not get through a shared connection, and connects by itself
    | Control\ socket\ connect\(.*
    | mux_client_.*:\ .*
    | muxclient:\ .*
    | ControlSocket\ .*\ already\ exists,\ disabling\ multiplexing
    """,
    re.VERBOSE,
)


# What is printed of a name that is left undone, though the exit code may be 0. Not "bash: ... cannot ...".
_UNDONE = re.compile(
    rb"(?:rsync: )?(?:\[\w+\] )?(?:cannot|unable to|skipping|discarding) .*|.* -- (?:discarding|skipping) .*",
    re.IGNORECASE,
)


def leaves_undone(lines: Iterable[bytes]) -> bool:
    """Whether rsync says that it has not done something, whatever its exit code is."""
    return any(parse(line) or (_UNDONE.fullmatch(line.strip()) and not is_noise(line)) for line in lines)


def is_noise(line: bytes) -> bool:
    """Whether a line of standard error has nothing to say about a path."""
    return _NOISE.fullmatch(line.rstrip(b"\r\n")) is not None


def parse(line: bytes) -> Complaint | None:
    """Return the complaint that this line is, or None if it cannot be read with certainty."""
    line = line.rstrip(b"\r\n")
    for pattern, failure, io_error in _COMPLAINTS:
        if found := pattern.fullmatch(line):
            return _complaint(found.groupdict(), failure, io_error)
    return None


def _complaint(found: dict[str, bytes | None], failure: Failure, io_error: bool) -> Complaint:
    if (relative := found.get("relative")) is not None:
        return Complaint(failure, Side.RELATIVE, unescaped(relative), io_error=io_error)
    if found.get("sender") or found.get("role") == b"sender":
        side = Side.SOURCE
    elif found.get("role") or found.get("module") is not None or failure is Failure.ATTRIBUTES:
        side = Side.NODE
    else:
        side = Side.EITHER
    # Any failure of the sender but a file that vanished counts as an I/O error.
    io_error = io_error or (side is not Side.NODE and failure is Failure.OTHER)
    path, is_temporary = unescaped(found["path"] or b""), found.get("temporary") is not None
    return Complaint(failure, side, path, found.get("module"), io_error, is_temporary)


_ESCAPED = re.compile(rb"\\#([0-3][0-7]{2})")


def unescaped(text: bytes) -> bytes:
    """Return the bytes of a name as rsync prints it: ``\\#012`` for a newline, ``\\#134`` for a backslash."""
    return _ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), text)


# The one line for the operator: a consequence of the real reason says little, a summary less.
_CONSEQUENCE = re.compile(
    rb"""rsync:\ (?:\[\w+\]\ )?(?:
        connection\ unexpectedly\ closed.*
        | (?:safe_)?(?:read|write).*:\ (?:Broken\ pipe|Connection\ reset\ by\ peer)\ \(\d+\).*
    ) | \(.*\)""",
    re.VERBOSE,
)
_CONSEQUENCE_RANK = 2
_NO_HOST_KEY = b"Host key verification failed."
_SUMMARY = re.compile(rb"rsync (?:error|warning): (.*) \(code \d+\) at .*")
_SIGUSR1 = b"rsync error: received SIGUSR1"
_PREFIX = re.compile(rb"rsync: (?:\[\w+\] )?|\[(?:sender|[Rr]eceiver|generator)\] ")
_MAX_REASON = 200
"""Characters."""


def reason(lines: Iterable[bytes]) -> str:
    """Return the last line that says why, fit for a log; "" if there is none.

    A specific line is preferred to a consequence ("connection unexpectedly closed"), and that to the summary
    at the end ("some files/attrs were not transferred").
    """
    lines = [line.strip() for line in lines]
    if misfit := compat.reason(lines):
        return misfit
    best = max(reversed(lines), key=_rank, default=b"")
    if not _rank(best):
        return ""
    summary = _SUMMARY.fullmatch(best)
    what = summary[1] if summary else best[found.end() if (found := _PREFIX.match(best)) else 0 :]
    shown = one_line(unescaped(what).decode("utf-8", "backslashreplace"))
    return shown if len(shown) <= _MAX_REASON else shown[: _MAX_REASON - 3] + "..."


def failure_reason(code: int, lines: Iterable[bytes]) -> str:
    """Return why a run of rsync has failed, fit for a log.

    If a signal has killed it, that is the reason: what it said before is not, and what its children say of
    the broken connection is a consequence.
    """
    if code >= 0:
        return reason(lines) or exit_codes.describe(code)
    said = reason([line for line in lines if _rank(line.strip()) > _CONSEQUENCE_RANK])
    return exit_codes.describe(code) + (f"; it said: {said}" if said else "")


def _rank(line: bytes) -> int:
    """Return how much a line says of the reason; 0 is nothing."""
    if line.startswith(_SIGUSR1):
        return 0  # one of rsync's processes telling the other to end
    if _SUMMARY.fullmatch(line):
        return 1
    if is_noise(line):
        return 0
    if _CONSEQUENCE.fullmatch(line):
        return _CONSEQUENCE_RANK
    return 3 if line == _NO_HOST_KEY else 4  # most often another line says why
