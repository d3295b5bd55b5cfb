"""The protocol of the control socket: one line of JSON for a request, one for its reply.

The reply to a request that fails is ``{"error": TEXT, "code": EXIT CODE}``. Bytes of a name that are not
UTF-8 travel as escaped lone surrogates, as ``json`` writes them.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from inosync.text import did_you_mean

MAX_REQUEST_BYTES = 1 << 16
"""The longest request, its line end included."""
MAX_WAITING = 64
"""Clients that wait at once, for a flush or a comparison."""

OK = 0
BEHIND = 1
"""Some nodes lack changes."""
TROUBLE = 2
"""Some nodes have an error."""
NOT_RUNNING = 3
USAGE = 64
"""EX_USAGE of sysexits(3)."""
FAULT = 70
"""EX_SOFTWARE: a fault of the daemon's own."""
BUSY = 75
"""EX_TEMPFAIL."""
NO_PERMISSION = 77
"""EX_NOPERM."""
CONFIG = 78
"""EX_CONFIG."""

COMMANDS: Mapping[str, str] = {
    "status": "show the state of every node, worst first",
    "top": "the same, live",
    "senders": "show the senders of a fleet: what each serves, and how far its copy is",
    "events": "show the last changes of state and failures of NODE, or of all nodes",
    "flush": "wait until every change made so far is on NODE, or on all nodes",
    "resync": "compare NODE, or all, in full, and send what differs",
    "verify": "compare NODE, or all, as rverify does, while mirroring goes on",
    "diff": "show what differs on NODE, or on all nodes, and change nothing",
    "pause": "send NODE nothing until resume",
    "resume": "send NODE what it lacks, and all further changes",
    "hold": "send nothing to any node until release, for an hour at most, or S seconds",
    "release": "send what was written during a hold, as one whole",
    "accept": "mirror what the guard halted, and let go on what the check of a stage has refused",
    "retry": "ask the check of a stage that was refused again",
    "reload": "read the configuration again (as SIGHUP)",
    "reopen": "open the log file anew (as SIGUSR1)",
    "stop": "end the daemon, and return when it has ended",
}
"""The commands of a running daemon."""
IDENTIFY = "identify"
"""What a client asks first: the ``identity`` of the daemon's configuration."""
NODE_REQUIRED = ("resync", "verify", "diff", "pause", "resume")
"""Commands that need the name of a node, or ``all``."""
NODE_ALLOWED = ("status", "top", "events", "flush", *NODE_REQUIRED)
CAN_WAIT = ("resync", "verify")
"""Commands that can wait for what comes of them."""
HAVE_TIMEOUT = ("flush", "diff", "hold", *CAN_WAIT)
"""Commands that may take long."""
ALL = "all"
_MAX_SUN_PATH_BYTES = 107  # unix(7)
_MAX_NAMES = 12  # in a message


class ProtocolError(ValueError):
    """A line is neither a request nor a reply; the text says why."""


def encode(message: Mapping[str, Any]) -> bytes:
    """Return a request or a reply as a line."""
    return json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """Return the request or the reply in a line, or ProtocolError."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        raise ProtocolError("this is no line of JSON") from None
    if not isinstance(message, dict):
        raise ProtocolError("this is no object of JSON")
    return message


def error(text: str, code: int) -> dict[str, Any]:
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


def instance(config: str, sender: str = "") -> str:
    """Return how the files of the daemon of a configuration file are called; ``sender``: in a fleet."""
    name = os.path.basename(config).removesuffix(".py")
    return f"{name}@{sender}" if sender else name


def socket_path(rundir: str, config: str, sender: str = "") -> str:
    """Return where the daemon of a configuration file listens."""
    return os.path.join(rundir, f"{instance(config, sender)}.sock")


@contextlib.contextmanager
def address(path: str) -> Iterator[str]:
    """Provide the address of a socket, whose path may be longer than an address (unix(7))."""
    if len(os.fsencode(path)) <= _MAX_SUN_PATH_BYTES:
        yield path
        return
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{os.path.basename(path)}"
    finally:
        os.close(directory)


def unknown_command(command: str) -> str:
    """Return a message with the command that may be meant."""
    return f"there is no command {command!r}; {_suggestion(command, list(COMMANDS))}"


def unknown_node(node: str, known: Sequence[str]) -> str:
    """Return a message with the node that may be meant."""
    return f"there is no node {node!r}; {_suggestion(node, known)}"


def _suggestion(wrong: str, known: Sequence[str]) -> str:
    if meant := did_you_mean(wrong, known, 0.5):
        return meant
    more = f" and {len(known) - _MAX_NAMES} more" if len(known) > _MAX_NAMES else ""
    return f"there are {', '.join(known[:_MAX_NAMES])}{more}"
