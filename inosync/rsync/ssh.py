"""The ssh that rsync uses: which program that is, its options, and how its connections are shared.

What ssh prints and how it falls back was measured with OpenSSH 9.2. Options are those of ssh_config(5). Of
several values of an option ssh uses the first, on its command line before those in its configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from inosync.rsync import options as extras
from inosync.rsync.target import Transport, remote_parts, transport

Words = tuple[str, ...]

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
_PLAIN_WORD = re.compile(r"[^ '\"]+")
# The options of ssh(1) that take a value.
_VALUED = frozenset("BbcDEeFIiJLlmOoPpQRSWw")
_VERSION = re.compile(rb"^OpenSSH_\d", re.MULTILINE)


# The remote shell of the user's choice -------------------------------------------------------------------


def chosen(extra: Iterable[str], environ: Mapping[str, str]) -> str | None:
    """Return the user's choice of rsync's remote shell; None for rsync's default, ssh."""
    given = [value for option, value in extras.options(extra) if option in ("-e", "--rsh")]
    return given[-1] if given else environ.get(_ENVIRONMENT)


def split(shell: str) -> Words:
    """Return the words of a remote shell as rsync splits it (``do_cmd`` in its main.c).

    A quote that is doubled inside of such quotes stands for itself. Nothing if a quote is not closed.
    """
    words: list[str] = []
    quote, within = "", False  # the quote that is open, and whether a word has begun
    rest = iter(enumerate(shell))
    for at, letter in rest:
        if letter == quote and shell[at + 1 : at + 2] == quote:
            words[-1] += quote
            next(rest)
        elif letter == quote:
            quote = ""
        elif letter == " " and not quote:
            within = False
        else:
            if not within:
                words.append("")
                within = True
            if letter in "'\"" and not quote:
                quote = letter
            else:
                words[-1] += letter
    return () if quote else tuple(words)


def join(words: Iterable[str]) -> str:
    """Return a remote shell that rsync splits into these words."""
    doubled = ((word, word.replace("'", "''")) for word in words)
    return " ".join(word if _PLAIN_WORD.fullmatch(word) else f"'{quoted}'" for word, quoted in doubled)


def is_named_ssh(word: str) -> bool:
    """Whether a program is called ssh, wherever it is."""
    return word.rpartition("/")[2] == "ssh"


def takes_options(words: Words) -> bool:
    """Whether what follows these words may be options of the ssh here.

    In ``ssh gateway ssh`` they would be options of the ssh there.
    """
    rest = iter(words[_program(words) + 1 :] if any(map(is_named_ssh, words)) else ())
    for word in rest:
        if not word.startswith("-") or word in ("-", "--"):
            return False
        valued = next((at for at, letter in enumerate(word) if letter in _VALUED), None)
        if valued == len(word) - 1:
            next(rest, None)
    return bool(words)


def version_argv(words: Words) -> Words:
    """Return the call that prints which ssh it is (``is_openssh``). Most programs do nothing else then."""
    return (*words, "-V")


def is_openssh(output: bytes) -> bool:
    return _VERSION.search(output) is not None


# The configuration ---------------------------------------------------------------------------------------


def destination(node: str, extra: Iterable[str], program: str = "ssh") -> Words:
    """Return the words by which rsync tells ssh where to go; empty for a node that is not reached by ssh.

    rsync hands -4 and -6 on to a program called ssh, splits at the last @, and takes the brackets off an
    address.
    """
    remote = remote_parts(node)
    if remote is None or transport(node) is not Transport.SSH:
        return ()
    families = {"-4": "-4", "--ipv4": "-4", "-6": "-6", "--ipv6": "-6"}
    family = [families[option] for option, _ in extras.options(extra) if option in families]
    user = ("-l", remote["user"]) if remote["user"] else ()
    host = remote["host"].removeprefix("[").removesuffix("]")
    return (*(family[-1:] if is_named_ssh(program) else ()), *user, "--", host)


def query_argv(words: Words, destination: Words) -> Words:
    """Return the call that prints the configuration for a destination (``parse``).

    With BatchMode Debian's ssh has another default for ServerAliveInterval (300), which would look like a
    value of the user's.
    """
    return (*words, "-G", "-o", "BatchMode=no", *destination)


def parse(output: bytes) -> Mapping[str, str]:
    """Return what ``ssh -G`` has printed: values by option, in small letters; the first of several."""
    found: dict[str, str] = {}
    for line in output.decode(errors="replace").splitlines():
        option, _, value = line.strip().partition(" ")
        if option:
            found.setdefault(option.lower(), value.strip())
    return found


