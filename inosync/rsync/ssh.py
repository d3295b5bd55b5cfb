"""The ssh that rsync uses where the user has not chosen one: its options, and a shared connection.

What ssh prints and how it falls back was measured with OpenSSH 9.2. Options are those of ssh_config(5).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from inosync.rsync import options as extras
from inosync.rsync.target import Transport, remote_parts, transport

_ENVIRONMENT = "RSYNC_RSH"

# Nobody is there to answer a question, and several connections at a time would fight for the ports that a
# LocalForward names. scp(1) does the same.
_ALWAYS = ("BatchMode=yes", "ClearAllForwardings=yes")
_CONNECT_TIMEOUT = "ConnectTimeout=20"
# A silently broken connection ends after three of these (ServerAliveCountMax).
_ALIVE = "ServerAliveInterval=5"
_UNSET = ("", "none", "0", "-1")
_NOT_SHARED = ("", "no", "false")

# Without what is special to rsync (quotes, spaces) or to ssh (%, ~, ${}).
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9_./+-]*")
# sun_path holds 107 bytes (unix(7)); ssh makes the socket as "PATH." and 16 letters, then links it.
_LONGEST_PATH = 107 - 17


def chosen(extra: Iterable[str], environ: Mapping[str, str]) -> bool:
    """Whether the user has chosen rsync's remote shell."""
    return _ENVIRONMENT in environ or any(option in ("-e", "--rsh") for option, _ in extras.options(extra))


def destination(node: str, extra: Iterable[str]) -> tuple[str, ...]:
    """Return the words by which rsync tells ssh where to go; empty for a node that is not reached by ssh.

    rsync hands -4 and -6 on, splits at the last @, and takes the brackets off an address.
    """
    remote = remote_parts(node)
    if remote is None or transport(node) is not Transport.SSH:
        return ()
    families = {"-4": "-4", "--ipv4": "-4", "-6": "-6", "--ipv6": "-6"}
    family = [families[option] for option, _ in extras.options(extra) if option in families]
    user = ("-l", remote["user"]) if remote["user"] else ()
    return (*family[-1:], *user, "--", remote["host"].removeprefix("[").removesuffix("]"))


def query_argv(destination: tuple[str, ...]) -> tuple[str, ...]:
    """Return the call that prints the configuration for a destination (``parse``).

    With BatchMode Debian's ssh has another default for ServerAliveInterval (300), which would look like a
    value of the user's.
    """
    return ("ssh", "-G", "-o", "BatchMode=no", *destination)


def parse(output: bytes) -> Mapping[str, str]:
    """Return what ``ssh -G`` has printed: values by option, in small letters; the first of several."""
    found: dict[str, str] = {}
    for line in output.decode(errors="replace").splitlines():
        option, _, value = line.strip().partition(" ")
        if option:
            found.setdefault(option.lower(), value.strip())
    return found


def options(found: Mapping[str, str]) -> tuple[str, ...]:
    """Return the options for a user with this configuration. What the user has set stays as it is.

    An explicit ``ServerAliveInterval 0`` or ``ConnectTimeout none`` cannot be told from the default.
    """
    own = list(_ALWAYS)
    if found.get("connecttimeout", "") in _UNSET:
        own.append(_CONNECT_TIMEOUT)
    if found.get("serveraliveinterval", "") in _UNSET:
        own.append(_ALIVE)
    return tuple(own)


def control_path(found: Mapping[str, str], directory: str, pid: int) -> str:
    """Return the path of the socket of the shared connection of process ``pid``; "" for no such connection.

    A configuration of ssh that shares connections already stays in force.
    """
    path = f"{directory.rstrip('/')}/ssh-{pid}"
    if found.get("controlpath", "none") != "none" or found.get("controlmaster", "") not in _NOT_SHARED:
        return ""
    return path if _PLAIN_PATH.fullmatch(path) and len(path) <= _LONGEST_PATH else ""


def rsh(options: Iterable[str], control_path: str = "") -> str:
    """Return the value of rsync's --rsh. With a path: through the shared connection, or directly without it.

    rsync splits it at spaces; nothing here needs quotes.
    """
    shared = ("ControlMaster=no", f"ControlPath={control_path}") if control_path else ()
    return " ".join(("ssh", *_words((*options, *shared))))


def master_argv(options: Iterable[str], control_path: str, destination: tuple[str, ...]) -> tuple[str, ...]:
    """Return the call that is the shared connection while it runs. It opens no session on the node itself.

    A ControlPersist of the user's would leave a process behind that is not watched.
    """
    shared = ("ControlMaster=yes", f"ControlPath={control_path}", "ControlPersist=no")
    return ("ssh", "-N", "-T", *_words((*options, *shared)), *destination)


def _words(options: Iterable[str]) -> tuple[str, ...]:
    return tuple(word for option in options for word in ("-o", option))
