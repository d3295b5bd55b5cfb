"""What is too long for a queue's message goes by reference to a file in the run directory."""

from __future__ import annotations

import contextlib
import os
import pickle
import re

INLINE = 2_800
"""Bytes that travel in a message; a message as a whole must stay below PIPE_BUF."""


def pack(thing: object, path: str) -> tuple[bytes, str]:
    """(the pickled thing, "") if it is short, else (b"", ``path``) with the thing written there.

    The file appears whole or not at all; its directory is made again if it has gone. OSError if it cannot be
    written.
    """
    data = pickle.dumps(thing, pickle.HIGHEST_PROTOCOL)
    if len(data) <= INLINE:
        return data, ""
    partial = path + ".part"
    for directory in (os.path.dirname(os.path.dirname(path)), os.path.dirname(path)):
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory, 0o700)
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
        os.rename(partial, path)
    except OSError:
        discard(partial)  # on a full disk this is what keeps it full
        raise
    return b"", path


def unpack(payload: bytes, path: str) -> object:
    """What ``pack`` was given; OSError if the file is gone."""
    if not path:
        thing: object = pickle.loads(payload)
        return thing
    with open(path, "rb") as file:
        thing = pickle.load(file)
    return thing


def discard(path: str) -> None:
    """Remove a file that nobody needs any more; ``""`` and files that are gone are fine."""
    if path:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def sweep(directory: str, pid: int) -> None:
    """Remove what a killed process has left there: the socket of its ssh, and what nobody was told of."""
    left = re.compile(rf"ssh-{pid}(\..*)?|(due|hook)-{pid}-.*")
    with contextlib.suppress(OSError):
        for name in filter(left.fullmatch, os.listdir(directory)):
            discard(os.path.join(directory, name))
