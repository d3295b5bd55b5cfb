"""The passwords of Redis and of its Sentinels, which stand in files."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass

from inosync.config.fleet import RedisAddress


@dataclass(frozen=True, slots=True)
class Passwords:
    """What is logged in with; None: without any."""

    redis: str | None = None
    sentinels: str | None = None


NO_PASSWORDS = Passwords()


def read(address: RedisAddress) -> Passwords:
    """Read the files; OSError if that is not possible, or if others can."""
    return Passwords(_password(address.password_file), _password(address.sentinel_password_file))


def unreadable(error: OSError) -> str:
    """Return the reason in an error of ``read``."""
    return f"{error.filename}: {error.strerror}"


def _password(path: str) -> str | None:
    if not path:
        return None
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & (stat.S_IRWXG | stat.S_IRWXO) & ~stat.S_IRGRP:
            raise PermissionError(errno.EACCES, "others can read or change it: chmod 600", path)
        return file.readline(10_000).strip()
