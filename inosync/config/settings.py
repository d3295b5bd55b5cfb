"""Every setting of a configuration file: how it is checked, and its default.

``SETTINGS`` is the list. What needs only the value is checked by ``policy.checks``, what needs to look at
this machine here, and what depends on several settings by ``config``.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import shlex
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from inosync.config import checks, hook, timetable, trust
from inosync.config.checks import Check, list_of, string
from inosync.config.errors import Invalid, ValueProblem
from inosync.config.events import DEFAULT_EVENTS, events
from inosync.config.listen import Address, BadAddress, parse
from inosync.config.nodes import check_node, display_name
from inosync.config.targets import overlaps
from inosync.system import privileges
from inosync.text import format_value

REQUIRED = object()
EXAMPLES = {
    "wpaths": 'wpaths = ["/var/www/"]',
    "rpaths": 'rpaths = ["/var/www/"], one for each wpath',
    "rnodes": 'rnodes = ["user@host:"]',
}
"""Of what is required."""


def unknown(name: object, known: Iterable[str]) -> tuple[str, str]:
    """What is wrong with a name that is not known, and what would be right."""
    if close := difflib.get_close_matches(str(name).lower(), known, 1):
        return f"did you mean {close[0]}? There is no setting of this name", ""
    return "there is no setting of this name", "names of your own begin with an underscore"


_base = ""


def relative_to(directory: str) -> None:
    """Take relative paths from ``directory`` from now on, whatever the current one is: a daemon leaves it."""
    global _base
    _base = directory


def absolute(path: str) -> str:
    """Absolute and normalised, with one leading slash and none at the end."""
    return "/" + os.path.abspath(os.path.join(_base, path)).lstrip("/")


# wpaths ------------------------------------------------------------------------------------------------


def _wpaths(value: object) -> tuple[str, ...]:
    faults: list[ValueProblem] = []
    try:
        wpaths = list_of(_wpath, EXAMPLES["wpaths"])(value)
    except Invalid as invalid:
        wpaths = invalid.rest or ()
        faults += invalid.faults
    named = [wpath for wpath in wpaths if wpath is not None]
    faults += _nested(named, [os.path.realpath(wpath) for wpath in named])
    if faults:
        raise Invalid(*faults, rest=wpaths)
    return tuple(wpaths)


def _wpath(value: object) -> str:
    """A wpath as it is written: its trailing slash had a meaning in 0.2.3."""
    wpath = string(value)
    if not wpath:
        raise Invalid(ValueProblem(value, "is empty", "write an absolute path"))
    if wrong := _unlike_a_directory(absolute(wpath)):
        raise Invalid(ValueProblem(value, *wrong), rest=wpath)
    return wpath


def _unlike_a_directory(path: str) -> tuple[str, str] | None:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return None  # that may be no mistake: see ``absent``
    except OSError as problem:
        return f"cannot be read: {problem.strerror}", "correct the path"
    if not stat.S_ISDIR(mode):
        return "is not a directory", "name the directory that it is in"
    try:
        # Not access(2): it does not count what a user was left of root's rights (``ruser``).
        os.close(os.open(os.path.join(path, "."), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as problem:
        return f"cannot be read: {problem.strerror}", "run inosync as a user who may"
    return None


def absent(wpath: str) -> bool:
    """Whether there is nothing at an absolute wpath."""
    return not os.path.exists(wpath)


ABSENT = ("does not exist", "make it, correct the path, or set rwait = True to wait for it")
"""What is wrong with one that nobody waits for, and what would be right."""


def _nested(wpaths: Sequence[str], real: Sequence[str]) -> Iterator[ValueProblem]:
    for inner, outer in overlaps([("", path) for path in real]):
        how = "is the same directory as" if real[inner] == real[outer] else "lies inside"
        right = "leave it out, it is mirrored already"
        yield ValueProblem(wpaths[inner], f"{how} {format_value(wpaths[outer])}", right)


# rnodes ------------------------------------------------------------------------------------------------


def _node(value: object) -> dict[str, Any]:
    """An item of ``rnodes``: "node", "name", and what overrides the settings of the file."""
    if not isinstance(value, dict):
        return _named({"node": check_node(value)})
    if "node" not in value:
        raise Invalid(ValueProblem(value, "has no 'node'", 'write {"node": "user@host:", ...}'))
    try:
        items = dict(checks.each(value.items(), lambda item: _node_item(value["node"], *item)))
    except Invalid as invalid:
        good = dict(item for item in invalid.rest if item is not None)
        raise Invalid(*invalid.faults, rest=_named(good) if "node" in good else None) from None
    return _named(items)


def _named(items: dict[str, Any]) -> dict[str, Any]:
    return {"name": display_name(items["node"]), **items}


def _node_item(node: object, key: object, value: object) -> tuple[str, Any]:
    if key == "node":
        return "node", check_node(value)
    where = f"{key} of {format_value(node)}"
    if not isinstance(key, str) or key not in _OF_A_NODE:
        raise Invalid(ValueProblem(key, *unknown(key, ["node", *_OF_A_NODE]), f"in {format_value(node)}"))
    return key, checks.inside(where, _OF_A_NODE[key], value)


# The others --------------------------------------------------------------------------------------------


def _slots(value: object) -> int:
    slots: int = checks.number(2**31 - 1, whole=True)(value)
    return slots or 2 * (os.cpu_count() or 1)


def _program(value: object) -> str:
    path = string(value)
    right = "install it (apt install rsync), or write the path where it is"
    if not os.path.isabs(path):
        raise Invalid(ValueProblem(value, "is not an absolute path", right))
    if not os.path.isfile(path):
        raise Invalid(ValueProblem(value, "is not found", right))
    if not os.access(path, os.X_OK):
        raise Invalid(ValueProblem(value, "cannot be executed", right))
    return path


def _logfile(value: object) -> str | None:
    if value is None or value == "":  # 0.2.3 took an empty string for none
        return None
    path = string(value)
    right = "write a file in a directory that exists, such as '/var/log/inosync.log', or None"
    if not os.path.isabs(path):
        raise Invalid(ValueProblem(value, "is not an absolute path", right))
    if os.path.isdir(path):
        raise Invalid(ValueProblem(value, "is a directory", right))
    if not os.path.isdir(os.path.dirname(path)):
        raise Invalid(ValueProblem(value, "its directory does not exist", right))
    return path


def _rundir(value: object) -> str:
    if value is None:
        return _default_rundir()
    path = string(value)
    if not os.path.isabs(path):
        raise Invalid(ValueProblem(value, "is not an absolute path", "write one such as '/run/inosync'"))
    if os.path.exists(path) and not os.path.isdir(path):
        raise Invalid(ValueProblem(value, "is not a directory", "remove it, or write another path"))
    if not os.path.isdir(os.path.dirname(absolute(path))):
        raise Invalid(ValueProblem(value, "its directory does not exist", "make it, or write another path"))
    return absolute(path)


_begun_by_root = False


def begun_by_root() -> None:
    """Take for default what is root's, whoever we are from now on."""
    global _begun_by_root
    _begun_by_root = True


