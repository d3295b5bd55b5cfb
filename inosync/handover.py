"""What only root can open is given to the user that the daemon goes on as (``ruser``)."""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from inosync.system import privileges
from inosync.system.privileges import CAP_DAC_READ_SEARCH, CAP_LEASE, NAMES, Account


class StartError(Exception):
    """The daemon cannot start; the text says why."""


def make_rundir(path: str, user: Account | None = None) -> None:
    """Make the run directory, for its owner alone; StartError or OSError if that is not what it is.

    Its owner is ``user``, or who we are.
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
        owner = os.fstat(directory).st_uid
        if owner not in (os.geteuid(), os.geteuid() if user is None else user.uid):
            raise StartError(f"rundir {path} belongs to user {owner}: set another rundir")
        os.fchmod(directory, 0o700)
        if user is not None and owner != user.uid:
            # Nobody else could put anything there: all of it is of an earlier process of ours.
            for name in os.listdir(directory):
                os.chown(name, user.uid, user.gid, dir_fd=directory, follow_symlinks=False)
            os.fchown(directory, user.uid, user.gid)
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
