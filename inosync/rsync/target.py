"""Targets of transfers: how each is reached, and what a path in rsync's messages means below it.

rsync(1): a target is remote if a colon comes before any slash; ``host:path`` is reached through a shell,
``host::module/path`` and ``rsync://host[:port]/module/path`` through a daemon; an IPv6 address stands in
brackets.
"""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Iterator


class Transport(enum.StrEnum):
    SSH = "ssh"
    DAEMON = "daemon"
    LOCAL = "local"


ROOT = b""
"""The path of the tree itself."""

_HOST = r"(?:(?P<user>[^/:]*)@)?(?P<host>\[[^]/\s]+]|[^]/:@[\s]+)"
_REMOTE = re.compile(_HOST + r"(?P<colons>::?)(?P<path>.*)", re.DOTALL)
_URL = re.compile(_HOST + r"(?::(?P<port>\d+))?(?:/(?P<path>.*))?", re.DOTALL)
_URL_START = re.compile(r"rsync://", re.IGNORECASE)


def is_url(target: str) -> bool:
    return _URL_START.match(target) is not None


def transport(target: str) -> Transport:
    """Return how a target, or a node, is reached."""
    if is_url(target):
        return Transport.DAEMON
    remote = _REMOTE.match(target)
    if remote is None:
        return Transport.LOCAL
    return Transport.DAEMON if remote["colons"] == "::" else Transport.SSH


def remote_parts(target: str) -> re.Match[str] | None:
    """Return user, host, port and path; None for a local target, and for what rsync does not understand."""
    if url := _URL_START.match(target):
        return _URL.fullmatch(target, url.end())
    return _REMOTE.fullmatch(target)


def parent(target: str) -> str | None:
    """Return the remote target that is the parent directory; None if there is none, or none is known.

    The parent of what is directly in a home directory, or in a module, exists.
    """
    remote = remote_parts(target)
    path = (remote["path"] or "").rstrip("/") if remote else ""
    above, slash, _ = path.rpartition("/")
    is_module = transport(target) is Transport.DAEMON and "/" not in above
    if remote is None or not slash or is_module or not above.strip("/"):
        return None
    return target[: remote.start("path")] + above


def below(target: str, path: bytes) -> str:
    """Return the target of a path in the tree."""
    own = os.fsdecode(path)
    return target + own if target.endswith(("/", ":")) or not path else f"{target}/{own}"


def on_source(path: bytes, source: bytes) -> bytes | None:
    """Return an absolute path relative to the source; None if it is neither at nor below it."""
    return _after(_parts(path), _parts(source)) if path.startswith(b"/") else None


def on_node(path: bytes, module: bytes | None, target: str) -> bytes | None:
    """Return a path on the node relative to the target, if that is certain; else None.

    A module's paths start at its root. The home directory that an ssh target may be relative to is not
    known: the target's path must occur exactly once in an absolute path.
    """
    way, remote = transport(target), remote_parts(target)
    where = (remote["path"] or "") if remote else target
    if way is Transport.DAEMON:
        where = where.partition("/")[2]
    elif way is Transport.SSH:
        where = where.removeprefix("~/")
    prefix, parts = _parts(os.fsencode(where)), _parts(path)
    if not target or b".." in prefix or any(part.startswith(b"~") for part in prefix):
        return None
    if module is not None or (where.startswith("/") and way is not Transport.DAEMON):
        return _after(parts, prefix)
    if not prefix or not path.startswith(b"/"):
        return None
    places = [at for at in range(len(parts)) if parts[at : at + len(prefix)] == prefix]
    return b"/".join(parts[places[0] + len(prefix) :]) if len(places) == 1 else None


def tail_paths(path: bytes) -> Iterator[bytes]:
    """Yield all that a path may be relative to an unknown directory, the longest first."""
    if path == b"." or path.endswith(b"/."):
        yield ROOT  # rsync calls only the root of the transfer so
        return
    parts = _parts(path)
    for at in range(len(parts)):
        yield b"/".join(parts[at:])


def _parts(path: bytes) -> list[bytes]:
    return [part for part in path.split(b"/") if part not in (b"", b".")]


def _after(parts: list[bytes], prefix: list[bytes]) -> bytes | None:
    return b"/".join(parts[len(prefix) :]) if parts[: len(prefix)] == prefix else None