ROOTS_RUNDIR = "/run/inosync"


def default_rundirs() -> list[str]:
    """Where a daemon may have its run directory if nothing else is set: ours, and root's."""
    try:
        return list(dict.fromkeys((_default_rundir(), ROOTS_RUNDIR)))
    except Invalid:
        return [ROOTS_RUNDIR]


def _default_rundir() -> str:
    if os.geteuid() == 0 or _begun_by_root:
        return ROOTS_RUNDIR
    session = os.environ.get("XDG_RUNTIME_DIR", "")
    if not os.path.isabs(session):
        right = "set rundir to the absolute path of a directory that only you can write to"
        raise Invalid(ValueProblem(None, "is not set, and neither is XDG_RUNTIME_DIR", right))
    return os.path.join(session, "inosync")


def _listen(value: object) -> Address | None:
    if value is None or value == "":
        return None
    try:
        address = parse(string(value))
    except BadAddress as problem:
        raise Invalid(ValueProblem(value, str(problem), problem.right)) from None
    if importlib.util.find_spec("prometheus_client") is None:
        right = "install it (pip install 'inosync[metrics]', or apt install python3-prometheus-client)"
        raise Invalid(ValueProblem(value, "needs prometheus_client, which is not installed", right))
    return address


def _hook(check: Check) -> Check:
    """A check of a hook, whose program has to be one that nobody else can write."""

    def checked(value: object) -> hook.Hook | None:
        made: hook.Hook | None = check(value)
        if made is not None and made.command:
            _runnable(made.command[0])
        return made

    return checked


