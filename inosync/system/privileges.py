"""Becoming another user with few of root's capabilities: capabilities(7)."""

from __future__ import annotations

import contextlib
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
_OVERFLOW_ID = 65_534  # nobody, to the kernel: user_namespaces(7)

CAP_DAC_READ_SEARCH = 2
"""Read all files and directories."""
CAP_LEASE = 28
"""Take leases on files of other users, which shows whether a process has them open for writing."""
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
    """A user to become."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    """All group numbers, for setgroups(2)."""
    home: str


def account(text: str) -> Account:
    """Return the account for ``user`` or ``user:group``; LookupError says which of them does not exist."""
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
    """Change from root to a user for good, and keep only the capabilities in ``kept``.

    Programs that we start get those in ``passed_on``, a part of ``kept``. Return the capabilities that could
    not be kept because we do not have them, as in a container. OSError if the change fails.
    """
    had, _ = _capabilities()
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
    # Programs look for their files there; ssh reads the passwd database instead.
    os.environ.update(HOME=who.home, USER=who.name, LOGNAME=who.name)
    return tuple(number for number in kept if number not in keep)


def renounce() -> None:
    """Drop all capabilities, and gain none by exec (PR_SET_NO_NEW_PRIVS, prctl(2)); OSError if that fails.

    Root becomes nobody, too; where a container does not allow that, root's files can still be written. Any
    other user stays what it is. The kernel forgets ``process.die_with_parent``.
    """
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):
            uid, gid = _nobody()
            os.setgroups(())
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _set(0, 0)


def drop_lease() -> None:
    """Drop CAP_LEASE, which only the master needs; root keeps it. OSError if that fails."""
    if os.geteuid() != 0:
        others = ~(1 << CAP_LEASE)
        permitted, inheritable = _capabilities()
        _set(permitted & others, inheritable & others)


def drop_all() -> None:
    """Drop all capabilities, and pass none on; root keeps them. OSError if that fails."""
    if os.geteuid() != 0:
        _set(0, 0)


def _nobody() -> tuple[int, int]:
    try:
        found = pwd.getpwnam("nobody")
    except KeyError:
        return _OVERFLOW_ID, _OVERFLOW_ID
    return found.pw_uid, found.pw_gid


def _capabilities() -> tuple[int, int]:
    sets = (_Set * 2)()
    check(LIBC.capget(ctypes.byref(_Header(_VERSION_3, 0)), sets))
    low, high = sets
    return (
        int(low.permitted) | int(high.permitted) << 32,
        int(low.inheritable) | int(high.inheritable) << 32,
    )


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
