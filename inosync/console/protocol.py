"""What travels over the control socket: one line of JSON for a request, one for its reply.

A reply to what cannot be done is ``{"error": TEXT, "code": EXIT CODE}``. Names that are no UTF-8 travel as
escapes of lone surrogates, which is what ``json`` makes of them.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MAX_REQUEST = 1 << 16
"""Bytes of a request, its end included."""

OK = 0
BEHIND = 1
"""Some nodes lack something."""
TROUBLE = 2
"""Some nodes have an error."""
NOT_RUNNING = 3
USAGE = 64
"""EX_USAGE of sysexits(3)."""
BUSY = 75
"""EX_TEMPFAIL."""
NO_PERMISSION = 77
"""EX_NOPERM."""
CONFIG = 78
"""EX_CONFIG."""

COMMANDS: Mapping[str, str] = {
    "status": "show what every node is worth, worst first",
    "top": "the same, live",
    "flush": "wait until every change made before now is on NODE, or on all nodes",
    "resync": "compare NODE, or all, in full, and send what differs",
    "verify": "compare NODE, or all, as rverify does, beside what is sent",
    "pause": "send NODE nothing until resume",
    "resume": "send NODE again what it lacks",
    "accept": "mirror what the guard halted as it is, deletions included",
    "reload": "read the configuration again (as SIGHUP)",
    "reopen": "open the log file anew (as SIGUSR1)",
    "stop": "end the daemon, and return when it has ended",
}
"""What can be asked of a running daemon."""
IDENTIFY = "identify"
"""What a client asks first: the ``identity`` of the daemon's configuration."""
NEED_A_NODE = ("resync", "verify", "pause", "resume")
"""Commands that say which node, or ``all``."""
TAKE_A_NODE = ("status", "top", "flush", *NEED_A_NODE)
ALL = "all"
_SUN_PATH = 107  # bytes of a path in an address, unix(7)


class Unusable(ValueError):
    """A line that is no request; the text says why."""


def encode(message: Mapping[str, Any]) -> bytes:
    """A request or a reply as it travels."""
    return json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """A request or a reply; Unusable if it is none."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        raise Unusable("this is no line of JSON") from None
    if not isinstance(message, dict):
        raise Unusable("this is no object of JSON")
    return message


def error(text: str, code: int) -> dict[str, Any]:
    """The reply to what cannot be done."""
    return {"error": text, "code": code}


def identity(path: str) -> dict[str, str]:
    """Return what identifies a configuration file: its absolute path as given, and its real path."""
    return {"path": path, "real": os.path.realpath(path)}


def is_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two identities are of one configuration.

    The path as given counts as well, because the link that it may be can lead to a newer file by now. A copy
    elsewhere has neither in common, whatever its name.
    """
    return any(one[key] == other.get(key) for key in ("path", "real"))


def socket_path(rundir: str, config: str) -> str:
    """Where the daemon for a configuration file listens."""
    return os.path.join(rundir, f"{os.path.basename(config).removesuffix('.py')}.sock")


@contextlib.contextmanager
def address(path: str) -> Iterator[str]:
    """The address of a path, which may be longer than an address can be (unix(7))."""
    if len(os.fsencode(path)) <= _SUN_PATH:
        yield path
        return
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{os.path.basename(path)}"
    finally:
        os.close(directory)


def unknown_command(command: str) -> str:
    """That there is no such command, and what may be meant."""
    return f"there is no command {command!r}; {_instead(command, list(COMMANDS))}"


def unknown_node(node: str, known: Sequence[str]) -> str:
    """That there is no such node, and what may be meant."""
    return f"there is no node {node!r}; {_instead(node, known)}"


_SHOWN = 12


def _instead(wrong: str, known: Sequence[str]) -> str:
    if close := difflib.get_close_matches(wrong, known, 1, 0.5):
        return f"did you mean {close[0]}?"
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return f"there are {', '.join(known[:_SHOWN])}{more}"