def options(found: Mapping[str, str]) -> Words:
    """Return the options for a user with this configuration. What the user has set stays as it is."""
    return (*_ALWAYS, *keepalive(found))


def keepalive(found: Mapping[str, str]) -> Words:
    """Return the options by which ssh ends a connection that is dead.

    An explicit ``ServerAliveInterval 0`` or ``ConnectTimeout none`` cannot be told from the default.
    """
    own = ((_CONNECT_TIMEOUT, "connecttimeout"), (_ALIVE, "serveraliveinterval"))
    return tuple(option for option, name in own if found.get(name, "") in _UNSET)


def shares(found: Mapping[str, str]) -> bool:
    return found.get("controlpath", "none") != "none" or found.get("controlmaster", "") not in _NOT_SHARED


# The shared connection of ours ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Way:
    """One way to call ssh."""

    rsh: str
    """For rsync's --rsh; empty: as the user has chosen."""
    master: Words = ()
    """The call that is the shared connection of ours while it runs; empty if none is used."""


@dataclass(frozen=True, slots=True)
class Ways:
    """How ssh is called for a node."""

    direct: str = ""
    """For rsync's --rsh, without a connection of ours. Empty: as the user has chosen."""
    ways: tuple[Way, ...] = (Way(""),)
    """The best first. The next one is for the try after a failure."""
    path: str = ""
    """Of the socket of the connection of ours; empty for none."""


def control_path(directory: str, pid: int) -> str:
    """Return the path of the socket of the shared connection of process ``pid``; "" if it would not do."""
    path = f"{directory.rstrip('/')}/ssh-{pid}"
    return path if _PLAIN_PATH.fullmatch(path) and len(path) <= _LONGEST_PATH else ""


def through(words: Words, path: str, *, is_first: bool = False, master: str = "no") -> Words:
    """Return a call of ssh that uses the connection at this path, or connects directly if there is none.

    With ``is_first`` that wins over options in ``words``.
    """
    own = _words((f"ControlMaster={master}", f"ControlPath={path}", "ControlPersist=no"))
    at = _program(words) + 1 if is_first else len(words)
    return (*words[:at], *own, *words[at:])


def proof_path(path: str) -> str:
    """Return a path by which ``is_through`` sees whether options arrive, and at an ssh on this machine."""
    return f"{path}-%l-%i"


def is_through(found: Mapping[str, str], path: str, hostname: str, uid: int) -> bool:
    """Whether ssh, called for the proof path, would use that."""
    mine = f"{path}-{hostname}-{uid}"
    return (found.get("controlpath"), found.get("controlpersist")) == (mine, "no") and (
        found.get("controlmaster", "") in _NOT_SHARED
    )


def rsh(options: Iterable[str]) -> str:
    """Return the value of rsync's --rsh for ssh with these options."""
    return join(("ssh", *_words(options)))


def default_ways(found: Mapping[str, str], path: str, destination: Words) -> Ways:
    """Return the ways for a user who has not chosen a remote shell.

    That of the user's own shared connection comes second: it may be one that was opened by hand, because a
    login takes more than a key.
    """
    words = ("ssh", *_words(options(found)))
    direct = Way(join(words))
    if not path:
        return Ways(direct.rsh, (direct,))
    own = Way(join(through(words, path)), master_argv(words, path, destination))
    return Ways(direct.rsh, (own, direct) if shares(found) else (own,), path)


def chosen_ways(
    words: Words, found: Mapping[str, str], path: str, destination: Words, *, is_first: bool
) -> Ways:
    """Return the ways for the user's own remote shell, through which our connection was proved to work.

    ``is_first``: it has to win over options in ``words``. Then those come first, because they were written
    for inosync.
    """
    master = master_argv(words, path, destination, keepalive(found), is_first=is_first)
    own, users = Way(join(through(words, path, is_first=is_first)), master), Way("")
    ways = (users, own) if is_first else (own, users)
    return Ways("", ways if shares(found) else (own,), path)


def master_argv(
    words: Words, path: str, destination: Words, options: Words = (), *, is_first: bool = False
) -> Words:
    """Return the call that is the shared connection while it runs. It opens no session on the node itself.

    A ControlPersist of the user's would leave a process behind that is not watched.
    """
    call = through(words, path, is_first=is_first, master="yes")
    return (*call, "-N", "-T", *_words(options), *destination)


def _program(words: Words) -> int:
    """The place of ssh among words such as ``nice ssh``, or else of the program that stands for it."""
    return next((at for at, word in enumerate(words) if is_named_ssh(word)), 0)


def _words(options: Iterable[str]) -> Words:
    return tuple(word for option in options for word in ("-o", option))
