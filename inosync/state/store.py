"""The file of the state: where it is, reading it, and writing it whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from dataclasses import dataclass, replace

from inosync.state.document import MAX_BYTES, SavedNode, State, StateError, decode


@dataclass(frozen=True, slots=True)
class Past:
    """What an earlier process has left."""

    path: str = ""
    """Where the state is kept; empty: nowhere."""
    state: State | None = None
    why: str = ""
    """Why there is no state that can be used."""


def path_of(directory: str, config: str) -> str:
    """Return the path of the state for a configuration file. Files of one name may be in many directories."""
    name = os.path.basename(config).removesuffix(".py")
    which = hashlib.sha256(os.fsencode(os.path.realpath(config))).hexdigest()[:8]
    return os.path.join(directory, f"{name}-{which}.state")


def only_pauses(state: State) -> State:
    """Return a state that says only which nodes are paused, and what happened to them."""
    nodes = {
        name: SavedNode(paused=node.paused, events=node.events)
        for name, node in state.nodes.items()
        if node.paused or node.events
    }
    return replace(state, trees={}, nodes=nodes, fleet=None)


def read(path: str) -> State:
    """Read a state; StateError if there is none that can be used."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise StateError("does not exist yet") from None
    except OSError as error:
        raise StateError(f"cannot be read: {error.strerror}") from None
    with open(fd, "rb") as file:
        try:
            _check(fd)
            return decode(file.read(MAX_BYTES + 1))
        except OSError as error:
            raise StateError(f"cannot be read: {error.strerror}") from None


def _check(fd: int) -> None:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        raise StateError("is no file of the user that inosync runs as")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StateError("can be written by others")
    if status.st_size > MAX_BYTES:
        raise StateError("is too large")
    if os.fstatvfs(fd).f_flag & os.ST_RDONLY:
        raise StateError("is on a read-only file system: it may not be the newest one")


def write(path: str, data: bytes) -> None:
    """Put data in the place of a file, on the disk when this returns. OSError if that fails.

    Then the file is removed, because it may not be the newest state.
    """
    partial = f"{path}.new"
    try:
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(fd, "wb", buffering=0) as file:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            os.fsync(fd)
        os.rename(partial, path)
        _sync_directory(os.path.dirname(path))
    except OSError:
        for name in (partial, path):
            with contextlib.suppress(OSError):
                os.unlink(name)
        raise


def _sync_directory(path: str) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
