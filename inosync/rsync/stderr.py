"""What single lines of rsync's standard error say: a complaint about a path, noise, or the unknown.

The texts are those of rsync 3.5.0 under LC_ALL=C, provoked one by one, with and without the ``[role]`` that
versions before 3.2 do not have. They hold names of strangers: where one could be read in two ways (a quote
in a name), the line counts as unknown, which keeps more due than need be, never less.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass

from inosync.rsync import compat


class About(enum.Enum):
    """What a complaint leaves undone."""

    ATTRIBUTES = enum.auto()
    """Only times, mode, owner, ACL or extended attributes of the path itself."""
    VANISHED = enum.auto()
    """The path was there when the source was listed, and gone when it was to be read."""
    UNREADABLE = enum.auto()
    """The content of one file of the source."""
    BLOCKED = enum.auto()
    """One entry that is no directory: the node's rsync may not remove what is in its place."""
    OTHER = enum.auto()


class Side(enum.Enum):
    """Where the path of a complaint is."""

    SOURCE = enum.auto()
    """Absolute, on this machine."""
    NODE = enum.auto()
    """On the node: absolute, or from the root of ``module``."""
    EITHER = enum.auto()
    """Absolute; a version of rsync that does not tell its role said it."""
    RELATIVE = enum.auto()
    """From the root of the transfer."""


@dataclass(frozen=True, slots=True)
class Complaint:
    """One line about one path."""

    kind: About
    side: Side
    path: bytes
    module: bytes | None = None
    io_error: bool = False
    """It is the sender that could not read: it may have kept the node from deleting anything at all."""
    temporary: bool = False
    """The path is the name of a temporary file for sure; otherwise it may be one."""


_ROLE = rb"rsync: (?:\[(?P<role>\w+)\] )?"
_WHERE = rb'"(?P<path>[^"]*)"(?: \(in (?P<module>[^"()]*)\))?'
_WHY = rb': [^"]* \(\d+\)'


def _rule(kind: About, pattern: bytes, io_error: bool = False) -> tuple[re.Pattern[bytes], About, bool]:
    return re.compile(pattern), kind, io_error


_RULES = (
    _rule(About.ATTRIBUTES, _ROLE + rb"failed to (?:set|modify) [a-z ]+ on " + _WHERE + _WHY),
    _rule(About.ATTRIBUTES, _ROLE + rb"l?ch(?:own|grp|mod) " + _WHERE + rb" failed" + _WHY),
    _rule(
        About.ATTRIBUTES,
        _ROLE + rb"rsync_xal_\w+: [fl]?(?:set|remove)xattr\(" + _WHERE + rb',"[^"]*"\) failed' + _WHY,
    ),
    _rule(About.ATTRIBUTES, _ROLE + rb"set_acl: \w+\((?P<relative>.*), ACL_TYPE_\w+\)" + _WHY),
    _rule(About.VANISHED, rb"(?P<sender>file|directory) has vanished: " + _WHERE),
    _rule(About.UNREADABLE, _ROLE + rb"(?P<sender>send_files failed to open) " + _WHERE + _WHY, True),
    _rule(About.UNREADABLE, _ROLE + rb"(?P<sender>read errors mapping) " + _WHERE + _WHY, True),
    _rule(About.OTHER, _ROLE + rb"(?P<sender>link_stat) " + _WHERE + rb" failed" + _WHY, True),
    _rule(About.OTHER, _ROLE + rb"(?P<sender>readlink_stat)\(" + _WHERE + rb"\) failed" + _WHY, True),
    _rule(About.OTHER, rb"(?P<sender>symlink has no referent): " + _WHERE, True),
    _rule(About.OTHER, rb"filename overflows max-path len by \d+: (?P<relative>.*)", True),
    _rule(About.OTHER, _ROLE + rb"opendir " + _WHERE + rb" failed" + _WHY),
    _rule(About.OTHER, _ROLE + rb"write failed on " + _WHERE + _WHY),
    _rule(About.OTHER, _ROLE + rb"readdir\(" + _WHERE + rb"\)" + _WHY),
    _rule(About.OTHER, _ROLE + rb"(?P<temporary>mkstemp) " + _WHERE + rb" failed" + _WHY),
    _rule(
        About.OTHER,
        _ROLE + rb"(?:recv_generator: )?(?:mkdir|mknod|mkfifo) " + _WHERE + rb" failed" + _WHY,
    ),
    _rule(
        About.OTHER,
        _ROLE + rb"(?:recv_generator: )?(?:failed to )?stat " + _WHERE + rb"(?: failed)?" + _WHY,
    ),
    _rule(About.OTHER, _ROLE + rb"symlink " + _WHERE + rb' -> "[^"]*" failed' + _WHY),
    _rule(About.OTHER, _ROLE + rb'rename "[^"]*"(?: \(in [^"()]*\))? -> "(?P<relative>[^"]*)"' + _WHY),
    _rule(About.OTHER, _ROLE + rb"delete_file: (?:unlink|rmdir)\((?P<relative>.*)\) failed" + _WHY),
    _rule(About.OTHER, rb"could not make way for [a-z ]*directory: (?P<relative>.*)"),
    _rule(About.BLOCKED, rb"could not make way for [a-z ]+: (?P<relative>.*)"),
    _rule(About.OTHER, rb"WARNING: parent dir is absent in the file list: (?P<relative>.*)"),
    _rule(About.OTHER, rb'ERROR: daemon refused to receive [a-z ]+ "(?P<relative>[^"]*)"'),
    _rule(About.OTHER, rb"ERROR: (?P<relative>.*) failed verification -- update [a-z ]+\."),
)

