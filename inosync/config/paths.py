"""Relative paths, and default directories, which depend on where and by whom inosync was started."""

from __future__ import annotations

import os

from inosync.config.errors import NO_VALUE, Invalid, invalid

ROOTS_RUNDIR = "/run/inosync"
ROOTS_STATEDIR = "/var/lib/inosync"

_base = ""
_started_by_root = False


def relative_to(directory: str) -> None:
    """Resolve relative paths against ``directory`` from now on, because a daemon changes to "/"."""
    global _base
    _base = directory


def absolute(path: str) -> str:
    """Return a path absolute and normalised, with one leading slash and none at the end."""
    return "/" + os.path.abspath(os.path.join(_base, path)).lstrip("/")


def started_by_root() -> None:
    """Keep root's default run directory, whatever user this process becomes."""
    global _started_by_root
    _started_by_root = True


def default_rundir() -> str:
    """Return the run directory of a daemon that we start; Invalid if there is none for this user."""
    if os.geteuid() == 0 or _started_by_root:
        return ROOTS_RUNDIR
    session = os.environ.get("XDG_RUNTIME_DIR", "")
    if not os.path.isabs(session):
        hint = "set rundir to the absolute path of a directory that only you can write to"
        raise invalid(NO_VALUE, "is not set, and neither is XDG_RUNTIME_DIR", hint)
    return os.path.join(session, "inosync")


def default_statedir() -> str:
    """Return the state directory of a daemon that we start; empty if there is none for this user."""
    if os.geteuid() == 0 or _started_by_root:
        return ROOTS_STATEDIR
    states = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(states):  # such a value is ignored: XDG Base Directory Specification
        home = os.path.expanduser("~")
        states = os.path.join(home, ".local", "state")
    return os.path.join(states, "inosync") if os.path.isabs(states) else ""


def default_rundirs() -> list[str]:
    """Return the default run directories in which a daemon may be found: ours, and root's."""
    try:
        return list(dict.fromkeys((default_rundir(), ROOTS_RUNDIR)))
    except Invalid:
        return [ROOTS_RUNDIR]
