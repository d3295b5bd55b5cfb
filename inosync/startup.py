"""What only root can open is given to the user that the daemon goes on as (``ruser``)."""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from inosync.system import privileges
from inosync.system.privileges import CAP_DAC_READ_SEARCH, CAP_LEASE, NAMES, Account

_OURS = (".pid", ".spool", ".sock")
"""How the names end of what any configuration has in its run directory."""


class StartError(Exception):
    """The daemon cannot start; the text says why."""


def make_rundir(path: str, user: Account | None = None) -> None:
    """Make the run directory, for its owner alone; StartError or OSError if that is not what it is.

    Its owner is ``user``, or who we are. A directory that is there already is made so only if nobody else
    has any use for it: "/tmp" and "/etc" have to stay what they are.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise StartError(f"rundir {path} is not a directory") from None
        if error.errno == errno.EACCES:
            raise StartError(f"rundir {path} belongs to others: set another rundir") from None
        raise
    try:
        status = os.fstat(directory)
        owner, mode = status.st_uid, stat.S_IMODE(status.st_mode)
        if owner not in (os.geteuid(), os.geteuid() if user is None else user.uid):
            raise StartError(f"rundir {path} belongs to user {owner}: set another rundir")
        own = f"set it to a directory for inosync alone, such as {os.path.join(path, 'inosync')}"
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise StartError(f"rundir {path} is writable by others: {own}")
        heir = user if user is not None and owner != user.uid else None
        if mode == 0o700 and heir is None:
            return
        names = os.listdir(directory)
        if others := sorted(name for name in names if not name.endswith(_OURS)):
            raise StartError(f"rundir {path} has {others[0]!r}, which is not inosync's: {own}")
        os.fchmod(directory, 0o700)
        if heir is not None:
            # Nobody else could put anything there: all of it is of earlier processes of ours.
            for name in names:
                os.chown(name, heir.uid, heir.gid, dir_fd=directory, follow_symlinks=False)
            os.fchown(directory, heir.uid, heir.gid)
    finally:
        os.close(directory)


def give_log(path: str, user: Account) -> None:
    """Make the log file, for that user to write to. What is a link is left to whom it was made by."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        file = os.open(path, flags, 0o640)
    except OSError as error:
        if error.errno == errno.ELOOP:
            return
        raise
    try:
        status = os.fstat(file)
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid != user.uid:
            os.fchown(file, user.uid, -1)
    finally:
        os.close(file)


def become(user: Account) -> str:
    """Be that user, who can read everything and write what is its own; what it lacks for that."""
    lost = privileges.become(user, (CAP_DAC_READ_SEARCH, CAP_LEASE), (CAP_DAC_READ_SEARCH,))
    if not lost:
        return ""
    lacking = ", ".join(NAMES[number] for number in lost)
    return f"ruser: {user.name} goes without {lacking}, which root lacks here"