def _runnable(program: str) -> None:
    if not os.path.isabs(program):
        found = shutil.which(program) or f"/usr/bin/{program}"
        raise Invalid(ValueProblem(program, "is not an absolute path", f"write {format_value(found)}"))
    if not os.path.isfile(program):
        raise Invalid(ValueProblem(program, "is not found", "install it, or write the path where it is"))
    if not os.access(program, os.X_OK):
        raise Invalid(ValueProblem(program, "cannot be executed", f"chmod +x {shlex.quote(program)}"))
    trust.check(program)


def _ruser(value: object) -> str | None:
    if value is None:
        return None
    text = string(value)
    try:
        who = privileges.account(text)
    except LookupError as problem:
        right = "write a user of this machine, or user:group"
        raise Invalid(ValueProblem(value, str(problem), right)) from None
    if os.geteuid() not in (0, who.uid):
        raise Invalid(
            ValueProblem(value, "only root can be another user", "start inosync as root, or leave it out")
        )
    return text


# All of them -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Setting:
    check: Check
    default: Any = REQUIRED
    """As it would be written in a file."""


SETTINGS: dict[str, Setting] = {
    "wpaths": Setting(_wpaths),
    "rpaths": Setting(list_of(string, EXAMPLES["rpaths"])),
    "rnodes": Setting(list_of(_node, EXAMPLES["rnodes"])),
    "rexcludes": Setting(checks.excludes, []),
    "extra": Setting(checks.extra, ""),
    "rspeed": Setting(timetable.check, 0),
    "emask": Setting(events, DEFAULT_EVENTS),
    "edelay": Setting(checks.seconds, 10),
    "equiet": Setting(checks.seconds, 0.05),
    "rsync": Setting(_program, "/usr/bin/rsync"),
    "rwarm": Setting(checks.boolean, True),
    "rslots": Setting(_slots, 0),
    "rtimeout": Setting(checks.some_seconds, 300),
    "rretry": Setting(checks.retry, (1, 300)),
    "rdelete": Setting(checks.delete, True),
    "rguard": Setting(checks.boolean, True),
    "rverify": Setting(checks.seconds, 86_400),
    "rchecksum": Setting(checks.boolean, False),
    "rwait": Setting(checks.boolean, False),
    "ruser": Setting(_ruser, None),
    "rlisten": Setting(_listen, None),
    "on_sync": Setting(_hook(hook.on_sync), None),
    "on_state": Setting(_hook(hook.on_state), None),
    "logfile": Setting(_logfile, None),
    "logformat": Setting(checks.one_of("text", "json"), "text"),
    "rundir": Setting(_rundir, None),
}
"""Every setting of a file (design.md section 6)."""

_OF_A_NODE: dict[str, Check] = {
    "name": checks.name,
    "rspeed": timetable.check,
    "extra": checks.extra,
    "rexcludes": checks.patterns,
    "rtimeout": checks.some_seconds,
    "rwarm": checks.boolean,
    "rverify": checks.seconds,
    "rchecksum": checks.boolean,
    "wpaths": list_of(string, '["/var/www/"], some of the wpaths'),
}
"""What a node may have of its own."""
