"""From a path in one of rsync's messages to a path relative to the wpath."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

ROOT = b""

_URL = re.compile(r"rsync://[^/]*/[^/]*(?P<path>/.*)?", re.DOTALL)
_MODULE = re.compile(r"(?:[^:/\[]*\[[^]]*\]|[^:/]*)::[^/]*(?P<path>/.*)?", re.DOTALL)
_SHELL = re.compile(r"(?:[^:/\[]*\[[^]]*\]|[^:/]*):(?P<path>.*)", re.DOTALL)


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
    for pattern in (_URL, _MODULE, _SHELL):
        if found := pattern.fullmatch(target):
            return found["path"] or ""
    return target


def _is_daemon(target: str) -> bool:
    return bool(_URL.fullmatch(target) or _MODULE.fullmatch(target))


def _parts(path: bytes) -> list[bytes]:
    return [part for part in path.split(b"/") if part not in (b"", b".")]


def _after(parts: list[bytes], prefix: list[bytes]) -> bytes | None:
    return b"/".join(parts[len(prefix) :]) if parts[: len(prefix)] == prefix else None
