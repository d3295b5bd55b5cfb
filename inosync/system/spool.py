"""Files in the run directory for what is too long for a message of the queue."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import re
import shutil

MAX_INLINE_BYTES = 2_400
"""The longest payload that travels in a message; a whole message must stay below PIPE_BUF."""


def pack(thing: object, path: str, room: int = MAX_INLINE_BYTES) -> tuple[bytes, str]:
    """Pickle ``thing``; return (data, "") if it has room, else write it to ``path`` and return (b"", path).

    ``room``: bytes that a message has left, when more than one thing travels in it.

    The file appears whole or not at all. Its directory is made again if it is gone. OSError if the file
    cannot be written; EFBIG if it never can, because it is larger than the file system.
    """
    data = pickle.dumps(thing, pickle.HIGHEST_PROTOCOL)
    if len(data) <= room:
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
    except OSError as error:
        discard(partial)  # a full disk would stay full
        if error.errno == errno.ENOSPC and len(data) > _capacity(path):
            raise OSError(errno.EFBIG, "larger than the file system") from error
        raise
    return b"", path


def _capacity(path: str) -> int:
    found = os.statvfs(os.path.dirname(path))
    return found.f_blocks * found.f_frsize


def unpack(payload: bytes, path: str) -> object:
    """Return what ``pack`` was given. OSError if the file is gone."""
    if not path:
        thing: object = pickle.loads(payload)
        return thing
    with open(path, "rb") as file:
        thing = pickle.load(file)
    return thing


def discard(path: str) -> None:
    """Remove a file; harmless for ``""`` and for a file that is gone, or cannot be removed.

    The next start removes what is left.
    """
    if path:
        with contextlib.suppress(OSError):
            os.unlink(path)


def sweep(directory: str, pid: int) -> None:
    """Remove the files that a killed process has left: the socket of its ssh master, its reports."""
    left = re.compile(rf"ssh-{pid}(\..*)?|(due|hook|copies)-{pid}-.*")
    with contextlib.suppress(OSError):
        for name in filter(left.fullmatch, os.listdir(directory)):
            if name.startswith("copies-"):
                shutil.rmtree(os.path.join(directory, name), ignore_errors=True)
            else:
                discard(os.path.join(directory, name))
