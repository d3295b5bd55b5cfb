"""To go on as another user, with no more of root's rights than to read everything: capabilities(7)."""

from __future__ import annotations

import ctypes
import grp
import os
import pwd
from collections.abc import Iterable
from dataclasses import dataclass

from inosync.system.libc import LIBC, check, prctl

_PR_SET_KEEPCAPS = 8  # prctl(2)
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_VERSION_3 = 0x20080522  # capset(2)

CAP_DAC_READ_SEARCH = 2
"""To read all files and directories."""
CAP_LEASE = 28
"""To ask for a lease on files of others: whether somebody has them open for writing."""
NAMES = {CAP_DAC_READ_SEARCH: "CAP_DAC_READ_SEARCH", CAP_LEASE: "CAP_LEASE"}


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Set(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


@dataclass(frozen=True, slots=True)
class Account:
    """Who to be."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    """All of them, for setgroups(2)."""
    home: str


def account(text: str) -> Account:
    """``user``, or ``user:group``; LookupError, with what is wrong, if there is no such one."""
    name, colon, group = text.partition(":")
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise LookupError(f"there is no user {name!r}") from None
    try:
        gid = grp.getgrnam(group).gr_gid if colon else user.pw_gid
    except KeyError:
        raise LookupError(f"there is no group {group!r}") from None
    return Account(name, user.pw_uid, gid, tuple(os.getgrouplist(name, gid)), user.pw_dir)


def become(who: Account, kept: Iterable[int], passed_on: Iterable[int]) -> tuple[int, ...]:
    """As root, be that user for good, with these capabilities and no others.

    ``passed_on``, some of ``kept``, are had by programs that are started, too. Those that we do not have
    ourselves, as in a container, cannot be kept: they are returned. OSError if it cannot be done.
    """
    had = _permitted()
    keep = {number for number in kept if had >> number & 1}
    inherit = keep & set(passed_on)
    prctl(_PR_SET_KEEPCAPS, 1)
    os.setgroups(who.groups)
    os.setresgid(who.gid, who.gid, who.gid)
    os.setresuid(who.uid, who.uid, who.uid)
    _set(_mask(keep), _mask(inherit))
    prctl(_PR_SET_KEEPCAPS, 0)
    for number in inherit:
        prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number)
    # What is started looks for its files there; ssh asks the system itself.
    os.environ.update(HOME=who.home, USER=who.name, LOGNAME=who.name)
    return tuple(number for number in kept if number not in keep)


def renounce() -> None:
    """Have no capabilities any more, and get none by starting a program (PR_SET_NO_NEW_PRIVS, prctl(2)).

    What belongs to our user stays ours. OSError if it cannot be done.
    """
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _set(0, 0)


def _permitted() -> int:
    sets = (_Set * 2)()
    check(LIBC.capget(ctypes.byref(_Header(_VERSION_3, 0)), sets))
    return int(sets[0].permitted) | int(sets[1].permitted) << 32


def _set(own: int, inheritable: int) -> None:
    sets = (_Set * 2)(
        *(
            _Set(own >> shift & 0xFFFFFFFF, own >> shift & 0xFFFFFFFF, inheritable >> shift)
            for shift in (0, 32)
        )
    )
    check(LIBC.capset(ctypes.byref(_Header(_VERSION_3, 0)), sets))


def _mask(numbers: Iterable[int]) -> int:
    return sum(1 << number for number in numbers)
