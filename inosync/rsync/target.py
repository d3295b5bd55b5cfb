"""The target of a transfer: the way to it, and what a path in rsync's messages means below it.

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


_HOST = r"(?:(?P<user>[^/:]*)@)?(?P<host>\[[^]/\s]+]|[^]/:@[\s]+)"
_REMOTE = re.compile(_HOST + r"(?P<colons>::?)(?P<path>.*)", re.DOTALL)
_URL = re.compile(_HOST + r"(?::(?P<port>\d+))?(?:/(?P<path>.*))?", re.DOTALL)
_URL_START = re.compile(r"rsync://", re.IGNORECASE)

ROOT = b""

_URL_PATH = re.compile(r"rsync://[^/]*/[^/]*(?P<path>/.*)?", re.DOTALL)
_MODULE_PATH = re.compile(r"(?:[^:/\[]*\[[^]]*\]|[^:/]*)::[^/]*(?P<path>/.*)?", re.DOTALL)
_SHELL_PATH = re.compile(r"(?:[^:/\[]*\[[^]]*\]|[^:/]*):(?P<path>.*)", re.DOTALL)


def is_url(target: str) -> bool:
    """Whether a target is written as ``rsync://host/module``."""
    return _URL_START.match(target) is not None


def transport(node: str) -> Transport:
    """By which way a node, or a target, is reached."""
    if is_url(node):
        return Transport.DAEMON
    remote = _REMOTE.match(node)
    if remote is None:
        return Transport.LOCAL
    return Transport.DAEMON if remote["colons"] == "::" else Transport.SSH


def remote_parts(target: str) -> re.Match[str] | None:
    """The parts of a remote target; None if it is local, or nothing that rsync understands."""
    if url := _URL_START.match(target):
        return _URL.fullmatch(target, url.end())
    return _REMOTE.fullmatch(target)


def on_source(path: bytes, source: bytes) -> bytes | None:
    """What comes after the source in an absolute path; None if it is not at or below it."""
    return _after(_parts(path), _parts(source)) if path.startswith(b"/") else None


def on_node(path: bytes, module: bytes | None, target: str) -> bytes | None:
    """What comes after the target in a path on the node, if that is certain; else None.

    A module's paths start at its root. The home directory that an ssh target may be relative to is not
    known: there, the target's path must occur exactly once.
    """
    where = _path_of(target)
    if where is None:
        return None
    prefix = _parts(os.fsencode(where.removeprefix("~/")))
    parts = _parts(path)
    if b".." in prefix or any(part.startswith(b"~") for part in prefix):
        return None
    if module is not None or (where.startswith("/") and not _is_daemon(target)):
        return _after(parts, prefix)
    if not prefix or not path.startswith(b"/"):
        return None
    places = [at for at in range(len(parts)) if parts[at : at + len(prefix)] == prefix]
    return b"/".join(parts[places[0] + len(prefix) :]) if len(places) == 1 else None


def tail_paths(path: bytes) -> Iterator[bytes]:
    """All that a path may be relative to an unknown directory, the longest first."""
    if path == b"." or path.endswith(b"/."):
        yield ROOT  # so rsync calls the root of the transfer, and nothing else
        return
    parts = _parts(path)
    for at in range(len(parts)):
        yield b"/".join(parts[at:])


def _path_of(target: str) -> str | None:
    """The path in a target, within the module if there is one; None if there is no target to look at."""
    if not target:
        return None
    for pattern in (_URL_PATH, _MODULE_PATH, _SHELL_PATH):
        if found := pattern.fullmatch(target):
            return found["path"] or ""
    return target


def _is_daemon(target: str) -> bool:
    return bool(_URL_PATH.fullmatch(target) or _MODULE_PATH.fullmatch(target))


def _parts(path: bytes) -> list[bytes]:
    return [part for part in path.split(b"/") if part not in (b"", b".")]


def _after(parts: list[bytes], prefix: list[bytes]) -> bytes | None:
    return b"/".join(parts[len(prefix) :]) if parts[: len(prefix)] == prefix else None
