"""Checks of values that need a look at this machine: directories, programs, users, what is installed."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence

from inosync.config import hook, trust
from inosync.config.checks import list_of, number, string
from inosync.config.errors import Invalid, ValueProblem, invalid
from inosync.config.hook import Hook, OnStage
from inosync.config.listen import Address, BadAddress, parse
from inosync.config.paths import (
    ROOTS_RUNDIR,
    ROOTS_STATEDIR,
    absolute,
    default_rundir,
    default_statedir,
)
from inosync.config.targets import overlaps
from inosync.system import privileges
from inosync.text import format_value

# wpaths ------------------------------------------------------------------------------------------------


def wpaths(example: str) -> Callable[[object], tuple[str, ...]]:
    """Return a check of directories, none of them inside another. One that does not exist passes."""
    check = list_of(_wpath, example)

    def checked(value: object) -> tuple[str, ...]:
        problems: list[ValueProblem] = []
        try:
            found = check(value)
        except Invalid as error:
            found = error.usable or ()
            problems += error.problems
        named = [wpath for wpath in found if wpath is not None]
        problems += _nested(named, [os.path.realpath(wpath) for wpath in named])
        if problems:
            raise Invalid(*problems, usable=found)
        return tuple(found)

    return checked


def _wpath(value: object) -> str:
    """Return a wpath as it is written, because its trailing slash had a meaning in 0.2.3."""
    wpath = string(value)
    if not wpath:
        raise invalid(value, "is empty", "write an absolute path")
    if problem := _not_a_directory(absolute(wpath)):
        raise Invalid(ValueProblem(value, *problem), usable=wpath)
    return wpath


def _not_a_directory(path: str) -> tuple[str, str] | None:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return None  # with rwait, or in fstab, this is no mistake
    except OSError as error:
        return f"cannot be read: {error.strerror}", "correct the path"
    if not stat.S_ISDIR(mode):
        return "is not a directory", "name the directory that it is in"
    try:
        # Not access(2), which ignores the capabilities that ``ruser`` keeps.
        os.close(os.open(os.path.join(path, "."), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as error:
        return f"cannot be read: {error.strerror}", "run inosync as a user that can read it"
    return None


def _nested(wpaths: Sequence[str], real: Sequence[str]) -> Iterator[ValueProblem]:
    for inner, outer in overlaps([("", path) for path in real]):
        how = "is the same directory as" if real[inner] == real[outer] else "lies inside"
        hint = "leave it out, it is mirrored already"
        yield ValueProblem(wpaths[inner], f"{how} {format_value(wpaths[outer])}", hint)


# The others --------------------------------------------------------------------------------------------


def slots(value: object) -> int:
    """Check a number of slots; 0 means two for each processor."""
    return int(number(2**31 - 1, whole=True)(value)) or 2 * (os.cpu_count() or 1)


def program(value: object) -> str:
    """Check the path of the rsync binary."""
    path = string(value)
    hint = "install it (apt install rsync), or write the path where it is"
    if not os.path.isabs(path):
        raise invalid(value, "is not an absolute path", hint)
    if not os.path.isfile(path):
        raise invalid(value, "is not found", hint)
    if not os.access(path, os.X_OK):
        raise invalid(value, "cannot be executed", hint)
    return path


def logfile(value: object) -> str | None:
    """Check the path of a log file in a directory that exists."""
    if value is None or value == "":  # 0.2.3 took an empty string for none
        return None
    path = string(value)
    hint = "write a file in a directory that exists, such as '/var/log/inosync.log', or None"
    if not os.path.isabs(path):
        raise invalid(value, "is not an absolute path", hint)
    if os.path.isdir(path):
        raise invalid(value, "is a directory", hint)
    if not os.path.isdir(os.path.dirname(path)):
        raise invalid(value, "its directory does not exist", hint)
    return path


def rundir(value: object) -> str:
    """Check the path of a run directory, whose parent exists."""
    return default_rundir() if value is None else _own_directory(value, ROOTS_RUNDIR)


def _own_directory(value: object, example: str) -> str:
    path = string(value)
    if not os.path.isabs(path):
        raise invalid(value, "is not an absolute path", f"write one such as {example!r}")
    if os.path.exists(path) and not os.path.isdir(path):
        raise invalid(value, "is not a directory", "remove it, or write another path")
    if not os.path.isdir(os.path.dirname(absolute(path))):
        raise invalid(value, "its directory does not exist", "make it, or write another path")
    return absolute(path)


def statedir(value: object) -> str:
    """Check a state directory; empty for none. Its parent exists, unless it is the default one."""
    if value is None:
        return default_statedir()
    return _own_directory(value, ROOTS_STATEDIR) if value != "" else ""


def listen(value: object) -> Address | None:
    """Check an address to listen at, and that the library for it is installed."""
    if value is None or value == "":
        return None
    try:
        address = parse(string(value))
    except BadAddress as error:
        raise invalid(value, str(error), error.hint) from None
    if importlib.util.find_spec("prometheus_client") is None:
        hint = "install it (pip install 'inosync[metrics]', or apt install python3-prometheus-client)"
        raise invalid(value, "needs prometheus_client, which is not installed", hint)
    return address


def runnable(check: Callable[[object], Hook | None]) -> Callable[[object], Hook | None]:
    """Return a check of a hook that also checks that its program can be run and trusted."""

    def checked(value: object) -> Hook | None:
        found = check(value)
        if found is not None and found.command:
            _check_runnable(found.command[0])
        return found

    return checked


def on_stage(value: object) -> OnStage | None:
    """Check what decides between stages, and that its program can be run and trusted."""
    found = hook.on_stage(value)
    if found is not None and found.hook is not None and found.hook.command:
        _check_runnable(found.hook.command[0])
    return found


def _check_runnable(program: str) -> None:
    if not os.path.isabs(program):
        found = shutil.which(program) or f"/usr/bin/{program}"
        raise invalid(program, "is not an absolute path", f"write {format_value(found)}")
    if not os.path.isfile(program):
        raise invalid(program, "is not found", "install it, or write the path where it is")
    if not os.access(program, os.X_OK):
        raise invalid(program, "cannot be executed", f"chmod +x {shlex.quote(program)}")
    trust.check(program)


def ruser(value: object) -> str | None:
    """Check a user, or user:group, that this process can become."""
    if value is None:
        return None
    text = string(value)
    try:
        account = privileges.account(text)
    except LookupError as error:
        raise invalid(value, str(error), "write a user of this machine, or user:group") from None
    if os.geteuid() not in (0, account.uid):
        hint = "start inosync as root, or leave it out"
        raise invalid(value, "only root can become another user", hint)
    return text
