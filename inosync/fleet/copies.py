"""Which copies a sender has: an identity that changes with anything that is another copy."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Iterable

from inosync.config.fleet import OWN_DIRECTORY
from inosync.system import entries, mounts

_MARKER = "copy"
_CONTENT = re.compile(r"[0-9a-f]{32}\n?")


def prepare(wpath: str) -> None:
    """Make the root of a copy, and the directory beside it; OSError if what they are in is not there.

    rsync receives into that directory, maybe as another user, whose the root is.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(wpath, 0o755)
    own = os.path.join(os.path.dirname(wpath), OWN_DIRECTORY)
    with contextlib.suppress(FileExistsError):
        os.mkdir(own, 0o700)
        status = os.stat(wpath)
        if os.geteuid() == 0:
            os.chown(own, status.st_uid, status.st_gid)


def identity(wpaths: Iterable[str]) -> str:
    """Return which copies these are; OSError if one is missing, or nothing can be written beside it."""
    found = hashlib.sha256()
    for wpath in wpaths:
        directory = os.open(wpath, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            inode = os.fstat(directory).st_ino
        finally:
            os.close(directory)
        own = os.path.join(os.path.dirname(wpath), OWN_DIRECTORY)
        found.update(f"{inode} {_marker(own)}\n".encode())
    return found.hexdigest()[:32]


def storage(wpaths: Iterable[str]) -> str:
    """Return which directories these are, of storage that all machines have; OSError if they are no good.

    That is another value after each other mount there.
    """
    found = hashlib.sha256()
    for wpath in wpaths:
        found.update("{} {}\n".format(*entries.identity(wpath)).encode())
        if mounts.shows_changes_late(wpath):
            raise OSError(f"{wpath} shows changes late, which would be lost: mount it with actimeo=0")
    return found.hexdigest()[:32]


def proof(wpaths: Iterable[str]) -> str:
    """Return what is the same on two machines if they see the same storage; empty if it cannot be read.

    A root alone does not prove it: the numbers of many are the same (2 on ext4, 128 on xfs).
    """
    found = hashlib.sha256()
    try:
        for wpath in wpaths:
            found.update(f"{entries.identity(wpath)[1]}\n".encode())
            with os.scandir(os.fsencode(wpath)) as scan:
                for name, inode in sorted((entry.name, entry.inode()) for entry in scan):
                    found.update(b"%b/%d/" % (name, inode))
    except OSError:
        return ""
    return found.hexdigest()[:32]


def _marker(own: str) -> str:
    """Return what tells this file system from all others; it is made if there is nothing yet."""
    path = os.path.join(own, _MARKER)
    for _ in range(2):
        try:
            with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), encoding="ascii") as file:
                text = file.read(64)
            if _CONTENT.fullmatch(text):
                return text.strip()
            os.unlink(path)
        except FileNotFoundError:
            pass
        except UnicodeDecodeError:
            os.unlink(path)
        fresh = f"{path}.{secrets.token_hex(4)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(fresh, flags, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_hex(16) + "\n")
        os.rename(fresh, path)
    raise OSError(f"{path} cannot be made")