# Says no more than other lines do, or than the exit code.
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
    # ssh, which did not get through a shared connection, and connects by itself
    | Control\ socket\ connect\(.*
    | mux_client_.*:\ .*
    | muxclient:\ .*
    | ControlSocket\ .*\ already\ exists,\ disabling\ multiplexing
    """,
    re.VERBOSE,
)


def is_noise(line: bytes) -> bool:
    """Whether a line of standard error has nothing to say about a path."""
    return _NOISE.fullmatch(line.rstrip(b"\r\n")) is not None


def parse(line: bytes) -> Complaint | None:
    """The complaint that this line is, or None if it cannot be read with certainty."""
    line = line.rstrip(b"\r\n")
    for pattern, kind, io_error in _RULES:
        if found := pattern.fullmatch(line):
            return _complaint(found.groupdict(), kind, io_error)
    return None


def _complaint(found: dict[str, bytes | None], kind: About, io_error: bool) -> Complaint:
    if (relative := found.get("relative")) is not None:
        return Complaint(kind, Side.RELATIVE, unescaped(relative), io_error=io_error)
    if found.get("sender") or found.get("role") == b"sender":
        side = Side.SOURCE
    elif found.get("role") or found.get("module") is not None or kind is About.ATTRIBUTES:
        side = Side.NODE
    else:
        side = Side.EITHER
    return Complaint(
        kind,
        side,
        unescaped(found["path"] or b""),
        found.get("module"),
        # Any failure of the sender but a file that vanished counts as an I/O error.
        io_error or (side is not Side.NODE and kind is About.OTHER),
        found.get("temporary") is not None,
    )


_ESCAPED = re.compile(rb"\\#([0-3][0-7]{2})")


def unescaped(text: bytes) -> bytes:
    """The bytes of a name as rsync shows it: ``\\#012`` for a newline, ``\\#134`` for such a backslash."""
    return _ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), text)


# The one line for the operator ------------------------------------------------------------------------

# In the order of how little they say: what follows from the real reason, and what sums up.
_CONSEQUENCE = re.compile(
    rb"""rsync:\ (?:\[\w+\]\ )?(?:
        connection\ unexpectedly\ closed.*
        | (?:safe_)?(?:read|write).*:\ (?:Broken\ pipe|Connection\ reset\ by\ peer)\ \(\d+\).*
    ) | \(.*\)
    | Host\ key\ verification\ failed\.  # because it has changed, or since none is known""",
    re.VERBOSE,
)
_SUMMARY = re.compile(rb"rsync (?:error|warning): (.*) \(code \d+\) at .*")
_SIGUSR1 = b"rsync error: received SIGUSR1"
_PREFIX = re.compile(rb"rsync: (?:\[\w+\] )?|\[(?:sender|[Rr]eceiver|generator)\] ")
_LONGEST = 200


def reason(lines: Iterable[bytes]) -> str:
    """The last line that says why, fit for a log; "" if there is none.

    A specific line is preferred over a consequence ("connection unexpectedly closed") and that over the
    summary that rsync ends with ("some files/attrs were not transferred").
    """
    lines = list(lines)
    if misfits := compat.reason(lines):
        return misfits
    best, rank = b"", 0
    for line in lines:
        stripped = line.strip()
        now = _rank(stripped)
        if now and now >= rank:
            best, rank = stripped, now
    summary = _SUMMARY.fullmatch(best)
    return _printable(unescaped(summary[1] if summary else best[_lead(best) :]))


def _lead(line: bytes) -> int:
    found = _PREFIX.match(line)
    return found.end() if found else 0


def _rank(line: bytes) -> int:
    if line.startswith(_SIGUSR1):
        return 0  # one of rsync's processes telling the other to end
    if _SUMMARY.fullmatch(line):
        return 1
    if is_noise(line):
        return 0
    return 2 if _CONSEQUENCE.fullmatch(line) else 3


def _printable(text: bytes) -> str:
    shown = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text.decode("utf-8", "backslashreplace")
    )
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 3] + "..."
